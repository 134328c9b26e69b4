"""Cutting the oldest part off a file that another process is appending to."""

import ctypes
import errno
import os
from dataclasses import dataclass

_COLLAPSE_RANGE = 0x08  # FALLOC_FL_COLLAPSE_RANGE, fallocate(2)
_CHUNK = 1 << 18
_LINE_MOST = 1 << 20
"""Largest number of bytes searched for the end of a line."""
_NEAR = 1 << 16
"""Bytes behind the writer at which a copy continues after skipping: so few that it can catch up."""
_HURRIED_MOST = 32
"""Largest number of chunks copied of a file that has exceeded its limit."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """The result of cutting a file."""

    dropped: int
    """Bytes removed at the head; positions after them have moved down by this number."""
    first: int
    """Where the first complete line starts now, after a note about the cut."""


def drop_head(fd: int, count: int, most: int) -> Cut:
    """Drop about the first `count` bytes of a file; the writer continues to append and notices nothing.

    On ext4 and XFS, blocks are removed from the file without touching the bytes after them. Elsewhere, the
    rest is copied to the front and the file is truncated. This loses what is written in the few microseconds
    between copying the last byte and truncating. If the file exceeds `most` bytes in the meantime, the copy
    skips most of what it is behind the writer.
    """
    whole = count - count % os.fstatvfs(fd).f_bsize
    torn = whole > 0 and os.pread(fd, 1, whole - 1) != b"\n"
    if whole and _collapse(fd, whole):
        return Cut(whole, _blank_torn_line(fd, whole) if torn else 0)
    return _copy_tail(fd, count, most)


def _collapse(fd: int, count: int) -> bool:
    """Remove blocks from the head; return whether the file system supports that."""
    while _libc.fallocate(fd, _COLLAPSE_RANGE, 0, count) != 0:
        if ctypes.get_errno() != errno.EINTR:
            return False
    return True


def _blank_torn_line(fd: int, dropped: int) -> int:
    """Replace the rest of the line that was cut by a note; return where the next line starts.

    If the rest is too short for the note, it is blanked. If its end is not found, what follows the note
    becomes a line of its own.
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
    """Copy the rest of the file, including what is written in the meantime, to its front and truncate it."""
    start = source = _line_start(fd, count)
    target = hurried = 0
    while (end := os.fstat(fd).st_size) > source and hurried < _HURRIED_MOST:
        if end > most:
            hurried += 1
            if end - source > _NEAR:
                # The writer is as fast as the copy: its latest lines are worth more than earlier ones.
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
    """Return where the first line starts at or after a position."""
    return position + os.pread(fd, _LINE_MOST, position - 1).find(b"\n")
