"""Volumes that are mounted read-only: told from /proc/self/mountinfo as soon as that changes."""

import asyncio
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.adapters import mounts
from instance_manager.adapters.mounts import MountWatcher, read_only_volumes
from instance_manager.core.conditions import volume_key
from instance_manager.platform.background import Background
from tests.support.patience import patience
from tests.support.processes import LagMeter, descriptors

KEY, OTHER = volume_key("vol"), volume_key("other")
FOLDER = f"plugins/kubernetes.io/csi/driver.longhorn.io/{KEY}/globalmount"
GLOBAL = f"/var/lib/kubelet/{FOLDER}"


def line(
    point: str = GLOBAL, options: str = "rw,relatime", optional: str = "shared:7 ", superblock: str = "rw"
) -> str:
    return f"36 35 8:16 / {point} {options} {optional}- ext4 /dev/longhorn/vol {superblock}\n"


# --- parser ---


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([line()], set()),
        ([line(options="ro,relatime")], {KEY}),
        ([line(superblock="ro,errors=remount-ro")], {KEY}),
        ([line(superblock="rw,errors=remount-ro,emergency_ro")], {KEY}),
        ([line(superblock="rw,errors=remount-ro")], set()),
        ([line(options="relatime,ro,nosuid", superblock="rw,stripe=4")], {KEY}),
        ([line(options="rw,rodent", superblock="rw,prot")], set()),
        ([line(options="ro", optional="")], {KEY}),
        ([line(options="ro", optional="shared:1 master:2 propagate_from:3 unbindable ")], {KEY}),
        # A later mount on the same point hides the one before.
        ([line(options="ro"), line()], set()),
        ([line(), line(options="ro")], {KEY}),
        ([line(options="ro"), line(GLOBAL.replace(KEY, OTHER), "ro")], {KEY, OTHER}),
        # What needs an escape is in front of the part that counts, or is no volume.
        ([line(f"/var/lib/with\\040blank/{FOLDER}", "ro")], {KEY}),
        ([line(f"{GLOBAL}\\040", "ro")], set()),
        ([line(f"{GLOBAL}//deleted", "ro")], set()),
        # Other mounts of the same volume, other drivers, other things.
        ([line(f"/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/{KEY}/mount", "ro")], set()),
        ([line(GLOBAL.replace("driver.longhorn.io", "driver.example.com"), "ro")], set()),
        ([line(GLOBAL.replace(KEY, KEY[:-1]), "ro")], set()),
        ([line(GLOBAL.replace(KEY, KEY.upper()), "ro")], set()),
        ([line(f"{GLOBAL}/sub", "ro")], set()),
        ([line("/", "ro"), line("/proc", "ro")], set()),
        # Malformed.
        ([""], set()),
        (["\n"], set()),
        ([GLOBAL], set()),
        ([f"36 35 8:16 / {GLOBAL}\n"], set()),
        ([f"36 35 8:16 / {GLOBAL} ro\n"], set()),
        ([f"36 35 8:16 / {GLOBAL} ro - \n"], {KEY}),
        ([f"- - - - {GLOBAL} - ro"], set()),
    ],
)
def test_a_volume_is_read_only_by_its_mount_or_by_its_file_system(lines: list[str], found: set[str]) -> None:
    assert read_only_volumes(lines) == found


WORDS = ["/", " ", " ", "-", " - ", "ro", "rw", ",", FOLDER, GLOBAL, "\\040", "36", "\n"]


@given(st.lists(st.lists(st.sampled_from(WORDS)).map("".join)))
def test_no_text_is_too_odd_to_be_read(lines: list[str]) -> None:
    assert read_only_volumes(lines) <= {KEY}


# --- watcher ---


class Seen:
    """What a watcher told of one volume."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.read_only: list[bool] = []
        self._told = asyncio.Event()

    def __call__(self, volumes: frozenset[str]) -> None:
        self.read_only.append(self._key in volumes)
        self._told.set()

    async def until(self, *, read_only: bool) -> None:
        async with asyncio.timeout(patience(20)):
            while self.read_only[-1:] != [read_only]:
                self._told.clear()
                await self._told.wait()


@asynccontextmanager
async def watching(key: str, path: Path = mounts.MOUNTINFO) -> AsyncIterator[Seen]:
    before = descriptors()
    seen = Seen(key)
    watcher = MountWatcher(seen, Background(), path)
    watcher.open()
    try:
        yield seen
    finally:
        watcher.close()
    assert descriptors().items() <= before.items()


async def test_an_error_of_whoever_is_told_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_INTERVAL", 0.01)
    path = tmp_path / "mountinfo"
    path.write_text(line(options="ro"))
    background = Background()
    told: asyncio.Queue[frozenset[str]] = asyncio.Queue()
    errors = [RuntimeError("nobody foresaw it")]

    def on_change(found: frozenset[str]) -> None:
        if errors:
            raise errors.pop()
        told.put_nowait(found)

    watcher = MountWatcher(on_change, background, path)
    watcher.open()
    try:
        async with asyncio.timeout(patience(20)):
            assert await told.get() == {KEY}
            path.write_text(line())
            assert await told.get() == frozenset()
    finally:
        watcher.close()
    assert background.works[mounts.WORK].failures == 1


Mount = Callable[..., None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Run mount(8); what it has mounted is unmounted in the end."""
    points: set[str] = set()

    def run(*arguments: str) -> None:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0 and not points:
            pytest.skip(f"not permitted to mount: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        points.add(arguments[-1])

    yield run
    for point in points:
        while point in Path("/proc/self/mountinfo").read_text():
            subprocess.run(["umount", "-l", point], check=True)


@dataclass(frozen=True)
class Point:
    """Where a volume is mounted that only one test has: mounts are seen by all."""

    path: str
    key: str


@pytest.fixture
def point(tmp_path: Path) -> Point:
    key = volume_key(uuid.uuid4().hex)
    folder = tmp_path / FOLDER.replace(KEY, key)
    folder.mkdir(parents=True)
    return Point(str(folder), key)


@pytest.fixture
def failing(mount: Mount, point: Point, tmp_path: Path) -> Path:
    """A file system, given as the file that makes it fail."""
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 16 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot make a file system: {error}")
    mount("-o", "loop,errors=remount-ro", str(image), point.path)
    (device,) = (
        line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if point.path in line
    )
    trigger = Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error")
    if not trigger.exists():
        pytest.skip(f"there is no {trigger} to make the file system fail")
    return trigger


def fail(trigger: Path) -> None:
    trigger.write_text("1")


def unmount(point: Point) -> None:
    subprocess.run(["umount", point.path], check=True)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found out by looking again and again."""
    monkeypatch.setattr(mounts, "_INTERVAL", 1000.0)


@pytest.mark.usefixtures("untimed")
async def test_a_file_system_that_is_remounted_read_only_is_told_at_once(mount: Mount, point: Point) -> None:
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", point.path)
    async with watching(point.key) as seen:
        assert seen.read_only == [False]
        mount("-o", "remount,ro", point.path)
        await seen.until(read_only=True)
        mount("-o", "remount,rw", point.path)
        await seen.until(read_only=False)


@pytest.mark.usefixtures("untimed")
async def test_a_bind_mount_that_is_read_only_is_told_when_it_comes_and_when_it_goes(
    mount: Mount, point: Point, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    async with watching(point.key) as seen:
        mount("--bind", str(source), point.path)
        mount("-o", "remount,bind,ro", point.path)
        await seen.until(read_only=True)
        mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", point.path)  # hides it
        await seen.until(read_only=False)
        unmount(point)
        await seen.until(read_only=True)


@pytest.mark.usefixtures("untimed")
async def test_what_is_read_only_from_the_start_is_told_at_first(mount: Mount, point: Point) -> None:
    mount("-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", point.path)
    async with watching(point.key) as seen:
        assert seen.read_only == [True]


@pytest.mark.usefixtures("untimed")
async def test_many_changes_in_a_row_are_few_looks(
    mount: Mount, point: Point, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def count(lines: Iterator[str]) -> frozenset[str]:
        nonlocal looks
        looks += 1
        return read_only_volumes(lines)

    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", point.path)
    monkeypatch.setattr(mounts, "read_only_volumes", count)
    begun = asyncio.get_running_loop().time()
    async with watching(point.key) as seen:
        for number in range(21):
            await asyncio.to_thread(mount, "-o", f"remount,{'rw' if number % 2 else 'ro'}", point.path)
        await seen.until(read_only=True)
        took = asyncio.get_running_loop().time() - begun
    assert looks <= 2 + took / mounts._PAUSE


async def test_a_file_system_that_fails_is_told_soon_though_the_kernel_does_not(
    failing: Path, point: Point, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_INTERVAL", 0.05)
    async with watching(point.key) as seen:
        assert seen.read_only == [False]
        fail(failing)
        await seen.until(read_only=True)


async def test_a_look_that_fails_is_made_good_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_INTERVAL", 0.01)
    path = tmp_path / "mountinfo"
    path.write_text(line(options="ro"))
    async with watching(KEY, path) as seen:
        assert seen.read_only == [True]
        path.unlink()
        (tmp_path / "next").write_text(line())
        (tmp_path / "next").rename(path)
        await seen.until(read_only=False)


async def test_thousands_of_mounts_do_not_stall_the_event_loop(tmp_path: Path, lag: LagMeter) -> None:
    pod = "/var/lib/kubelet/pods/{}/volumes/kubernetes.io~projected/kube-api-access"
    lines = [line(pod.format(number)) for number in range(10_000)]
    lines += [line(GLOBAL.replace(KEY, f"{number:064x}"), "ro") for number in range(500)]
    path = tmp_path / "mountinfo"
    path.write_text("".join(lines))
    with lag.measuring():
        async with watching(KEY, path) as seen:
            assert seen.read_only == [False]
    assert lag.longest < patience(0.1)
