"""The signals that people and supervisors send to programs, and when they are let through."""

import signal

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
SENT = (*STOPPING, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What is sent to daemons. The guard starts its program with these blocked: without a handler they would kill
it, and instances of an earlier daemon would be left behind or, with PID 1, killed."""


def hold() -> None:
    """Hold them back until `release`; the guard may have done so already."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SENT)


def release() -> None:
    """Let them through, those first that have arrived meanwhile."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SENT)
