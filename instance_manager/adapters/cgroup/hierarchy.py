"""Where in the hierarchy of cgroups cells can be made, and whether they can be used there at all."""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from instance_manager.adapters.cgroup.controllers import MANAGER, ROOT_MARK
from instance_manager.adapters.cgroup.folder import Folder, open_folder
from instance_manager.app.containment import Kind
from instance_manager.core.mountinfo import unescaped
from instance_manager.platform.commands import ENTER_CGROUP, INHERITED, SHELL

_WHY_NOT = {
    errno.EROFS: "it is mounted read-only; mount it writable, as in a privileged container",
    errno.EACCES: "this user may not write it; run as root, or have it delegated (systemd: Delegate=yes)",
    errno.EPERM: "this user may not write it; run as root, or have it delegated (systemd: Delegate=yes)",
    errno.EAGAIN: "it may have no more cgroups; raise cgroup.max.descendants or cgroup.max.depth",
    errno.EOPNOTSUPP: "it has no cgroups of processes there, or no extended attributes; that needs Linux 5.7",
    errno.ENOSPC: "the machine has no memory for more cgroups; free some, or remove cgroups",
    errno.ENOMEM: "the machine has no memory for more cgroups; free some, or remove cgroups",
}


class UnusableError(Exception):
    """Cells cannot be used on this machine; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a hierarchy of version 2 is mounted."""

    point: str
    root: str
    """What of the hierarchy is seen there."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How to tell what belongs to an instance."""

    kind: Kind
    reason: str
    """Why it is this one, in words."""
    root: Path | None = None
    """Below which cells are made; None with sessions."""


@dataclass(frozen=True, slots=True)
class Trials:
    """Where cells might be made, and what came of trying it."""

    refusals: Mapping[Path, str]
    """Why not, by directory; empty where they can be made. In the order of preference."""
    nowhere: str = ""
    """Why there is no directory to try."""


def decide(requested: Kind | None, trials: Trials) -> Choice:
    """Return how to tell what belongs to an instance.

    Args:
        requested: the only way that will do; None for cells where they can be made, else sessions.
        trials: what came of trying to make cells; not looked at if sessions are requested.

    Raises:
        UnusableError: if only cells will do, and none can be made.
    """
    if requested is Kind.SESSION:
        return Choice(Kind.SESSION, "cgroups are not wanted")
    for root, refusal in trials.refusals.items():
        if not refusal:
            return Choice(Kind.CGROUP, f"cells can be made in {root}", root)
    told = [f"no cell can be made in {root}: {why}" for root, why in trials.refusals.items()]
    reason = "; ".join(told) or trials.nowhere
    if requested is Kind.CGROUP:
        raise UnusableError(reason)
    return Choice(Kind.SESSION, reason)


def choose(requested: Kind | None, given: Path | None = None) -> Choice:
    """Return how to tell what belongs to an instance, once a trial has shown whether cells can be made.

    Args:
        requested: as `decide`.
        given: the directory below which cells are wanted; None for the cgroup of this process.

    Raises:
        UnusableError: if only cells will do, and none can be made.
    """
    if requested is Kind.SESSION:
        return decide(requested, Trials({}))
    return decide(requested, _try_all(given))


def usable_root(given: Path | None = None) -> Path:
    """Return the directory below which cells are made.

    Raises:
        UnusableError: if they cannot.
    """
    root = choose(Kind.CGROUP, given).root
    assert root is not None, "a choice of cgroups has a root"  # noqa: S101 - for the types
    return root


def read_mounts(mountinfo: str) -> Iterator[Mount]:
    """Yield the hierarchies of version 2 in the text of /proc/PID/mountinfo, those that can be written first.

    What is mounted over is left out.
    """
    # A source may be empty, so a blank separates, and not any number of them.
    rows = [row for row in (line.split(" ") for line in mountinfo.splitlines()) if "-" in row[6:]]
    on_top = {row[4]: row for row in rows}
    for writable in (True, False):
        for row in on_top.values():
            kind, _, options = row[row.index("-", 6) + 1 :][:3]
            if kind == "cgroup2" and writable is not ("ro" in {*row[5].split(","), *options.split(",")}):
                yield Mount(unescaped(row[4]), unescaped(row[3]))


def read_own(cgroup: str) -> str | None:
    """Return where a process is in the hierarchy of version 2, from the text of /proc/PID/cgroup."""
    lines = (line for line in cgroup.splitlines() if line.startswith("0::"))
    return next((line.removeprefix("0::") for line in lines), None)


def places(mounts: Iterable[Mount], own: str | None) -> list[Path]:
    """Return the directories of the cgroup that a process is in, the best one first.

    Args:
        mounts: where hierarchies of version 2 are mounted.
        own: where the process is in it; None if there is none.

    Raises:
        UnusableError: if there is none.
    """
    mounts = tuple(mounts)
    if own is None or not mounts:
        raise UnusableError("no cgroups of version 2 are mounted; mount them: mount -t cgroup2 none FOLDER")
    if own.startswith("/.."):
        raise UnusableError(f"this process is in the cgroup {own}, outside of what it can see of cgroups")
    found = []
    for mount in mounts:
        with suppress(ValueError):
            found.append(Path(mount.point, PurePosixPath(own).relative_to(mount.root)))
    if not found:
        raise UnusableError(f"the cgroup {own} of this process lies below none of the mounted ones")
    return found


def _try_all(given: Path | None) -> Trials:
    refusals: dict[Path, str] = {}
    try:
        for place in [given] if given else _own_places():
            refusals[place] = _refusal(place)
            if not refusals[place]:
                break
    except UnusableError as error:
        return Trials({}, str(error))
    return Trials(refusals)


def _own_places() -> list[Path]:
    mountinfo, cgroup = (Path("/proc/self", name).read_text("utf-8") for name in ("mountinfo", "cgroup"))
    return [_outside_of_manager(place) for place in places(read_mounts(mountinfo), read_own(cgroup))]


def _outside_of_manager(own: Path) -> Path:
    """Return the root that an earlier daemon has left for its `MANAGER`, if this process is in such a one."""
    if own.name != MANAGER:
        return own
    try:
        above = open_folder(own.parent)
    except OSError:
        return own
    try:
        return own.parent if Folder(above, ".").attribute(ROOT_MARK) else own
    finally:
        os.close(above)


def _refusal(root: Path) -> str:
    """Return why no cell can be made below a directory, and what to do; empty if one can."""
    if not (root / "cgroup.procs").exists():
        return "it is no cgroup of version 2"
    try:
        _try(root)
    except OSError as error:
        return f"{error.strerror}: {_WHY_NOT.get(error.errno or 0, 'cells need Linux 5.7')}"
    return ""


def _try(root: Path) -> None:
    """Make a cell and let a process enter it.

    Raises:
        OSError: if that does not work.
    """
    if not os.access(SHELL, os.X_OK):
        raise FileNotFoundError(errno.ENOENT, f"there is no {SHELL}, which enters it")
    above = open_folder(root)
    trial = Folder(above, f"instance-manager-trial-{os.getpid()}")
    try:
        # A daemon that is killed leaves it, and in a container the next one has the same PID.
        with suppress(FileExistsError):
            os.mkdir(trial.name, dir_fd=above)
        try:
            trial.set_attribute("version", b"1")
            _enter(trial)
        finally:
            trial.remove()
    finally:
        os.close(above)


def _enter(cell: Folder) -> None:
    entrance = cell.open_itself()
    try:
        words = (SHELL, "-c", ENTER_CGROUP)
        quiet = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)
        enter = (os.POSIX_SPAWN_DUP2, entrance, INHERITED)
        pid = os.posix_spawn(SHELL, words, os.environ, file_actions=[quiet, enter])
        if os.waitpid(pid, 0)[1] != 0:
            raise PermissionError(errno.EACCES, "no process can enter it")
    finally:
        os.close(entrance)
