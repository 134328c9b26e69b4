"""Cutting the oldest part off a file that another process is appending to."""

import ctypes
import errno
import os
from dataclasses import dataclass

_COLLAPSE_RANGE = 0x08  # FALLOC_FL_COLLAPSE_RANGE, fallocate(2)
_CHUNK = 1 << 18
_LINE_MOST = 1 << 20
"""Bytes in which the end of a line is looked for."""
_NEAR = 1 << 16
"""Bytes that a copy which skips is behind the writer then: so few that it can catch up."""
_HURRIED_MOST = 32
"""Chunks that are copied of a file that has passed its bound."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """What was done to a file."""

    dropped: int
    """Bytes at its head that are gone; positions behind them have moved down by so many."""
    first: int
    """Where the first line that is whole begins now; a note is in front of it."""


def drop_head(fd: int, count: int, most: int) -> Cut:
    """Drop about the first `count` bytes; the writer goes on appending and notices nothing.

    On ext4 and XFS the blocks are cut out of the file and no byte behind them is touched. Elsewhere the rest
    is copied to the front and the file truncated behind it; what is written between the last copied byte and
    the truncation, a few microseconds, is lost, and if the file passes `most` bytes meanwhile, so is what the
    copy is behind the writer.
    """
    whole = count - count % os.fstatvfs(fd).f_bsize
    torn = whole > 0 and os.pread(fd, 1, whole - 1) != b"\n"
    if whole and _collapse(fd, whole):
        return Cut(whole, _blank_torn_line(fd, whole) if torn else 0)
    return _copy_tail(fd, count, most)


def _collapse(fd: int, count: int) -> bool:
    """Cut blocks out; return whether the file system can do that."""
    while _libc.fallocate(fd, _COLLAPSE_RANGE, 0, count) != 0:
        if ctypes.get_errno() != errno.EINTR:
            return False
    return True


def _blank_torn_line(fd: int, dropped: int) -> int:
    """Put a note in the place of the rest of the line that the cut went through; return where it ends.

    A rest that is too short for the note becomes blanks, one without an end in sight keeps what is behind
    the note as a line of its own.
    """
    head = os.pread(fd, _LINE_MOST, 0)
    note = f"[{dropped} bytes of older lines dropped]".encode()
    end = head.find(b"\n")
    if end < 0:
        note += b"\n"
        os.pwrite(fd, note, 0)
        return len(note)
    os.pwrite(fd, note.ljust(end) if len(note) <= end else b" " * end, 0)
    return end + 1


def _copy_tail(fd: int, count: int, most: int) -> Cut:
    """Copy the rest of the file to its front, and what is written meanwhile, and truncate it behind that."""
    start = source = _line_start(fd, count)
    target = hurried = 0
    while (end := os.fstat(fd).st_size) > source and hurried < _HURRIED_MOST:
        if end > most:
            hurried += 1
            if end - source > _NEAR:
                # The writer is as fast as the copy: its last lines are worth more than those before.
                skipped = _line_start(fd, end - _NEAR) - source
                note = f"\n[{skipped} bytes dropped: written faster than they could be kept]\n".encode()
                target += os.pwrite(fd, note if target else note[1:], target)
                source += skipped
        chunk = os.pread(fd, min(_CHUNK, end - source), source)
        target += os.pwrite(fd, chunk, target)
        source += len(chunk)
    os.ftruncate(fd, target)
    return Cut(start, 0)


def _line_start(fd: int, position: int) -> int:
    """Return where the first line begins that begins at a position or behind it."""
    return position + os.pread(fd, _LINE_MOST, position - 1).find(b"\n")
