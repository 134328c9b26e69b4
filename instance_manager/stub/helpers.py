"""Orphans, as an instance that forks without care leaves them behind."""

import os
import signal

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a stub, and that its helpers ignore."""


def start_helper() -> int:
    """Fork twice and return the grandchild's pid; it sleeps for ever, in its own session, until killed.

    To be called before anything is opened: the helper keeps every descriptor there is.

    Raises:
        OSError: There is no room for another process.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.fork() == 0:
                _sleep_for_ever(writer)
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        pid = pipe.read()
    if not pid:
        raise OSError("the helper could not be forked")
    return int(pid)


def _sleep_for_ever(writer: int) -> None:
    os.setsid()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.write(writer, b"%d" % os.getpid())
    os.close(writer)
    while True:
        signal.pause()
