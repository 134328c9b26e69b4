"""Snapshots by the files that replicas have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core import snapshots
from instance_manager.core.engine import Disk, ReplicaInfo
from instance_manager.core.errors import UpstreamError
from instance_manager.core.snapshots import HEAD, most_complete, snapshot_file, snapshot_name, snapshots_of

NAMES = st.text(min_size=1, max_size=20)
HEADS = st.integers(0, 9999).map(lambda number: f"volume-head-{number:03}.img")
BACKING = "/backing/image.img"


def chain(names: list[str], head: str, backing: str = "") -> ReplicaInfo:
    """Return a replica whose snapshots follow each other, the head last."""
    files = [*([backing] if backing else []), *map(snapshot_file, names), head]
    disks = {
        file: Disk(file, parent=parent, children={child: True} if child else {}, labels={"of": file})
        for parent, file, child in zip(["", *files], files, [*files[1:], ""], strict=False)
    }
    return ReplicaInfo(backing_file=backing, disks=disks)


@given(st.lists(NAMES, unique=True, max_size=8), HEADS, st.sampled_from(["", BACKING]))
def test_a_chain_keeps_its_order_under_the_names_of_the_snapshots(
    names: list[str], head: str, backing: str
) -> None:
    told = snapshots_of(chain(names, head, backing))
    assert list(told) == [*names, HEAD]
    for parent, name, child in zip(["", *names], [*names, HEAD], [*names[1:], HEAD, ""], strict=False):
        if name != HEAD:
            assert dict(told[name].children) == ({child: True} if child else {})
        assert (told[name].name, told[name].parent) == (name, parent)
    assert told[HEAD].labels == {"of": head}


@given(NAMES)
def test_the_file_of_a_snapshot_tells_its_name(name: str) -> None:
    assert snapshot_name(snapshot_file(name)) == name


@given(HEADS)
def test_any_head_has_one_name(head: str) -> None:
    assert snapshot_name(head) == HEAD


@pytest.mark.parametrize(
    "file",
    [
        "x",
        "volume-snap-.img",
        "volume-snap-a",
        "volume-head-.img",
        "volume-head-1.img.meta",
        "Volume-snap-a.img",
    ],
)
def test_another_file_is_an_error(file: str) -> None:
    with pytest.raises(UpstreamError, match="cannot tell") as error:
        snapshot_name(file)
    assert error.value.code == "UNKNOWN"


def test_a_parent_of_another_form_is_an_error() -> None:
    with pytest.raises(UpstreamError):
        snapshots_of(ReplicaInfo(disks={"volume-head-000.img": Disk("volume-head-000.img", parent="odd")}))


def test_each_file_is_read_once_however_many_refer_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def name(file: str) -> str:
        read.append(file)
        return snapshot_name(file)

    monkeypatch.setattr(snapshots, "snapshot_name", name)
    files = [snapshot_file(str(number)) for number in range(500)]
    disks = {file: Disk(file, parent=files[0], children=dict.fromkeys(files[:2], True)) for file in files}
    assert len(snapshots_of(ReplicaInfo(disks=disks))) == len(files)
    assert sorted(read) == sorted(files)


@given(st.lists(st.dictionaries(NAMES, st.builds(Disk, NAMES), max_size=5), max_size=5))
def test_the_first_of_the_longest_lists_is_taken(lists: list[dict[str, Disk]]) -> None:
    longest = max(map(len, lists), default=0)
    expected = next((each for each in lists if len(each) == longest), {})
    assert most_complete(lists) == expected
    assert not lists or any(most_complete(lists) is each for each in lists if each == expected)
