"""The standard descriptors, which whoever starts a program may have closed."""

import os
import sys


def open_standard() -> None:
    """Open those of stdin, stdout and stderr that are closed on /dev/null, as every program does first.

    Otherwise the next file or socket that is opened takes their place, and what is written to stdout goes
    there.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, so it is this one
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
