"""Sums and shares of what processes use: what is not told is never taken for nothing."""

from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.usage import Usage, cpu_share, total

COUNTS = st.none() | st.integers(0, 1 << 40)
USAGES = st.builds(
    Usage,
    st.floats(0, 1e9),
    cpu_seconds=st.none() | st.floats(0, 1e9),
    memory_bytes=COUNTS,
    processes=COUNTS,
    threads=COUNTS,
    read_bytes=COUNTS,
    written_bytes=COUNTS,
    out_of_memory_kills=COUNTS,
)
NAMES = [each.name for each in fields(Usage) if each.name != "since"]


@given(st.lists(USAGES, min_size=1))
def test_a_total_tells_what_every_part_tells(parts: list[Usage]) -> None:
    whole = total(parts)
    assert whole is not None
    assert whole.since == min(part.since for part in parts)
    for name in NAMES:
        values = [getattr(part, name) for part in parts]
        assert getattr(whole, name) == (None if None in values else sum(values))


def test_of_nobody_nothing_is_told() -> None:
    assert total([]) is None


@given(USAGES, USAGES)
def test_what_is_missing_is_taken_from_the_other_and_nothing_else(usage: Usage, other: Usage) -> None:
    completed = usage.completed_by(other)
    assert completed.since == usage.since
    for name in NAMES:
        source = other if name in usage.missing else usage
        assert getattr(completed, name) == getattr(source, name)


def test_a_share_is_in_cpus_and_never_negative() -> None:
    assert cpu_share(Usage(0, 1.0), Usage(0, 4.0), 2.0) == 1.5
    assert cpu_share(Usage(0, 4.0), Usage(0, 1.0), 2.0) == 0
    assert cpu_share(Usage(0), Usage(0, 1.0), 2.0) is None
    assert cpu_share(Usage(0, 1.0), Usage(0), 2.0) is None
    assert cpu_share(Usage(0, 1.0), Usage(0, 2.0), 0.0) is None
