"""Sizes, durations and ages."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.cli.units import Seconds, age, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("1d1h1m1s", 90_061)],
)
def test_a_duration_is_so_many_seconds(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1.5h", "-1", "10 m", "1m2h", "1w", "999999999999"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"cannot use the duration .*: write seconds, or 10m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "-1", "ten"])
def test_seconds_are_a_finite_number_from_0_up(text: str) -> None:
    assert Seconds(0).convert("1.5", None, None) == 1.5
    with pytest.raises(click.BadParameter):
        Seconds(0).convert(text, None, None)


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("512", 512), ("4Ki", 4096), ("20Gi", 20 << 30)])
def test_a_size_is_so_many_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "1G", "1.5Gi", "-1", "8388608Ti", "9223372036854775808"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"cannot use the size .*: write bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0s"), (5.9, "5s"), (60, "1m"), (200, "3m20s"), (720, "12m"), (5400, "1h30m"), (183_600, "2d3h")],
)
def test_an_age_has_two_units_at_most(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


@given(st.integers(0, 10**8))
def test_an_age_is_a_duration_that_is_hardly_less(seconds: int) -> None:
    shown = parse_duration(age(seconds))
    assert shown <= seconds <= shown * 1.1 + 1
