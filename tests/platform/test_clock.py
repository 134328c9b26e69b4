"""The clock of the agent that looks for orphans."""

from instance_manager.platform.clock import SteadyClock


def test_the_time_goes_on_evenly_when_somebody_sets_the_clock() -> None:
    wall, steady = [1_000.0], [50.0]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    assert clock.now() == 1_000.0
    for jump in (-500.0, 86_400.0):
        wall[0] += jump
        steady[0] += 2.0
    assert clock.now() == 1_004.0
