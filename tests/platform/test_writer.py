"""The writer that never makes its program wait."""

import os
from pathlib import Path

from instance_manager.platform.writer import NonBlockingWriter


def test_a_file_that_is_truncated_meanwhile_gets_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)  # as a shell opens it for `> log`
    try:
        writer = NonBlockingWriter(fd, room=1 << 20)
        writer.write(b"first\n")
        os.truncate(path, 0)
        writer.write(b"second\n")
    finally:
        os.close(fd)
    assert path.read_bytes() == b"second\n"
