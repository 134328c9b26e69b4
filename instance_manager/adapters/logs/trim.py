"""Cutting the oldest part off a file that another process is appending to."""

import ctypes
import os

_COLLAPSE_RANGE = 0x08  # FALLOC_FL_COLLAPSE_RANGE, fallocate(2)
_CHUNK = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def drop_head(path: str, count: int) -> int:
    """Drop about the first `count` bytes; the writer goes on appending and notices nothing.

    On ext4 and XFS the blocks are cut out of the file and no byte behind them is touched. Elsewhere the rest
    is copied to the front and the file truncated behind it; what is written between the last copied byte and
    the truncation, a few microseconds, is lost.

    Returns:
        How many bytes were dropped; positions in the file have moved down by it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        block = os.fstatvfs(fd).f_bsize
        whole = count // block * block
        if whole and _libc.fallocate(fd, _COLLAPSE_RANGE, 0, whole) == 0:
            _blank_torn_line(fd, whole)
            return whole
        return _copy_tail(fd, count)
    finally:
        os.close(fd)


def _blank_torn_line(fd: int, dropped: int) -> None:
    """Put a note in the place of the rest of the line that the cut went through."""
    head = os.pread(fd, _CHUNK, 0)
    end = head.find(b"\n")
    if end > 0:
        note = f"[{dropped} bytes of older lines dropped]".encode()
        os.pwrite(fd, note.ljust(end)[:end] if len(note) <= end else b" " * end, 0)


def _copy_tail(fd: int, count: int) -> int:
    start = count
    newline = os.pread(fd, _CHUNK, start).find(b"\n")
    if newline >= 0:
        start += newline + 1
    source, target = start, 0
    while chunk := os.pread(fd, _CHUNK, source):
        os.pwrite(fd, chunk, target)
        source += len(chunk)
        target += len(chunk)
    os.ftruncate(fd, target)
    return start
