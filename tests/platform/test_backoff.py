"""Delays between attempts."""

from itertools import islice

from instance_manager.platform.backoff import exponential_backoff


def test_each_delay_is_twice_the_one_before_it_up_to_the_longest() -> None:
    assert list(islice(exponential_backoff(0.1, 0.5), 5)) == [0.1, 0.2, 0.4, 0.5, 0.5]
