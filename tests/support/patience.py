"""How long a test waits before it calls something hung: as long as usual, times what this machine needs.

A bound of time in a test is there to end a hang, never to judge speed. On a machine that is busy with other
things all of them have to grow, so all go through `patience`.
"""

import os

VARIABLE = "INSTANCE_MANAGER_TEST_PATIENCE"
"""Environment variable with the factor; without it, the load of the machine tells."""
MOST = 20.0
"""The largest factor that is taken from the load."""


def factor(told: str | None, load: float, cores: int) -> float:
    """Return by how much everything takes longer here than on an idle machine.

    Args:
        told: What the user has said, if anything.
        load: Processes that wanted to run of late.
        cores: CPUs they could run on.

    Raises:
        ValueError: What the user has said is no number above 0.
    """
    if told is None:
        return min(max(1.0, round(load / cores, 1)), MOST)
    try:
        said = float(told)
    except ValueError:
        said = 0.0
    if not 0 < said < float("inf"):
        raise ValueError(f"cannot use {VARIABLE}={told}: it must be a number above 0")
    return said


FACTOR = factor(os.environ.get(VARIABLE), os.getloadavg()[0], len(os.sched_getaffinity(0)))
# The workers of pytest-xdist, which add to the load themselves, take what was found first.
os.environ[VARIABLE] = str(FACTOR)


def patience(seconds: float) -> float:
    """Return for how long to wait here for what takes well below so many seconds on an idle machine."""
    return seconds * FACTOR
