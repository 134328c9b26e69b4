"""Owners in real files: read live, listed when they change, and an error when that is all that is sure."""

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator, Generator
from pathlib import Path, PosixPath

import pytest

from instance_manager.orphans.events import OwnersListed
from instance_manager.orphans.interfaces import CannotReadError
from instance_manager.orphans.model import OwnerKind
from instance_manager.orphans.owners import FileOwners, snapshot
from instance_manager.platform.files import Stamp
from tests.support.owner_files import ConfigMap, listed, replica, write
from tests.support.patience import patience


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "owners.json"
    write(path, replica("a"))
    return path


class Watched:
    """What a watch yields: the names of the owners, or why nothing is known."""

    def __init__(self, owners: FileOwners) -> None:
        self._watch = owners.watch()

    async def next(self) -> list[str]:
        async with asyncio.timeout(patience(20)):
            event = await anext(self._watch)
        assert isinstance(event, OwnersListed)
        return sorted(owner.name for owner in event.owners)

    async def error(self) -> str:
        with pytest.raises(CannotReadError) as error:
            await self.next()
        return str(error.value)


@contextlib.asynccontextmanager
async def watching(owners: FileOwners) -> AsyncIterator[Watched]:
    watched = Watched(owners)
    try:
        yield watched
    finally:
        await watched._watch.aclose()


async def names(owners: FileOwners) -> list[str]:
    return sorted(owner.name for owner in await owners.list_live())


def overwrite(file: Path, text: str) -> None:
    """Write in place, which is not what the documents say."""
    file.write_text(text)


def rewrite_unnoticeably(file: Path, text: str) -> None:
    before = file.stat()
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


def remove(file: Path) -> None:
    file.unlink()


class Moving(PosixPath):
    """A directory in which an owner moves from one file to a new one just after it was listed first."""

    def iterdir(self) -> Generator["Moving", None, None]:
        found = list(super().iterdir())
        if not (self / "z.json").exists():
            write(Path(self / "z.json"), replica("b"))
            write(Path(self / "owners.json"), replica("a"))
        yield from found


# --- live reads ---


async def test_a_live_read_sees_what_the_file_holds_at_that_moment(file: Path) -> None:
    owners = FileOwners(file)
    assert (await owners.get_live(OwnerKind.REPLICA, "a")) is not None
    write(file, replica("b"))
    assert (await owners.get_live(OwnerKind.REPLICA, "a")) is None
    found = await owners.get_live(OwnerKind.REPLICA, "b")
    assert found is not None
    assert found.instance_manager == "im-1"
    assert await names(owners) == ["b"]


async def test_an_owner_that_moves_from_file_to_file_is_never_missing(file: Path) -> None:
    write(file, replica("a"), replica("b"))
    assert await names(FileOwners(Moving(file.parent))) == ["a", "b"]


async def test_a_change_that_keeps_size_and_time_is_seen(file: Path) -> None:
    owners = FileOwners(file)
    assert await names(owners) == ["a"]
    rewrite_unnoticeably(file, json.dumps(listed(replica("b"))))
    assert await names(owners) == ["b"]


async def test_a_file_that_makes_no_sense_is_an_error_and_not_what_it_was_before(file: Path) -> None:
    owners = FileOwners(file)
    assert await names(owners) == ["a"]
    for text in ("", "{", json.dumps(listed(replica("b")))[:-10]):
        overwrite(file, text)
        with pytest.raises(CannotReadError, match=f"cannot understand {file}"):
            await owners.get_live(OwnerKind.REPLICA, "a")
        with pytest.raises(CannotReadError):
            await owners.list_live()
    write(file, replica("a"), replica("b"))
    assert await names(owners) == ["a", "b"]


async def test_a_file_that_is_gone_or_was_never_there_is_an_error(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotReadError, match=r"cannot find .*/nothing"):
        await FileOwners(tmp_path / "nothing").get_live(OwnerKind.REPLICA, "a")
    owners = FileOwners(file)
    assert await names(owners) == ["a"]
    remove(file)
    with pytest.raises(CannotReadError, match="cannot find"):
        await owners.get_live(OwnerKind.REPLICA, "a")


async def test_a_file_that_somebody_is_writing_is_an_error_even_if_it_makes_sense_so_far(file: Path) -> None:
    owners = FileOwners(file)
    with file.open("r+") as writer:
        with pytest.raises(CannotReadError, match="it is being written"):
            await owners.get_live(OwnerKind.REPLICA, "a")
        writer.flush()
    assert await names(owners) == ["a"]


async def test_a_writer_that_comes_while_a_file_is_read_waits_and_harms_nobody(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    snapshot._hold_writers_off(fd)
    with pytest.raises(BlockingIOError):
        os.open(file, os.O_WRONLY | os.O_NONBLOCK)
    assert fcntl.fcntl(fd, fcntl.F_GETLEASE) in {fcntl.F_RDLCK, fcntl.F_UNLCK}
    os.close(fd)
    with file.open("r+"):
        pass


@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
async def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "owners.json"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
    async with asyncio.timeout(patience(20)):
        with pytest.raises(CannotReadError, match=r"not a regular file|symbolic"):
            await FileOwners(path).list_live()
        async with watching(FileOwners(path)) as watched:
            await watched.error()


async def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "owners.json"
    path.touch()
    os.truncate(path, snapshot.MAX_SIZE + 1)
    with pytest.raises(CannotReadError, match="larger than 128 MiB"):
        await FileOwners(path).list_live()


# --- directories ---


async def test_a_directory_is_all_its_files_and_nothing_hidden_or_below(tmp_path: Path) -> None:
    write(tmp_path / "engines.json", replica("e", kind="Engine"))
    write(tmp_path / "replicas.yaml", replica("r"))
    (tmp_path / ".hidden.json").write_text("{")
    (tmp_path / "README").write_text("not owners")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "more.json").write_text("{")
    assert await names(FileOwners(tmp_path)) == ["e", "r"]


async def test_a_directory_without_files_is_an_error_and_not_the_word_that_there_are_no_owners(
    tmp_path: Path,
) -> None:
    with pytest.raises(CannotReadError, match=r"holds no \.json, \.yaml, \.yml file"):
        await FileOwners(tmp_path).get_live(OwnerKind.REPLICA, "a")


async def test_one_bad_file_of_a_directory_makes_all_of_it_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.json", replica("a"))
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(CannotReadError, match=r"b\.json"):
        await FileOwners(tmp_path).get_live(OwnerKind.REPLICA, "a")


@pytest.mark.parametrize("kind", ["Replica", "Engine"])
async def test_two_objects_of_one_name_are_an_error(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "a.json", replica("x"))
    write(tmp_path / "b.json", replica("x", kind=kind))
    with pytest.raises(
        CannotReadError, match=r"cannot use 'x', which is defined twice: in .*a\.json and in .*b\.json"
    ):
        await FileOwners(tmp_path).list_live()
    write(tmp_path / "a.json", replica("y"), replica("y", kind=kind))
    with pytest.raises(
        CannotReadError, match=r"cannot use 'y', which is defined twice: in .*a\.json and again"
    ):
        await FileOwners(tmp_path).list_live()


@pytest.mark.parametrize("turns", [1, 3])
async def test_a_config_map_whose_link_is_turned_between_two_files_is_read_again_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    volume = ConfigMap(tmp_path / "mounted")
    texts = [json.dumps(listed(replica(name))) for name in "xy"]
    volume.turn(one=texts[0], two=texts[1])
    read, left = snapshot._read_file, iter(range(turns))

    def read_and_turn(file: Path, stamp: Stamp) -> bytes | None:
        text = read(file, stamp)
        if file.stem == "one" and next(left, None) is not None:
            volume.turn(one=texts[1], two=texts[0])
            texts.reverse()
        return text

    monkeypatch.setattr(snapshot, "_read_file", read_and_turn)
    owners = FileOwners(volume.path)
    if turns > 1:
        with pytest.raises(CannotReadError, match="it changes again and again"):
            await owners.list_live()
    assert await names(owners) == ["x", "y"]


# --- watching ---


async def test_a_watch_tells_all_owners_and_then_again_whenever_they_have_changed(file: Path) -> None:
    async with watching(FileOwners(file)) as watched:
        assert await watched.next() == ["a"]
        write(file, replica("a"), replica("b"))
        assert await watched.next() == ["a", "b"]
        overwrite(file, json.dumps(listed()))
        assert await watched.next() == []


async def test_a_watch_does_not_repeat_what_is_the_same(file: Path) -> None:
    async with watching(FileOwners(file)) as watched:
        assert await watched.next() == ["a"]
        write(file, replica("a"))
        overwrite(file, json.dumps(listed(replica("a"))))
        write(file, replica("b"))
        assert await watched.next() == ["b"]


async def test_a_watch_sees_the_link_of_a_config_map_turn(tmp_path: Path) -> None:
    volume = ConfigMap(tmp_path / "mounted")
    volume.turn(owners=json.dumps(listed(replica("a"))))
    for path in (volume.path, volume.path / "owners.json"):
        async with watching(FileOwners(path)) as watched:
            await watched.next()
            volume.turn(owners=json.dumps(listed(replica("b"))))
            assert await watched.next() == ["b"]
            volume.turn(owners=json.dumps(listed(replica("c"))))
            assert await watched.next() == ["c"]


async def test_a_watch_sees_changes_behind_links_to_other_directories(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"real{number}").mkdir()
        write(tmp_path / f"real{number}" / "owners.json", replica(f"r{number}"))
    link = tmp_path / "link"
    link.symlink_to("real1")
    shortcut = tmp_path / "elsewhere" / "owners.json"
    shortcut.parent.mkdir()
    shortcut.symlink_to("../link/owners.json")
    async with watching(FileOwners(shortcut)) as watched:
        assert await watched.next() == ["r1"]
        write(tmp_path / "real1" / "owners.json", replica("changed"))
        assert await watched.next() == ["changed"]
        turned = tmp_path / "turned"
        turned.symlink_to("real2")
        turned.replace(link)
        assert await watched.next() == ["r2"]


async def test_a_watch_waits_for_the_end_of_a_file_that_is_being_written(file: Path) -> None:
    text = json.dumps(listed(replica("a"), replica("b")))
    async with watching(FileOwners(file)) as watched:
        assert await watched.next() == ["a"]
        following = asyncio.create_task(watched.next())
        with file.open("w") as writer:
            for at in range(0, len(text), 100):
                writer.write(text[at : at + 100])
                writer.flush()
                await asyncio.sleep(0.02)  # longer than it takes to notice, shorter than it takes to give up
        assert await following == ["a", "b"]


async def test_a_watch_ends_with_an_error_when_a_file_stays_senseless_and_the_next_one_goes_on(
    file: Path,
) -> None:
    owners = FileOwners(file)
    async with watching(owners) as watched:
        assert await watched.next() == ["a"]
        overwrite(file, "{")
        assert "cannot understand" in await watched.error()
    async with watching(owners) as watched:
        assert "cannot understand" in await watched.error()
    write(file, replica("b"))
    async with watching(owners) as watched:
        assert await watched.next() == ["b"]


async def test_a_watch_is_not_held_up_by_what_goes_on_beside_the_file(file: Path) -> None:
    noise = asyncio.create_task(make_noise(file.with_name("noise")))
    try:
        async with watching(FileOwners(file)) as watched:
            assert await watched.next() == ["a"]
            write(file, replica("b"))
            assert await watched.next() == ["b"]
            overwrite(file, "{")
            assert "cannot understand" in await watched.error()
    finally:
        noise.cancel()


async def test_a_file_that_never_comes_to_rest_is_an_error_in_the_end(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instance_manager.orphans.owners.files._SETTLE_AT_MOST", 1.0)
    overwrite(file, "{")
    noise = asyncio.create_task(make_noise(file))
    try:
        async with watching(FileOwners(file)) as watched:
            await watched.error()
    finally:
        noise.cancel()


async def make_noise(file: Path) -> None:
    """Change a file all the time, into nothing that makes sense."""
    while True:
        overwrite(file, "{")
        await asyncio.sleep(0.01)  # more often than changes are merged


async def test_a_watch_ends_with_an_error_when_the_directory_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "owners.json", replica("a"))
    async with watching(FileOwners(folder)) as watched:
        assert await watched.next() == ["a"]
        (folder / "owners.json").unlink()
        folder.rmdir()
        assert "cannot find" in await watched.error()
