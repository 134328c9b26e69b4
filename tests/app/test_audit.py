"""The audit trail remembers the latest calls and logs each."""

from structlog.testing import capture_logs

from instance_manager.app.audit import AuditTrail
from tests.support.fakes import FakeClock


def add(trail: AuditTrail, name: str, code: str = "OK", detail: str = "") -> None:
    trail.add(method="S/Delete", name=name, uuid="u", caller="somebody", code=code, detail=detail)


def names(trail: AuditTrail, *, since: float = 0, limit: int = 0) -> list[str]:
    return [entry.name for entry in trail.entries(since=since, limit=limit)]


def test_the_latest_calls_are_remembered_and_all_are_counted() -> None:
    trail = AuditTrail(FakeClock().now, kept=3)
    for number in range(5):
        add(trail, str(number))
    assert names(trail) == ["2", "3", "4"]
    assert trail.number == 5
    assert [entry.number for entry in trail.entries()] == [3, 4, 5]


def test_the_last_calls_since_a_time_are_told() -> None:
    clock = FakeClock(start=1000)
    trail = AuditTrail(clock.now)
    for number in range(5):
        add(trail, str(number))
        clock.advance(10)
    assert names(trail, since=1020) == ["2", "3", "4"]
    assert names(trail, since=1020, limit=2) == ["3", "4"]
    assert names(trail, limit=9) == ["0", "1", "2", "3", "4"]
    assert names(trail, since=2000) == []


def test_each_call_is_a_line_in_the_log() -> None:
    with capture_logs() as logs:
        add(AuditTrail(FakeClock().now), "a", "NOT_FOUND", "no such thing")
    (line,) = logs
    assert line == {
        "event": "audit",
        "log_level": "info",
        "method": "S/Delete",
        "name": "a",
        "uuid": "u",
        "caller": "somebody",
        "code": "NOT_FOUND",
        "detail": "no such thing",
    }


def test_a_field_that_is_too_long_is_cut() -> None:
    trail = AuditTrail(FakeClock().now)
    add(trail, "n" * 10_000_000, "INVALID_ARGUMENT", "d" * 10_000)
    (entry,) = trail.entries()
    assert (len(entry.name), len(entry.detail)) == (256, 256)


def test_what_of_an_engine_a_call_was_about_is_in_the_log() -> None:
    trail = AuditTrail(FakeClock().now)
    with capture_logs() as logs:
        trail.add(method="S/M", name="e", uuid="", caller="c", code="OK", subject="s" * 1000)
    (line,), (entry,) = logs, trail.entries()
    assert line["subject"] == entry.subject == "s" * 256
    assert "detail" not in line
