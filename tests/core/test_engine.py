"""What engines tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.engine import parse_size
from instance_manager.core.engine_orders import copy_timeout

LARGEST = (1 << 63) - 1


@given(st.integers(0, LARGEST))
def test_a_size_is_read_as_it_is_written(size: int) -> None:
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    "text", ["", "abc", "-1", "+1", " 1", "1_0", "1.0", "0x1", "\u0663", "9" * 5000, str(LARGEST + 1)]
)
def test_what_is_no_size_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("asked", "seconds"), [(0, 0), (-1, 0), (7, 7), (86_400, 86_400), (86_401, 86_400), (1 << 62, 86_400)]
)
def test_a_copy_has_the_timeout_that_is_asked_for_but_a_day_at_most(asked: int, seconds: int) -> None:
    assert copy_timeout(asked) == seconds
