"""Regular files are opened; anything else is refused, and nothing is waited for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from instance_manager.platform.files import open_regular, stamp_of


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"content"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_directory_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "other")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "other")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_that_replaces_another_has_another_stamp(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    before = stamp_of((tmp_path / "a").stat())
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "b").replace(tmp_path / "a")
    assert stamp_of((tmp_path / "a").stat()) != before
