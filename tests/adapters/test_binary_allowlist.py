"""Only what lies below a binary root is started, however it is called."""

import contextlib
import itertools
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.process.allowlist import BinaryAllowlist
from instance_manager.app.interfaces import CannotExecuteError
from instance_manager.core.errors import InvalidArgumentError, PermissionDeniedError
from instance_manager.platform import proc
from tests.support.processes import Workshop, open_workshop

Sized = Callable[[int, int], int]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a program and a folder."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    for folder in (root, root / "sub"):
        script(folder / "good", "exit 0")
    return root


@pytest.fixture
async def workshop_of_root(root: Path) -> AsyncIterator[Workshop]:
    """A spawner that is open and starts only what lies below the root."""
    async with open_workshop(roots=[root]) as opened:
        yield opened


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def allowed(root: Path, program: str | Path) -> bool:
    try:
        BinaryAllowlist([root]).resolve(str(program), ["/usr/bin", "/bin"])
    except PermissionDeniedError:
        return False
    return True


def outside(root: Path, folder: Path, number: int, randomness: random.Random) -> str:
    """Return a way to name something that lies outside the root: a link, dots, a name on the path."""
    target = randomness.choice([script(folder / f"evil-{number}", "exit 0"), Path("/bin/true"), folder])
    link = root / f"link-{number}"
    match number % 9:
        case 0:
            link.symlink_to(target)
            return str(link)
        case 1:
            link.symlink_to(os.path.relpath(target, root))
            return str(link)
        case 2:
            link.symlink_to(target.parent, target_is_directory=True)
            return str(link / target.name)
        case 3:
            (root / f"second-{number}").symlink_to(link)
            link.symlink_to(target)
            return str(root / f"second-{number}")
        case 4:
            return f"{root}/sub/{'../' * 40}{str(target).lstrip('/')}"
        case 5:
            return f"{root}-{number}/good"
        case 6:
            return f"/proc/self/root{target}"
        case 7:
            return randomness.choice(["true", "no-such-program", "..", ".", "good"])
    return str(target)


def test_nothing_outside_the_roots_is_allowed_however_it_is_named(
    root: Path, tmp_path: Path, sized: Sized
) -> None:
    randomness = random.Random(22)
    for number in range(sized(200, 1000)):
        program = outside(root, tmp_path, number, randomness)
        assert not allowed(root, program), program


@pytest.mark.parametrize(
    "program",
    ["good", "sub/good", "sub/../good", "./sub//good", "missing", "missing/too"],
)
def test_what_lies_below_a_root_is_allowed_be_it_there_or_not(root: Path, program: str) -> None:
    assert allowed(root, f"{root}/{program}")


def test_a_link_from_outside_into_a_root_is_allowed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root / "good")
    assert allowed(root, tmp_path / "link")


def test_a_root_that_is_a_link_may_come_to_lead_elsewhere(root: Path, tmp_path: Path) -> None:
    current, following = tmp_path / "current", tmp_path / "following"
    following.mkdir()
    current.symlink_to(root)
    roots = BinaryAllowlist([current])
    assert roots.resolve(f"{current}/good", []) == f"{root}/good"
    current.unlink()
    current.symlink_to(following)
    assert roots.resolve(f"{current}/good", []) == f"{following}/good"
    with pytest.raises(PermissionDeniedError):
        roots.resolve(f"{root}/good", [])


def test_the_root_itself_is_nothing_to_start(root: Path) -> None:
    assert not allowed(root, root)


def test_any_of_several_roots_will_do(root: Path) -> None:
    assert BinaryAllowlist([root, Path("/bin")]).resolve("true", ["/bin"]) == os.path.realpath("/bin/true")


def test_without_a_root_everything_is_allowed_and_unchanged() -> None:
    assert BinaryAllowlist([]).resolve("../some/thing", []) == "../some/thing"


def test_a_root_that_is_no_directory_is_refused_at_the_start(root: Path) -> None:
    for path in (root / "good", root / "missing"):
        with pytest.raises(InvalidArgumentError, match=r"not a directory.*create it"):
            BinaryAllowlist([path])


def test_a_path_too_long_to_be_resolved_is_refused(root: Path, tmp_path: Path) -> None:
    """The kernel gives up on such a path before its links are resolved."""
    deep = root / "/".join(["d" * 200] * 20) / ("d" * 150)
    (root / "way").symlink_to(tmp_path)
    assert not allowed(root, f"{deep}{'/..' * 21}/way/evil")


async def test_a_program_below_a_root_sees_what_it_was_called_by_and_is_named_after_its_file(
    root: Path,
) -> None:
    (root / "sleeper").symlink_to("/bin/sleep")
    async with open_workshop(roots=[root, Path("/bin")]) as workshop:
        started = workshop.spawn(str(root / "sleeper"), "1000")
        while not proc.read_command(started.pid):
            pass  # it is in the middle of its execve
        assert proc.read_command(started.pid) == (str(root / "sleeper"), "1000")
        stat = proc.read_stat(started.pid)
        assert stat is not None
        assert stat.command in {"sleep", "coreutils"}
        await workshop.end()


async def test_a_script_below_a_root_finds_what_lies_beside_it(
    root: Path, workshop_of_root: Workshop
) -> None:
    (root / "beside").write_text("found\n")
    script(root / "where", 'cat "$(dirname "$0")/beside"')
    started = workshop_of_root.spawn(str(root / "sub/../where"))
    assert await workshop_of_root.output.line() == "found"
    await started.exited()


async def test_what_the_callers_path_leads_to_is_looked_at_again_when_it_is_executed(
    root: Path, tmp_path: Path, workshop_of_root: Workshop
) -> None:
    link = tmp_path / "link"
    link.symlink_to(root / "good")
    workshop_of_root.spawner.check_allowed(str(link))
    link.unlink()
    link.symlink_to(script(tmp_path / "evil", f"touch {tmp_path}/harm"))
    with pytest.raises(PermissionDeniedError):
        workshop_of_root.spawn(str(link))
    assert workshop_of_root.marked() == []
    assert not (tmp_path / "harm").exists()


@contextlib.contextmanager
def swapping(link: Path, *targets: Path) -> Iterator[None]:
    """Let a link lead to one target after the other, without pause, for the time of the block."""
    done = threading.Event()

    def swap() -> None:
        for target in itertools.cycle(targets):
            if done.is_set():
                return
            link.with_suffix(".new").symlink_to(target)
            link.with_suffix(".new").rename(link)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


async def test_a_link_that_is_changed_all_the_time_never_leads_outside(
    root: Path, tmp_path: Path, workshop_of_root: Workshop, sized: Sized
) -> None:
    harm, link = tmp_path / "harm", tmp_path / "link"
    evil = script(tmp_path / "evil", f"touch {harm}")
    link.symlink_to(evil)
    started = refused = 0
    with swapping(link, root / "good", evil):
        while min(started, refused) < sized(20, 1_000):
            try:
                await workshop_of_root.spawn(str(link)).exited()
                started += 1
            except PermissionDeniedError:
                refused += 1
    assert not harm.exists()


async def test_a_missing_program_below_a_root_cannot_be_executed(
    root: Path, workshop_of_root: Workshop
) -> None:
    with pytest.raises(CannotExecuteError, match="No such file"):
        workshop_of_root.spawn(str(root / "missing"))
