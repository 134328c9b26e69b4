"""Opening logs for processes: whatever is wrong with the disk, a process can be started."""

import asyncio
import errno
import os
import resource
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from asyncinotify import Inotify, Mask
from structlog.testing import capture_logs

from instance_manager.adapters.logs import LogFiles, outputs, watcher
from instance_manager.adapters.logs.log import LogFile
from instance_manager.core.errors import NotFoundError, ResourceExhaustedError
from tests.support.disks import tmpfs
from tests.support.patience import patience
from tests.support.processes import descriptors, open_logs

MIB = 1 << 20


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[LogFiles]:
    async with open_logs(tmp_path, max_size=MIB) as opened:
        yield opened


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs with the options of the call."""
    with ExitStack() as stack:
        yield lambda options: stack.enter_context(tmpfs(tmp_path / "mounted", options))


def write_as_a_process(logs: LogFiles, name: str, text: str) -> None:
    """Have a process write to its log, and end."""
    with logs.writer(name) as fd:
        echo(text, fd)
    logs.release(name)


def echo(text: str, fd: int) -> None:
    subprocess.run(["/bin/echo", text], stdin=subprocess.DEVNULL, stdout=fd, check=True)


def watching(logs: LogFiles) -> asyncio.Event:
    """Return an event that is set when a file begins to be watched: it has come to rest."""
    watched = asyncio.Event()
    watch = logs._watcher.watch

    def tell(log: LogFile) -> None:
        watch(log)
        watched.set()

    logs._watcher.watch = tell  # type: ignore[method-assign]
    return watched


def watches() -> int:
    """Return how many files are watched by inotify."""
    return sum(
        line.startswith("inotify")
        for fd, target in descriptors().items()
        if target == "anon_inode:inotify"
        for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    )


async def let_go(logs: LogFiles) -> None:
    """Wait until no log is in use any more."""
    async with asyncio.timeout(patience(20)):
        for each in tuple(logs._logs.values()):
            while not each.ended:
                await each.changed(each.version)
    assert logs._logs == {}


async def test_a_process_appends_to_its_log_itself(logs: LogFiles, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("from before\n")
    write_as_a_process(logs, "a", "one")
    write_as_a_process(logs, "a", "two")
    assert (tmp_path / "a.log").read_text() == "from before\none\ntwo\n"
    assert +logs.failure_counts == {}
    with logs.writer("a") as fd:
        assert os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    logs.release("a")


async def test_the_directory_is_created(tmp_path: Path) -> None:
    async with open_logs(tmp_path / "not" / "yet" / "there") as logs:
        write_as_a_process(logs, "a", "one")
    assert (tmp_path / "not" / "yet" / "there" / "a.log").read_text() == "one\n"


async def test_a_directory_that_was_removed_is_created_again(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    async with open_logs(folder) as logs:
        write_as_a_process(logs, "a", "before")
        await let_go(logs)
        (folder / "a.log").unlink()
        folder.rmdir()
        write_as_a_process(logs, "a", "after")
        assert (folder / "a.log").read_text() == "after\n"
        assert (logs.lost, +logs.failure_counts) == (0, {})


@pytest.mark.parametrize("wrong", ["a file", "read-only", "no room"])
async def test_a_process_starts_without_a_log_if_the_directory_is_of_no_use(
    tmp_path: Path, mount: Callable[[str], Path], wrong: str
) -> None:
    folder = tmp_path / "logs"
    match wrong:
        case "a file":
            folder.touch()
        case "read-only":
            folder = mount("ro")
        case "no room":
            folder = mount("size=64k,nr_inodes=2")
            (folder / "other").touch()
    async with open_logs(folder) as logs:
        before = logs.failure_counts["open"]
        with capture_logs() as told, logs.writer("a") as fd:
            assert descriptors()[fd] == os.devnull
            echo("lost", fd)
        lines = [line for line in told if line["event"] == "the logs of a process are lost for its lifetime"]
        assert [line["name"] for line in lines] == ["a"]
        assert logs.lost == 1
        assert logs.failure_counts["open"] == before + 1
        assert logs.failure_counts["directory"] == (wrong == "a file")
        with pytest.raises(NotFoundError):
            await anext(logs.read("a", follow=False, tail=None))
        logs.release("a")
        assert logs.lost == 0


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "named pipe", "directory", "device"])
async def test_what_is_no_regular_file_is_not_written(logs: LogFiles, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.log"
    target = tmp_path / "target"
    match kind:
        case "symbolic link":
            target.write_text("untouched")
            path.symlink_to(target)
        case "dangling link":
            path.symlink_to(target)
        case "named pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case _:
            try:
                os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
            except PermissionError as error:
                pytest.skip(f"not permitted to make a device: {error}")
    with logs.writer("a") as fd:
        assert descriptors()[fd] == os.devnull
        os.write(fd, b"lost\n")
    assert +logs.failure_counts == {"open": 1}
    assert not target.exists() or target.read_text() == "untouched"
    logs.release("a")


async def test_a_named_pipe_with_a_reader_is_not_written_either(logs: LogFiles, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.log")
    reader = os.open(tmp_path / "a.log", os.O_RDONLY | os.O_NONBLOCK)
    with logs.writer("a") as fd:
        assert descriptors()[fd] == os.devnull
    os.close(reader)
    logs.release("a")


@pytest.mark.parametrize(
    ("name", "free"),
    # None for the log; one for it, but none to look at it by; none for /dev/null in its place.
    [("a", 0), ("b", 1), ("not/there", 0)],
)
async def test_no_descriptor_left_is_told_to_the_caller_and_leaks_nothing(
    logs: LogFiles, tmp_path: Path, name: str, free: int
) -> None:
    before = descriptors()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limits[1]))
    try:
        with (
            pytest.raises(ResourceExhaustedError, match=f"cannot open the log of {name}: Too many open"),
            logs.writer(name),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    logs.release(name)
    assert descriptors().items() <= before.items()
    write_as_a_process(logs, "a", "again")
    assert (tmp_path / "a.log").read_text() == "again\n"


async def test_no_descriptor_left_is_told_to_a_reader(logs: LogFiles, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("old\n")
    before = descriptors()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    for free in (0, 1):
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limits[1]))
        try:
            with pytest.raises(ResourceExhaustedError, match="cannot open the log of a: Too many open files"):
                await anext(logs.read("a", follow=False, tail=None))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert descriptors().items() <= before.items()
        assert logs._logs == {}
    assert [line async for line in logs.read("a", follow=False, tail=None)] == ["old"]


async def test_a_writer_that_failed_does_not_end_the_log_of_another_process_of_this_name(
    logs: LogFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logs.writer("a") as fd:
        with monkeypatch.context() as patch:

            def fail(_: Path) -> int:
                raise OSError(errno.EMFILE, "Too many open files")

            patch.setattr(outputs, "open_for_writer", fail)
            with pytest.raises(ResourceExhaustedError), logs.writer("a"):
                pass
        logs.release("a")
        lines = logs.read("a", follow=True, tail=None)
        os.write(fd, b"still followed\n")
        async with asyncio.timeout(patience(20)):
            assert await anext(lines) == "still followed"
            logs.release("a")
            assert [line async for line in lines] == []


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
async def test_a_log_that_is_taken_away_by_hand_is_still_bounded_and_read(
    logs: LogFiles, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "a.log"
    with logs.writer("a") as fd:
        os.write(fd, b"before\n")
        if how == "removed":
            path.unlink()
        else:
            path.rename(tmp_path / "elsewhere")
        if how == "replaced":
            path.write_text("something else\n")
        lines = logs.read("a", follow=True, tail=None)
        assert await anext(lines) == "before"
        for _ in range(30):
            os.write(fd, (b"x" * 99 + b"\n") * 1000)
            async with asyncio.timeout(patience(20)):
                for _ in range(900):
                    await anext(lines)
        async with asyncio.timeout(patience(20)):
            while os.fstat(fd).st_size > MIB:
                await logs._logs["a"].changed(logs._logs["a"].version)
        if how == "replaced":
            assert path.read_text() == "something else\n"
        await lines.aclose()
        logs.release("a")
    write_as_a_process(logs, "a", "the next process")
    assert path.read_text() == ("something else\n" if how == "replaced" else "") + "the next process\n"
    assert +logs.failure_counts == {}


async def test_the_next_process_gets_a_new_log_while_the_last_one_still_writes_one_that_was_removed(
    logs: LogFiles, tmp_path: Path
) -> None:
    with logs.writer("a") as old:
        (tmp_path / "a.log").unlink()
        follower = logs.read("a", follow=True, tail=None)
        os.write(old, b"old\n")
        assert await anext(follower) == "old"
        with logs.writer("a") as new:
            os.write(new, b"new\n")
            async with asyncio.timeout(patience(20)):
                assert [line async for line in follower] == []
            lines = logs.read("a", follow=True, tail=None)
            assert await anext(lines) == "new"
            logs.release("a")
            os.write(new, b"more\n")
            async with asyncio.timeout(patience(20)):
                assert await anext(lines) == "more"
            logs.release("a")
            assert [line async for line in lines] == []


async def test_many_processes_leave_no_watch_and_no_descriptor_behind(logs: LogFiles) -> None:
    before = descriptors()
    for number in range(200):
        name = f"p{number % 100}"
        with logs.writer(name) as fd:
            os.write(fd, b"line\n")
            if number % 3:
                lines = logs.read(name, follow=True, tail=None)
                assert await anext(lines) == "line"
                await lines.aclose()
        logs.release(name)
        if number % 10 == 0:
            await let_go(logs)
    await let_go(logs)
    assert watches() == 0
    assert logs._watcher._watches == {}
    assert logs._watcher._logs == {}
    assert descriptors().items() <= before.items()
    assert +logs.failure_counts == {}


async def test_a_log_at_rest_is_watched_and_one_that_ends_is_not(logs: LogFiles) -> None:
    with logs.writer("a") as fd:
        watched = watching(logs)
        async with asyncio.timeout(patience(20)):
            await watched.wait()
        assert watches() == 1
        assert logs._dirty.keys() == set()  # nothing is done until it is written
        each = logs._logs["a"]
        version = each.version
        os.write(fd, b"line\n")
        async with asyncio.timeout(patience(20)):
            await each.changed(version)
        logs.release("a")
    await let_go(logs)
    assert watches() == 0


@pytest.mark.parametrize("missing", ["inotify", "watch"])
async def test_without_inotify_logs_are_followed_and_bounded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    failed = asyncio.Event()

    def fail(*_: object, **__: object) -> None:
        failed.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    if missing == "inotify":
        monkeypatch.setattr(watcher, "Inotify", fail)
    else:
        monkeypatch.setattr(watcher.Watcher, "watch", fail)
    async with open_logs(tmp_path, max_size=MIB) as logs:
        with logs.writer("a") as fd:
            async with asyncio.timeout(patience(20)):
                await failed.wait()
            each = logs._logs["a"]
            for _ in range(3):
                os.write(fd, (b"x" * 99 + b"\n") * 8000)
                async with asyncio.timeout(patience(20)):
                    while os.fstat(fd).st_size > MIB * 3 // 4:
                        await each.changed(each.version)
            logs.release("a")
        await let_go(logs)
    assert logs.failure_counts[missing] >= 1


async def test_an_overflow_of_inotify_loses_no_file(logs: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many events may be queued; then the last one says that others are lost."""

    class Overflow:
        mask = Mask.Q_OVERFLOW
        watch = None

    with logs.writer("a") as fd:
        watched = watching(logs)
        async with asyncio.timeout(patience(20)):
            await watched.wait()
        each = logs._logs["a"]
        logs._watcher._inotify.rm_watch(logs._watcher._watches[each])  # type: ignore[union-attr]
        version = each.version
        os.write(fd, b"unseen\n")
        with monkeypatch.context() as patch:
            events = iter([Overflow(), None])
            patch.setattr(Inotify, "sync_get", lambda _: next(events))
            logs._watcher._read()
        async with asyncio.timeout(patience(20)):
            await each.changed(version)
        logs.release("a")


async def test_a_process_is_followed_though_another_of_its_name_has_no_log(tmp_path: Path) -> None:
    """As in a replace."""
    async with open_logs(tmp_path) as logs:
        (tmp_path / "a.log").mkdir()
        with logs.writer("a"):
            (tmp_path / "a.log").rmdir()
            with logs.writer("a") as fd:
                os.write(fd, b"one\n")
                lines = logs.read("a", follow=True, tail=None)
                async with asyncio.timeout(patience(20)):
                    assert await anext(lines) == "one"
                    os.write(fd, b"two\n")
                    assert await anext(lines) == "two"
                await lines.aclose()
        logs.release("a")
        logs.release("a")
        assert logs.lost == 0


@pytest.mark.parametrize("taken", ["stdout", "stderr", "neither"])
def test_only_a_log_is_taken_for_the_log_of_a_process(tmp_path: Path, taken: str) -> None:
    path, foreign = tmp_path / "logs" / "a.log", tmp_path / "data"
    path.parent.mkdir()
    with path.open("wb") as log, foreign.open("wb") as other:
        process = subprocess.Popen(
            ["/bin/sleep", "1000"],
            stdout=log if taken == "stdout" else other,
            stderr=log if taken == "stderr" else other,
        )
    path.rename(path.with_name("a.log.1"))
    try:
        if taken == "neither":
            with pytest.raises(FileNotFoundError):
                outputs.open_output(process.pid, path)
        else:
            fd = outputs.open_output(process.pid, path)
            assert fd is not None
            assert os.path.samestat(os.fstat(fd), path.with_name("a.log.1").stat())
            os.close(fd)
    finally:
        process.kill()
        process.wait()
