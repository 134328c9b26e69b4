"""Calls in the log: what is new has a line, what goes on as before is summed up."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from instance_manager.api.interceptors import call_log
from instance_manager.api.interceptors.call_log import CallLog
from instance_manager.api.service import Method
from instance_manager.pb.imrpc import instance_pb2

OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
NOT_FOUND, UNAVAILABLE = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE
SERVICE = instance_pb2.DESCRIPTOR.services_by_name["InstanceService"]

Lines = list[MutableMapping[str, Any]]


def method(name: str, *, changes: bool = False, sets: bool = False) -> Method:
    async def never(_: Any) -> bytes:
        raise AssertionError

    return Method(SERVICE.methods_by_name[name], SERVICE.full_name, never, changes, sets, waits=False)


GET = method("InstanceGet")
LIST = method("InstanceList")
DELETE = method("InstanceDelete", changes=True)
SET_LEVEL = method("LogSetLevel", changes=True, sets=True)


@pytest.fixture
def lines() -> Iterator[Lines]:
    with capture_logs() as logged:
        yield logged


def told(lines: Lines) -> list[tuple[str, str, str]]:
    """Return event, method and reason of each line so far, and forget them."""
    found = [(line["event"], line["method"].rpartition("/")[2], line.get("reason", "")) for line in lines]
    lines.clear()
    return found


@pytest.mark.parametrize("polled", [GET, SET_LEVEL])
def test_what_succeeds_again_and_again_has_no_line(polled: Method, lines: Lines) -> None:
    calls = CallLog()
    for _ in range(1000):
        calls.add(polled, b"a", OK, "", 0.001)
    assert told(lines) == []


def test_each_change_has_a_line(lines: Lines) -> None:
    calls = CallLog()
    for _ in range(3):
        calls.add(DELETE, b"a", OK, "", 0.001)
        calls.add(DELETE, b"a", NOT_FOUND, "no such name", 0.001)
    assert told(lines) == [("call", "InstanceDelete", ""), ("call", "InstanceDelete", "no such name")] * 3


@pytest.mark.parametrize("polled", [GET, SET_LEVEL])
def test_a_first_failure_another_one_and_a_recovery_have_a_line_each(polled: Method, lines: Lines) -> None:
    calls, name = CallLog(), polled.descriptor.name
    for _ in range(2):
        for code, reason in (
            (OK, ""),
            (NOT_FOUND, "no"),
            (UNAVAILABLE, "no"),
            (UNAVAILABLE, "later"),
            (OK, ""),
        ):
            for _ in range(5):
                calls.add(polled, b"a", code, reason, 0.001)
            calls.add(polled, b"a", CANCELLED, "", 0.001)  # this caller does not know what came of it
        assert [line["code"] for line in lines] == ["NOT_FOUND", "UNAVAILABLE", "UNAVAILABLE", "OK"]
        assert lines[-1]["failures"] == 5
        assert told(lines) == [
            ("call", name, "no"),
            ("call", name, "no"),
            ("call", name, "later"),
            ("call succeeds again", name, ""),
        ]


def test_each_request_fails_on_its_own(lines: Lines) -> None:
    calls = CallLog()
    for name in (b"a", b"b"):
        calls.add(GET, name, NOT_FOUND, "no", 0.001)
        calls.add(LIST, name, NOT_FOUND, "no", 0.001)
        calls.add(GET, b"c", OK, "", 0.001)
    assert [event for event, _, _ in told(lines)] == ["call"] * 4
    calls.add(GET, b"a", OK, "", 0.001)
    assert told(lines) == [("call succeeds again", "InstanceGet", "")]
    calls.add(GET, b"b", NOT_FOUND, "no", 0.001)
    assert told(lines) == []


def test_all_calls_are_summed_up_by_method(lines: Lines) -> None:
    calls = CallLog()
    for number in range(10):
        calls.add(GET, b"a", OK, "", number / 1000)
        calls.add(SET_LEVEL, b"a", CANCELLED, "", 0.5)
    for _ in range(3):
        calls.add(GET, b"b", NOT_FOUND, "no", 0.001)
    lines.clear()
    calls.sum_up()
    sums = [(line["method"], line["count"], line["failed"], line["slowest_milliseconds"]) for line in lines]
    assert sums == [
        ("/imrpc.InstanceService/InstanceGet", 13, 3, 9.0),
        ("/imrpc.InstanceService/LogSetLevel", 10, 0, 500.0),
    ]
    assert {line["event"] for line in lines} == {"calls"}
    lines.clear()
    calls.sum_up()
    assert lines == []


def test_a_method_has_so_many_lines_and_the_sum_says_how_many_were_left_out(lines: Lines) -> None:
    calls = CallLog()
    for _ in range(2):
        for number in range(call_log.MOST_LINES + 7):
            calls.add(GET, b"a", NOT_FOUND, f"no {number}", 0.001)
        calls.add(LIST, b"a", NOT_FOUND, "no", 0.001)
        assert len(lines) <= call_log.MOST_LINES + 1
        lines.clear()
        calls.sum_up()
        assert [line.get("lines_left_out", 0) for line in lines] == [7, 0]
        lines.clear()


def test_what_is_remembered_of_failures_is_bounded(lines: Lines) -> None:
    calls = CallLog()
    for number in range(3000):
        calls.add(GET, b"%d" % number, NOT_FOUND, "no", 0.001)
    assert len(calls._failing) <= 1024
    calls.sum_up()
    lines.clear()
    calls.add(GET, b"2999", NOT_FOUND, "no", 0.001)
    assert lines == []
