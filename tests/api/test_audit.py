"""What leaves an entry in the audit trail, and what would only repeat the one before."""

from typing import Any

import pytest

from instance_manager.api.interceptors.audit import MOST_SETTINGS, LatestSettings
from instance_manager.api.interceptors.call import Call
from instance_manager.pb.imrpc import instance_pb2


def set_level(level: str, *, engine: int = 0, arrived: bool = True) -> Call:
    request = instance_pb2.LogSetLevelRequest(level=level, data_engine=engine)  # type: ignore[arg-type]
    context: Any = None
    return Call(context, request.SerializeToString(), arrived=arrived, request=request)


def test_a_setting_leaves_an_entry_when_another_outcome_comes_of_it() -> None:
    latest = LatestSettings()
    codes = ["OK", "UNAVAILABLE", "INTERNAL", "OK", "UNAVAILABLE"]
    told = [code for code in codes for _ in range(3) if not latest.repeats(set_level("info"), code)]
    assert told == codes


def test_what_is_refused_changes_nothing_of_what_is_set() -> None:
    latest = LatestSettings()
    calls = [("info", "OK"), ("loud", "INVALID_ARGUMENT")] * 3
    told = [call for call in calls if not latest.repeats(set_level(call[0]), call[1])]
    assert told == calls[:2]


@pytest.mark.parametrize("code", ["CANCELLED", "PERMISSION_DENIED", "UNAUTHENTICATED"])
def test_one_that_is_about_its_caller_always_leaves_an_entry(code: str) -> None:
    latest = LatestSettings()
    assert not any(latest.repeats(set_level("info"), code) for _ in range(3))


def test_so_does_one_that_was_refused_unread() -> None:
    latest = LatestSettings()
    assert not any(latest.repeats(set_level("info", arrived=False), "RESOURCE_EXHAUSTED") for _ in range(3))


def test_engines_that_do_not_exist_are_not_remembered_without_end() -> None:
    latest = LatestSettings()
    for engine in range(1000):
        latest.repeats(set_level("info", engine=engine), "INVALID_ARGUMENT")
    assert len(latest) <= MOST_SETTINGS
