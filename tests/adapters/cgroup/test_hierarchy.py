"""Where cells can be made: found out by trying it, decided from what came of it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.adapters.cgroup import UnusableError, choose
from instance_manager.adapters.cgroup import hierarchy as under_test
from instance_manager.adapters.cgroup.controllers import MANAGER, ROOT_MARK
from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.adapters.cgroup.hierarchy import (
    Choice,
    Mount,
    Trials,
    decide,
    places,
    read_mounts,
    read_own,
)
from instance_manager.app.containment import Kind

A, B = Path("/a"), Path("/b")
ALL = [None, *Kind]


@pytest.mark.parametrize(
    ("requested", "trials", "expected"),
    [
        (None, Trials({A: ""}), Choice(Kind.CGROUP, "cells can be made in /a", A)),
        (Kind.CGROUP, Trials({A: ""}), Choice(Kind.CGROUP, "cells can be made in /a", A)),
        (None, Trials({A: "read-only", B: ""}), Choice(Kind.CGROUP, "cells can be made in /b", B)),
        (Kind.SESSION, Trials({A: ""}), Choice(Kind.SESSION, "cgroups are not wanted")),
        (None, Trials({A: "no"}), Choice(Kind.SESSION, "no cell can be made in /a: no")),
        (None, Trials({}, "not mounted"), Choice(Kind.SESSION, "not mounted")),
        (Kind.CGROUP, Trials({A: "no"}), "no cell can be made in /a: no"),
        (
            Kind.CGROUP,
            Trials({A: "x", B: "y"}),
            "no cell can be made in /a: x; no cell can be made in /b: y",
        ),
        (Kind.CGROUP, Trials({}, "not mounted"), "not mounted"),
    ],
)
def test_how_to_tell_what_belongs_to_an_instance(
    requested: Kind | None, trials: Trials, expected: Choice | str
) -> None:
    if isinstance(expected, Choice):
        assert decide(requested, trials) == expected
    else:
        with pytest.raises(UnusableError) as raised:
            decide(requested, trials)
        assert str(raised.value) == expected


@given(
    requested=st.sampled_from(ALL),
    refusals=st.dictionaries(st.sampled_from([A, B, Path("/c")]), st.sampled_from(["", "why"])),
)
def test_a_choice_is_what_was_asked_for_and_possible(
    requested: Kind | None, refusals: dict[Path, str]
) -> None:
    possible = "" in refusals.values()
    if requested is Kind.CGROUP and not possible:
        with pytest.raises(UnusableError, match=r"why|nowhere"):
            decide(requested, Trials(refusals, "nowhere"))
        return
    choice = decide(requested, Trials(refusals, "nowhere"))
    assert choice.reason
    assert requested in {None, choice.kind}
    assert (choice.kind is Kind.CGROUP) == (possible and requested is not Kind.SESSION)
    assert refusals[choice.root] == "" if choice.root else choice.kind is Kind.SESSION


def mounted(
    point: str, *, root: str = "/", options: str = "rw", kind: str = "cgroup2", of: str = "rw"
) -> str:
    return f"36 25 0:32 {root} {point} {options} shared:7 - {kind} cgroup2 {of}"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([mounted("/cg\\040two")], [Mount("/cg two", "/")]),
        ([mounted("/proc", kind="proc")], []),
        ([mounted("/sys/fs/cgroup", kind="cgroup"), mounted("/u")], [Mount("/u", "/")]),
        # What can be written comes first, and not what is mounted over.
        ([mounted("/a", options="ro,nosuid"), mounted("/b")], [Mount("/b", "/"), Mount("/a", "/")]),
        ([mounted("/a", of="ro"), mounted("/b")], [Mount("/b", "/"), Mount("/a", "/")]),
        ([mounted("/a"), mounted("/a", kind="tmpfs")], []),
        ([mounted("/a", root="/x"), mounted("/a", root="/y")], [Mount("/a", "/y")]),
        # A source may be empty, and optional fields missing.
        (["36 25 0:32 / /a rw - cgroup2  rw"], [Mount("/a", "/")]),
        (["", "36 25"], []),
    ],
)
def test_where_the_hierarchy_is_mounted(lines: list[str], expected: list[Mount]) -> None:
    assert list(read_mounts("\n".join(lines))) == expected


@pytest.mark.parametrize(
    ("mounts", "own", "expected"),
    [
        ([Mount("/sys/fs/cgroup", "/")], "/", ["/sys/fs/cgroup"]),
        ([Mount("/cg", "/")], "/system.slice/im.service", ["/cg/system.slice/im.service"]),
        ([Mount("/cg", "/pod"), Mount("/all", "/")], "/pod/c", ["/cg/c", "/all/pod/c"]),
        ([Mount("/cg", "/other")], "/pod/c", "below none of the mounted ones"),
        ([Mount("/cg", "/")], "/../../x", "outside of what it can see"),
        ([], "/", "mount -t cgroup2"),
        ([Mount("/cg", "/")], None, "mount -t cgroup2"),
    ],
)
def test_where_this_process_is_in_the_hierarchy(
    mounts: list[Mount], own: str | None, expected: list[str] | str
) -> None:
    if isinstance(expected, str):
        with pytest.raises(UnusableError, match=expected):
            places(mounts, own)
    else:
        assert list(map(str, places(mounts, own))) == expected


def test_the_own_place_is_read() -> None:
    assert read_own("1:name=systemd:/\n0::/a/b\n") == "/a/b"
    assert read_own("1:name=systemd:/\n") is None


def test_a_folder_that_is_no_cgroup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UnusableError, match=f"no cell can be made in {tmp_path}: it is no cgroup of version 2"
    ):
        choose(Kind.CGROUP, tmp_path)
    assert choose(None, tmp_path).kind is Kind.SESSION


def test_nothing_is_tried_if_cgroups_are_not_wanted(tmp_path: Path) -> None:
    assert choose(Kind.SESSION, tmp_path / "nowhere").kind is Kind.SESSION


def test_a_root_that_may_have_no_cgroups_is_refused_with_what_to_do(root: Path) -> None:
    (root / "cgroup.max.descendants").write_text("0")
    assert "raise cgroup.max.descendants" in choose(None, root).reason


def test_a_trial_leaves_nothing_and_is_not_disturbed_by_one_that_was_killed(root: Path) -> None:
    (root / f"instance-manager-trial-{os.getpid()}").mkdir()
    assert choose(None, root) == Choice(Kind.CGROUP, f"cells can be made in {root}", root)
    assert [path for path in root.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("marked", [True, False])
def test_a_daemon_that_starts_in_a_manager_of_ours_finds_the_root_above(
    root: Path, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    manager = root / MANAGER
    manager.mkdir()
    if marked:
        fd = os.open(root, os.O_RDONLY)
        Folder(fd, ".").set_attribute(ROOT_MARK, b"1")
        os.close(fd)
    monkeypatch.setattr(under_test, "places", lambda *_: [manager])
    assert choose(None).root == (root if marked else manager)
    manager.rmdir()
