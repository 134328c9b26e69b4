"""Spawning processes.

What an instance has from this process, and why; tests/adapters/test_process_inheritance.py checks each line:

- containment: a cell of its own, in which its program is executed.
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

import errno
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.adapters.process.allowlist import BinaryAllowlist
from instance_manager.adapters.process.child import OsChild
from instance_manager.adapters.process.launcher import Launch, check_executable, launch_command
from instance_manager.adapters.process.reaper import Reaper
from instance_manager.app.containment import Cell, CellMetadata, Containment
from instance_manager.app.interfaces import CannotExecuteError, SpawnRequest
from instance_manager.core.errors import ResourceExhaustedError
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import contract, proc
from instance_manager.platform.commands import SHELL
from instance_manager.platform.posix_spawn import can_spawn_into_cgroup, spawn_into_cgroup

log = structlog.get_logger(__name__)

_OUT_OF_RESOURCES = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC}
_ALL_SIGNALS = signal.valid_signals()
DESCRIPTORS_KEPT = 64
"""Descriptors kept in reserve for calls, health checks and reading /proc."""


class ProcessSpawner:
    """Starts processes as children of this one; implements `app.interfaces.Spawner`."""

    def __init__(
        self,
        environment: Mapping[str, str],
        owner: str,
        roots: Sequence[Path] = (),
        *,
        containment: Containment,
        reaper: Reaper,
    ) -> None:
        """Start processes with this environment and owner.

        Args:
            environment: the environment of this process.
            owner: the state directory's value of `contract.OWNER_VARIABLE`.
            roots: see `BinaryAllowlist`; if there are none, any program may be started.
            containment: makes a cell for each.
            reaper: leaves them alone, while it is open.

        Raises:
            InvalidArgumentError: if a root is not a directory.
        """
        self._allowlist = BinaryAllowlist(roots)
        self._search_path = os.get_exec_path(environment)
        # The library path of this program may break the one that is started.
        dropped = ("LD_", contract.GUARD_VARIABLE)
        kept = {key: value for key, value in environment.items() if not key.startswith(dropped)}
        self._environment = kept | {contract.OWNER_VARIABLE: owner}
        self._containment = containment
        self._reaper = reaper
        self._children: dict[int, OsChild] = {}
        """By PID; also those that have ended and of which descendants may be left."""
        self._devnull = -1

    def open(self) -> None:
        """Let no descriptor leak into a child from now on."""
        _close_on_exec()
        self._devnull = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def close(self) -> None:
        """Close the pidfds of all children and leave the children alone."""
        for child in self._children.values():
            child.close()
            child.cell.close()
        self._reaper.instances.clear()
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
        self._allowlist.resolve(_native(program), self._search_path)

    def spawn(self, request: SpawnRequest, on_exit: Callable[[ExitStatus], None]) -> OsChild:
        """Start a process in a session and a cell of its own.

        Raises:
            CannotExecuteError: if the binary cannot be executed.
            PermissionDeniedError: if it is not below a binary root.
            ResourceExhaustedError: if there is no PID, descriptor, memory or cell for it.
        """
        _keep_descriptors(request)
        program = self._allowlist.resolve(_native(request.command[0]), self._search_path)
        cell = self._containment.create(
            CellMetadata(request.name, request.uuid, request.recovery_metadata, request.command)
        )
        try:
            return self._start(program, request, cell, on_exit)
        except BaseException:
            cell.discard()
            raise

    def _start(
        self, program: str, request: SpawnRequest, cell: Cell, on_exit: Callable[[ExitStatus], None]
    ) -> OsChild:
        try:
            pid, launch = self._execute(program, request, cell)
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                raise _out_of_resources(request, error) from error
            raise CannotExecuteError(f"cannot execute {request.command[0]}: {error.strerror}") from error
        return self._watch(pid, request, cell, launch, on_exit)

    def _execute(self, program: str, request: SpawnRequest, cell: Cell) -> tuple[int, Launch | None]:
        """Start the program in its cell; return its PID, and the launch if it enters the cell only then.

        Raises:
            OSError: if that is impossible.
        """
        command = tuple(map(_native, request.command))
        environment = self._environment_of(request)
        output = [(self._devnull, 0), (request.output, 1), (request.output, 2)]
        if cell.entrance is None:
            return _posix_spawn(program, command, environment, output), None
        if can_spawn_into_cgroup():
            try:
                return spawn_into_cgroup(cell.entrance, program, command, environment, output), None
            except OSError as error:
                # By the kernel's word alone it may be the cell or the program; what follows tells which.
                log.debug("not started in its cell at once", uuid=request.uuid, reason=error.strerror)
        check_executable(program, self._search_path)
        launch = Launch(request.command[0])
        try:
            words = launch_command((program, *command[1:]), environment)
            pid = _posix_spawn(SHELL, words, environment, output + launch.copies(cell.entrance))
        except OSError:
            launch.close()
            raise
        launch.started()
        return pid, launch

    def _environment_of(self, request: SpawnRequest) -> dict[str, str]:
        identity = {
            contract.NAME_VARIABLE: request.name,
            contract.UUID_VARIABLE: request.uuid,
            contract.RECOVERY_METADATA_VARIABLE: request.recovery_metadata,
        }
        return self._environment | {key: _native(value) for key, value in identity.items()}

    def _watch(
        self,
        pid: int,
        request: SpawnRequest,
        cell: Cell,
        launch: Launch | None,
        on_exit: Callable[[ExitStatus], None],
    ) -> OsChild:
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
            if launch is not None:
                launch.close()
            raise _out_of_resources(request, error) from error
        log.debug("spawned", name=request.name, uuid=request.uuid, pid=pid, command=request.command)
        child = OsChild(
            pidfd,
            Identity(pid, stat.start_time),
            request.uuid,
            cell,
            launch=launch,
            on_exit=on_exit,
            on_reaped=self._forget,
        )
        self._children[pid] = child
        self._reaper.instances.add(pid)
        return child

    def _forget(self, child: OsChild) -> None:
        self._children.pop(child.identity.pid, None)
        self._reaper.instances.discard(child.identity.pid)


def _posix_spawn(
    program: str,
    words: tuple[str, ...],
    environment: Mapping[str, str],
    copies: Sequence[tuple[int, int]],
) -> int:
    """Start a program in a session of its own; return its PID.

    Raises:
        OSError: as from posix_spawnp(3).
    """
    return os.posix_spawnp(
        program,
        words,
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, *copy) for copy in copies],
        setsid=True,
        setsigmask=(),
        # Python ignores SIGPIPE and SIGXFSZ, a shell's `&` SIGINT; a child would inherit that.
        setsigdef=_ALL_SIGNALS,
    )


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
