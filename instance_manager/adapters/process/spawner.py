"""Spawning processes, and reaping all children of this process."""

import asyncio
import errno
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.adapters.process import proc
from instance_manager.adapters.process.allowlist import BinaryAllowlist
from instance_manager.adapters.process.child import OsChild
from instance_manager.adapters.process.descendants import OwnDescendantReaper
from instance_manager.app.interfaces import CannotExecuteError, SpawnRequest
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import contract
from instance_manager.platform.linux import become_subreaper

log = structlog.get_logger(__name__)

_OUT_OF_RESOURCES = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC}
_ALL_SIGNALS = signal.valid_signals()
DESCRIPTORS_KEPT = 64
"""Descriptors kept in reserve for calls, health checks and reading /proc."""


class ProcessSpawner:
    """Starts processes as children of this one; implements `app.interfaces.Spawner`.

    `open` makes the whole OS process a subreaper and reaps every child that ends, so nothing else in it may
    start processes while it is open.
    """

    def __init__(self, environment: Mapping[str, str], owner: str, roots: Sequence[Path] = ()) -> None:
        """Start processes with this environment and owner.

        Args:
            environment: the environment of this process.
            owner: the state directory's value of `contract.OWNER_VARIABLE`.
            roots: see `BinaryAllowlist`; if there are none, any program may be started.

        Raises:
            InvalidArgumentError: if a root is not a directory.
        """
        self._allowlist = BinaryAllowlist(roots)
        self._search_path = os.get_exec_path(environment)
        # The library path of this program may break the one that is started.
        kept = {k: v for k, v in environment.items() if not k.startswith("LD_")}
        kept.pop(contract.GUARD_VARIABLE, None)
        self._environment = kept | {contract.OWNER_VARIABLE: owner}
        self._children: dict[int, OsChild] = {}
        self._descendants = OwnDescendantReaper(self._reap, self._children.keys())
        self._devnull = -1

    def open(self) -> None:
        """Adopt orphaned descendants from now on, and let no descriptor leak into a child."""
        become_subreaper()
        _close_on_exec()
        self._devnull = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._sigchld = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGCHLD, self._reap)
            # When hundreds end at once, the buffer of the wake-ups gets full; one of them is enough.
            signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        except RuntimeError:
            # uvloop does not allow its own handler for SIGCHLD, but Python's handlers wake it up as well.
            signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(self._reap))

    def close(self) -> None:
        """Close the pidfds of all children and leave the children alone."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, self._sigchld)
        self._descendants.close()
        for child in self._children.values():
            child.close()
        self._children.clear()
        os.close(self._devnull)

    def descriptors(self) -> set[int]:
        """Return the pidfds of all children."""
        return {child.descriptor for child in self._children.values()}

    def check_allowed(self, program: str) -> None:
        """Check that a program may be started.

        Raises:
            PermissionDeniedError: if it is not below a binary root.
        """
        self._allowlist.resolve(program, self._search_path)

    def spawn(self, request: SpawnRequest, on_exit: Callable[[ExitStatus], None]) -> OsChild:
        """Start a process in a session of its own.

        Raises:
            CannotExecuteError: if the binary cannot be executed.
            PermissionDeniedError: if it is not below a binary root.
            ResourceExhaustedError: if there is no PID, descriptor or memory for it.
        """
        _keep_descriptors(request)
        program = request.command[0]
        identity_variables = {
            contract.NAME_VARIABLE: request.name,
            contract.UUID_VARIABLE: request.uuid,
            contract.RECOVERY_METADATA_VARIABLE: request.recovery_metadata,
        }
        try:
            pid = os.posix_spawnp(
                self._allowlist.resolve(program, self._search_path),
                request.command,
                self._environment | identity_variables,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, self._devnull, 0),
                    (os.POSIX_SPAWN_DUP2, request.output, 1),
                    (os.POSIX_SPAWN_DUP2, request.output, 2),
                ],
                setsid=True,
                setsigmask=(),
                # Python ignores SIGPIPE and SIGXFSZ, a shell's `&` SIGINT; a child would inherit that.
                setsigdef=_ALL_SIGNALS,
            )
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                raise _out_of_resources(request, error) from error
            raise CannotExecuteError(f"cannot execute {program}: {error.strerror}") from error
        return self._watch(pid, request, on_exit)

    def _watch(self, pid: int, request: SpawnRequest, on_exit: Callable[[ExitStatus], None]) -> OsChild:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            # Without a pidfd it could not be supervised. It is not reaped yet, so the PID is still its own.
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED)
            raise _out_of_resources(request, error) from error
        stat = proc.read_stat(pid)
        identity = Identity(pid, stat.start_time if stat else 0)

        def report(child: OsChild, status: ExitStatus) -> None:
            self._children.pop(child.identity.pid, None)
            on_exit(status)

        log.debug("spawned", name=request.name, uuid=request.uuid, pid=pid, command=request.command)
        child = OsChild(pidfd, identity, request.uuid, on_exit=report, descendants=self._descendants)
        self._children[pid] = child
        return child

    def _reap(self) -> None:
        """Reap every child that has ended; exits of descendants are not reported."""
        with suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                child = self._children.get(ended.si_pid)
                if child is not None:
                    child.collect()
                else:
                    os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
                    log.debug("descendant reaped", pid=ended.si_pid, status=ended.si_status)
                    self._descendants.reaped(ended.si_pid)


def _keep_descriptors(request: SpawnRequest) -> None:
    """Refuse to use up the descriptors; the lowest free one shows roughly how many are open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        lowest_free = os.dup(request.output)
    except OSError as error:
        raise _out_of_resources(request, error) from error
    os.close(lowest_free)
    if limit != resource.RLIM_INFINITY and lowest_free >= limit - DESCRIPTORS_KEPT:
        raise ResourceExhaustedError(
            f"cannot start {request.name}: {lowest_free} of the {limit} descriptors this process may open "
            f"are in use and the last {DESCRIPTORS_KEPT} are kept; raise the limit of open files "
            "(ulimit -n) or delete processes"
        )


def _out_of_resources(request: SpawnRequest, error: OSError) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        f"cannot start {request.name}: {error.strerror}; the machine or the container is out of PIDs, "
        "descriptors or memory, look at its limits"
    )


def _close_on_exec() -> None:
    """Hide inherited descriptors from children; those of Python and gRPC are hidden already."""
    for descriptor in (int(path.name) for path in Path("/proc/self/fd").iterdir()):
        if descriptor > 2:  # noqa: PLR2004 - stdin, stdout and stderr are set for each child
            with suppress(OSError):  # the one that listed the folder is closed already
                os.set_inheritable(descriptor, False)
