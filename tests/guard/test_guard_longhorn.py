"""What the guard prepares for the engines of a Longhorn manager, in a mount namespace of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.guard import STUB, guarding
from tests.support.patience import patience

BIND = """
import json, os, sys
from instance_manager.guard.log import Log
from instance_manager.guard.longhorn import bind
folders = json.loads(sys.argv[1])
for _ in range(int(sys.argv[2])):
    bind(folders, Log())
print(json.dumps([sorted(os.listdir(target)) for _, target in folders if os.path.isdir(target)]))
print(sum(target in line for line in open("/proc/self/mountinfo") for _, target in folders))
"""


def bind(folders: list[tuple[Path, Path]], *, times: int = 1, before: tuple[str, ...]) -> tuple[Any, ...]:
    """Bind folders in namespaces of their own; return what is in each then, the mounts, and the log."""
    if shutil.which("unshare") is None or subprocess.run([*before, "true"], check=False).returncode:
        pytest.skip("needs unshare(1) and the right to use it")
    named = json.dumps([[str(source), str(target)] for source, target in folders])
    done = subprocess.run(
        [*before, sys.executable, "-c", BIND, named, str(times)],
        capture_output=True,
        text=True,
        timeout=patience(20),
        check=True,
    )
    content, mounts = done.stdout.splitlines()
    return json.loads(content), int(mounts), [json.loads(line) for line in done.stderr.splitlines()]


MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")


@pytest.fixture
def node(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Folders of a node with a file each, and where they are to appear; of the last one there is none."""
    for name in ("dev", "sys"):
        (tmp_path / "host" / name).mkdir(parents=True)
        (tmp_path / "host" / name / f"of-{name}").touch()
        (tmp_path / name).mkdir()
    (tmp_path / "sys").rmdir()
    return [(tmp_path / "host" / name, tmp_path / name) for name in ("dev", "sys", "modules")]


def test_the_nodes_folders_are_bound_where_there_are_such(node: list[tuple[Path, Path]]) -> None:
    content, mounts, told = bind(node, before=MOUNTS)
    assert content == [["of-dev"], ["of-sys"]]
    assert mounts == 2
    assert [(line["event"], line["folders"]) for line in told] == [
        ("the node's folders are bound", f"{node[0][1]}, {node[1][1]}")
    ]
    assert list(node[0][1].iterdir()) == []  # outside


def test_what_is_bound_already_is_left_so(node: list[tuple[Path, Path]]) -> None:
    content, mounts, told = bind(node, times=3, before=MOUNTS)
    assert (content, mounts, len(told)) == ([["of-dev"], ["of-sys"]], 2, 1)


def test_a_refusal_is_one_line(node: list[tuple[Path, Path]]) -> None:
    content, mounts, told = bind(node, before=("unshare", "--user", "--map-root-user"))
    assert (content, mounts) == ([[], []], 0)
    assert [(line["level"], line["folders"], line["error"]) for line in told] == [
        ("warning", f"{node[0][1]}, {node[1][1]}", "Operation not permitted")
    ]


@pytest.mark.parametrize(
    ("engine", "installed", "started"),
    [("v1", True, True), ("", True, True), ("v2", True, False), ("v1", False, False)],
)
async def test_tgtd_is_a_helper_of_the_v1_data_engine_where_it_is_installed(
    tmp_path: Path, engine: str, installed: bool, started: bool
) -> None:
    if installed:
        (tmp_path / "tgtd").write_text("#!/bin/sh\necho tgtd $*\nexec sleep 1000\n")
        (tmp_path / "tgtd").chmod(0o755)
    environment = {
        "INSTANCE_MANAGER_GUARD_PREPARE": "longhorn",
        "DATA_ENGINE": engine,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    async with guarding(tmp_path / "state", *STUB, environment=environment) as guard:
        if started:
            assert (await guard.logged("helper output"))["line"] == "tgtd -f"
        await guard.printed("listening")
        assert [line["helper"] for line in guard.events("helper started")] == ["tgtd"] * started
        assert await guard.stop() == 0


async def test_a_tgtd_of_ones_own_goes_before(tmp_path: Path) -> None:
    (tmp_path / "tgtd").write_text("#!/bin/sh\necho tgtd $*\nexec sleep 1000\n")
    (tmp_path / "tgtd").chmod(0o755)
    options = ["--prepare", "longhorn", "--helper", f"tgtd={tmp_path}/tgtd -d 1 -f"]
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    async with guarding(tmp_path / "state", *STUB, options=options, environment=path) as guard:
        assert (await guard.logged("helper output"))["line"] == "tgtd -d 1 -f"
        await guard.printed("listening")
        assert len(guard.events("helper started")) == 1
        assert await guard.stop() == 0
