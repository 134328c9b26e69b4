"""Which logs are removed: old ones first, never a living instance's, and last those that tell of an error."""

from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.log_retention import KEPT_FAILED, LogLimits, StoredLog, surplus

LOGS = st.lists(
    st.builds(
        StoredLog,
        name=st.text("abc", min_size=1, max_size=6),
        size=st.integers(0, 100),
        age=st.floats(0, 100),
        living=st.booleans(),
        failed=st.booleans(),
    ),
    max_size=40,
    unique_by=lambda log: log.name,
)
LIMITS = st.builds(LogLimits, age=st.floats(0, 100), size=st.integers(0, 1000))


def stored(name: str, age: float, size: int = 10, *, living: bool = False, failed: bool = False) -> StoredLog:
    return StoredLog(name, size, age, living, failed)


def names(logs: list[StoredLog]) -> list[str]:
    return [log.name for log in logs]


@given(LOGS, LIMITS)
def test_every_promise_is_kept_whatever_there_is(logs: list[StoredLog], limits: LogLimits) -> None:
    removed = surplus(logs, limits)
    kept = [log for log in logs if log not in removed]
    assert len(set(names(removed))) == len(removed)
    assert not any(log.living for log in removed)
    gone = [log for log in kept if not log.living]
    failed = sorted((log for log in logs if log.failed and not log.living), key=lambda log: log.age)
    newest_failed = failed[:KEPT_FAILED]
    if limits.size:
        assert sum(log.size for log in gone) <= limits.size
    if limits.age:
        assert all(log.age <= limits.age or log in newest_failed for log in gone)
    if removed and not (limits.age and removed[-1].age > limits.age):
        # The last one is removed only because it has to be.
        assert sum(log.size for log in (*gone, removed[-1])) > limits.size > 0
    if any(log in newest_failed for log in removed):
        assert all(log in newest_failed or not log.size for log in gone)


@given(LOGS, LIMITS)
def test_what_is_removed_for_its_size_is_the_oldest(logs: list[StoredLog], limits: LogLimits) -> None:
    removed = surplus(logs, LogLimits(age=0, size=limits.size))
    plain = [log for log in logs if not log.living and not log.failed and log.size]
    kept_ages = [log.age for log in plain if log not in removed]
    removed_ages = [log.age for log in plain if log in removed]
    assert not kept_ages or not removed_ages or max(kept_ages) <= min(removed_ages)


@given(LOGS, LIMITS)
def test_after_that_nothing_is_left_to_remove(logs: list[StoredLog], limits: LogLimits) -> None:
    removed = surplus(logs, limits)
    assert surplus([log for log in logs if log not in removed], limits) == []


@given(LOGS)
def test_without_limits_everything_is_kept(logs: list[StoredLog]) -> None:
    assert surplus(logs, LogLimits(age=0, size=0)) == []


def test_old_logs_go_by_age_but_the_newest_of_failed_instances() -> None:
    old = [stored(f"f{number:02}", 100 + number, failed=True) for number in range(KEPT_FAILED + 2)]
    logs = [stored("young", 5), stored("old", 50), stored("living", 500, living=True), *old]
    assert names(surplus(logs, LogLimits(age=10, size=0))) == ["f11", "f10", "old"]


def test_failed_ones_go_last_when_there_is_too_much() -> None:
    logs = [
        stored("failed", 9, failed=True),
        stored("a", 1),
        stored("b", 2),
        stored("living", 9, 999, living=True),
    ]
    assert names(surplus(logs, LogLimits(age=0, size=10))) == ["b", "a"]
    assert names(surplus(logs, LogLimits(age=0, size=5))) == ["b", "a", "failed"]
