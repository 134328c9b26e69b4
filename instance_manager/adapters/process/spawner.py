"""Spawning processes, and reaping all children of this process.

What an instance has from this process, and why; tests/adapters/test_process_inheritance.py checks each line:

- descriptors: 0 is /dev/null, 1 and 2 are its log; no others.
- signals: none blocked, none ignored, whatever this process was started with.
- session: its own, without a controlling terminal; it leads its process group.
- environment: this process's, without `LD_*` (a library path may break another program) and the guard's
  variables, and with the instance's identity. Words and variables are UTF-8 in every locale.
- limit of open files: as raised by the daemon to its hard limit, since an instance holds a descriptor for
  each client and disk file; all other limits as this process was started with.
- umask, nice value, OOM score adjustment, working directory: this process's, which the one who starts the
  daemon chooses, and which the daemon never changes.
"""

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
from instance_manager.adapters.process.census import Slices
from instance_manager.adapters.process.child import OsChild
from instance_manager.adapters.process.descendants import DescendantReaper
from instance_manager.adapters.process.leaders import Leader
from instance_manager.adapters.process.reading import BoundedReader
from instance_manager.app.interfaces import CannotExecuteError, SpawnRequest
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import contract
from instance_manager.platform.linux import become_subreaper

log = structlog.get_logger(__name__)

_OUT_OF_RESOURCES = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC}
_ALL_SIGNALS = signal.valid_signals()
_REAP_RETRY_DELAY = 0.1
_MOST_GENERATIONS, _STRAY_DELAY = 100, 0.01
"""How often to look for strays at the end, as one that is killed may leave others, and seconds in between."""
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
        dropped = ("LD_", contract.GUARD_VARIABLE)
        kept = {key: value for key, value in environment.items() if not key.startswith(dropped)}
        self._environment = kept | {contract.OWNER_VARIABLE: owner}
        self._children: dict[int, OsChild] = {}
        """By PID; also those that have ended and whose descendants are searched for."""
        self._descendants = DescendantReaper(
            BoundedReader(), near=self._orphans, parent=os.getpid, reap=self._reap
        )
        self._reaping: asyncio.Task[None] | None = None
        self._reap_again = False
        self._devnull = -1
        self._alone = False
        """Whether all that this process inherits was left by instances."""

    def open(self) -> None:
        """Adopt orphaned descendants from now on, and let no descriptor leak into a child."""
        # The first process of a namespace inherits what others bring there, and what was there before this
        # program (by exec, in a script) may leave something, too.
        self._alone = os.getpid() != 1 and not proc.children_of(os.getpid())
        if self._alone:
            self._descendants.alone()
        become_subreaper()
        _close_on_exec()
        self._devnull = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._sigchld = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGCHLD, self._reap_soon)
            # When hundreds end at once, the buffer of the wake-ups gets full; one of them is enough.
            signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        except RuntimeError:
            # uvloop does not allow its own handler for SIGCHLD, but Python's handlers wake it up as well.
            signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(self._reap_soon))

    def close(self) -> None:
        """Close the pidfds of all children and leave the children alone."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, self._sigchld)
        self._descendants.close()
        if self._reaping is not None:
            self._reaping.cancel()
        for child in self._children.values():
            child.close()
        self._children.clear()
        os.close(self._devnull)

    def drain(self) -> None:
        """Prepare for the end, see `DescendantReaper.drain`."""
        self._descendants.drain()

    async def end_strays(self) -> None:
        """Kill what instances have left to this process, once none is left that it could belong to."""
        if not self._alone:
            return
        told: set[int] = set()
        try:
            for _ in range(_MOST_GENERATIONS):
                await self._reap()
                strays = set(self._orphans())
                if fresh := strays - told:
                    log.warning("ending what instances have left behind", pids=sorted(fresh))
                told |= strays
                for pid in strays:
                    os.kill(pid, signal.SIGKILL)  # a child: its PID is its own until it is reaped here
                if not strays:
                    return
                await asyncio.sleep(_STRAY_DELAY)
        except proc.UnreadableError as error:
            log.warning("what instances have left behind is not known", reason=str(error))

    def descriptors(self) -> set[int]:
        """Return the pidfds of all children."""
        return {child.descriptor for child in self._children.values()}

    def check_allowed(self, program: str) -> None:
        """Check that a program may be started.

        Raises:
            PermissionDeniedError: if it is not below a binary root.
        """
        self._allowlist.resolve(_native(program), self._search_path)

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
                self._allowlist.resolve(_native(program), self._search_path),
                tuple(map(_native, request.command)),
                self._environment | {key: _native(value) for key, value in identity_variables.items()},
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
            try:
                stat = proc.read_stat(pid)
                if stat is None:
                    raise proc.UnreadableError("/proc does not show it")
            except proc.UnreadableError:
                os.close(pidfd)
                raise
        except (OSError, proc.UnreadableError) as error:
            # It could not be supervised, or never be adopted. It is not reaped, so the PID is still its own.
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED)
            raise _out_of_resources(request, error) from error
        log.debug("spawned", name=request.name, uuid=request.uuid, pid=pid, command=request.command)
        child = OsChild(
            pidfd,
            Leader(Identity(pid, stat.start_time), request.uuid),
            on_exit=on_exit,
            on_reaped=self._forget,
            descendants=self._descendants,
        )
        self._children[pid] = child
        return child

    def _forget(self, child: OsChild) -> None:
        self._children.pop(child.identity.pid, None)

    def _orphans(self) -> list[int]:
        """Return the PIDs of the descendants that this process has inherited."""
        return [pid for pid in proc.children_of(os.getpid()) if pid not in self._children]

    def _reap_soon(self) -> None:
        self._reap_again = True
        if self._reaping is None or self._reaping.done():
            self._reaping = asyncio.get_running_loop().create_task(self._reap_all())

    async def _reap_all(self) -> None:
        while self._reap_again:
            self._reap_again = False
            try:
                await self._reap()
            except proc.UnreadableError as error:
                log.debug("descendants not reaped, trying again", reason=str(error))
                self._reap_again = True
                await asyncio.sleep(_REAP_RETRY_DELAY)

    async def _reap(self) -> None:
        """Reap every descendant that has ended; the exits of children are events on their pidfds.

        Raises:
            proc.UnreadableError: if children cannot be listed.
        """
        slices = Slices()
        for pid in self._orphans():
            # It may have been reaped meanwhile, and its PID be that of a new child.
            if pid not in self._children:
                with suppress(ChildProcessError):
                    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - no wait
                    if ended is not None:
                        log.debug("descendant reaped", pid=pid, status=ended.si_status)
                        self._descendants.look_soon()
            await slices.pause()


def _native(word: str) -> str:
    """Return a word that becomes UTF-8 bytes for the kernel, whatever the locale is."""
    return os.fsdecode(word.encode())


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


def _out_of_resources(request: SpawnRequest, error: OSError | proc.UnreadableError) -> ResourceExhaustedError:
    reason = error.strerror if isinstance(error, OSError) else error
    return ResourceExhaustedError(
        f"cannot start {request.name}: {reason}; the machine or the container is out of PIDs, "
        "descriptors or memory, look at its limits"
    )


def _close_on_exec() -> None:
    """Hide inherited descriptors from children; those of Python and gRPC are hidden already."""
    for descriptor in (int(path.name) for path in Path("/proc/self/fd").iterdir()):
        if descriptor > 2:  # noqa: PLR2004 - stdin, stdout and stderr are set for each child
            with suppress(OSError):  # the one that listed the folder is closed already
                os.set_inheritable(descriptor, False)
