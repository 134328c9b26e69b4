"""What makes a certificate unusable, and how urgent its renewal is."""

import pytest

from instance_manager.core.certificates import (
    DAY,
    PEER_NAME,
    Certificate,
    Urgency,
    find_problem,
    join_names,
    matches_name,
    urgency,
)

BEGIN, END = 10 * DAY, 100 * DAY
GOOD = Certificate((PEER_NAME,), "", "our CA", BEGIN, END)


@pytest.mark.parametrize("now", [BEGIN, BEGIN + 1, END - 1, END])
def test_a_certificate_is_good_from_its_first_to_its_last_second(now: float) -> None:
    assert find_problem(GOOD, PEER_NAME, now) is None


@pytest.mark.parametrize(("now", "told"), [(BEGIN - 1, "it is not valid before"), (END + 1, "it expired on")])
def test_a_certificate_is_told_to_be_out_of_its_time(now: float, told: str) -> None:
    assert told in str(find_problem(GOOD, PEER_NAME, now))


@pytest.mark.parametrize(
    ("names", "matches"),
    [
        ((PEER_NAME,), True),
        (("other.example", PEER_NAME.upper()), True),
        ((), False),
        (("*.longhorn-system",), False),
        ((f"{PEER_NAME}.example",), False),
        ((PEER_NAME, "a\0b"), False),
    ],
)
def test_a_certificate_needs_the_peer_name_itself(names: tuple[str, ...], matches: bool) -> None:
    assert matches_name(names, PEER_NAME) is matches


@pytest.mark.parametrize(
    ("left", "how"),
    [
        (31 * DAY, Urgency.NONE),
        (30 * DAY, Urgency.NONE),
        (30 * DAY - 1, Urgency.SOON),
        (7 * DAY, Urgency.SOON),
        (7 * DAY - 1, Urgency.VERY_SOON),
        (0, Urgency.VERY_SOON),
        (-1, Urgency.EXPIRED),
    ],
)
def test_a_renewal_is_more_urgent_within_30_and_within_7_days(left: float, how: Urgency) -> None:
    assert urgency(END, END - left) is how


def test_of_many_names_five_are_told() -> None:
    assert join_names(()) == "nobody"
    assert join_names([f"n{number}" for number in range(7)]) == "n0, n1, n2, n3, n4 and 2 more"
