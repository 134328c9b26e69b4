"""Delays between attempts."""

from collections.abc import Iterator


def exponential_backoff(first: float, longest: float) -> Iterator[float]:
    """Yield delays without end: each is twice the one before it, up to the longest."""
    delay = first
    while True:
        yield delay
        delay = min(2 * delay, longest)
