"""What a daemon and its guard leave for each other."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from instance_manager.adapters.process import GuardLink
from instance_manager.platform import contract

OWN = Path("/the/daemons/own")


@pytest.mark.parametrize("told", [None, "", "0", "-1", "x", "1"])
def test_without_a_guard_as_parent_there_is_none(told: str | None, tmp_path: Path) -> None:
    environment = {contract.GUARD_STATE_DIR_VARIABLE: str(tmp_path)}
    if told is not None:
        environment[contract.GUARD_VARIABLE] = told
    link = GuardLink.of(environment, OWN)
    assert link == GuardLink(None, OWN)
    assert link.exits == OWN / "exits"


@pytest.mark.parametrize("folder", [Path("/the/guards"), None])
def test_the_folder_is_the_guards(folder: Path | None) -> None:
    environment = {contract.GUARD_VARIABLE: str(os.getppid())}
    if folder:
        environment[contract.GUARD_STATE_DIR_VARIABLE] = str(folder)
    assert GuardLink.of(environment, OWN) == GuardLink(os.getppid(), folder or OWN)


@pytest.mark.parametrize(("grace", "text"), [(None, "leave\n"), (20.0, "terminate 20\n")])
def test_settings_are_written_down_for_a_guard(tmp_path: Path, grace: float | None, text: str) -> None:
    GuardLink(os.getppid(), tmp_path).write_on_stop(grace)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("on-stop", text)]


def test_without_a_guard_nothing_is_written(tmp_path: Path) -> None:
    GuardLink(None, tmp_path).write_on_stop(20.0)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_cannot_be_written_are_no_reason_not_to_start(tmp_path: Path) -> None:
    (tmp_path / "on-stop.new").mkdir()
    with capture_logs() as logs:
        GuardLink(os.getppid(), tmp_path).write_on_stop(20.0)
    assert [line["log_level"] for line in logs] == ["warning"]


def test_how_much_is_logged_is_known_to_the_next_daemon_of_the_guard(tmp_path: Path) -> None:
    link = GuardLink(os.getppid(), tmp_path)
    assert link.read_log_settings() == ""
    link.write_log_settings("debug\napi\n")
    assert link.read_log_settings() == "debug\napi\n"
    assert GuardLink(None, tmp_path).read_log_settings() == ""


@pytest.mark.parametrize("kind", ["folder", "no text"])
def test_log_settings_that_cannot_be_read_are_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / contract.LOG_SETTINGS
    path.mkdir() if kind == "folder" else path.write_bytes(b"\xff")
    with capture_logs() as logs:
        assert GuardLink(os.getppid(), tmp_path).read_log_settings() == ""
    assert [line["log_level"] for line in logs] == ["warning"]
