"""The doctor finds each thing that goes wrong, and nothing where nothing is wrong."""

import fcntl
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from instance_manager.adapters.journal import SqliteJournal, StateDir
from instance_manager.adapters.tls.inspection import CertificateInspection
from instance_manager.core.ports import PortRange
from instance_manager.doctor import Facts, Finding, Severity, examine
from tests.support.daemon import port_span
from tests.support.disks import tmpfs

UUID = "0f1e2d3c-0000-4000-8000-000000000001"


@pytest.fixture
def healthy(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The facts of a node on which nothing is wrong."""
    state = StateDir(tmp_path / "state")
    state.open()
    journal = SqliteJournal(state.journal, "boot")
    journal.open()
    (tmp_path / "logs").mkdir()
    first = port_span()[0]
    yield {
        "state_dir": state.path,
        "logs_dir": tmp_path / "logs",
        "port_range": PortRange(first, first + 99),
        "listed": {UUID: (first, first + 1)},
        "daemon": "",
        "living": [(os.getpid(), "r1", UUID)],
    }
    journal.close()
    state.close()


def findings(facts: dict[str, Any], check: str) -> list[Finding]:
    return [finding for finding in examine(Facts(**facts)) if finding.check == check]


def worst(facts: dict[str, Any], check: str) -> Finding:
    order = list(Severity)
    return max(findings(facts, check), key=lambda finding: order.index(finding.severity))


def test_a_healthy_node_has_no_error(healthy: dict[str, Any]) -> None:
    wrong = [finding for finding in examine(Facts(**healthy)) if finding.severity is Severity.ERROR]
    assert wrong == []


def test_every_finding_that_is_not_ok_has_a_hint(healthy: dict[str, Any], tmp_path: Path) -> None:
    broken = healthy | {
        "state_dir": tmp_path / "no",
        "logs_dir": tmp_path / "no",
        "port_range": PortRange(1, 65535),
        "living": [(1, "x", "unknown")],
        "certificates": CertificateInspection("cannot use tls.crt: it is odd", 0, 0),
    }
    found = [finding for finding in examine(Facts(**broken)) if finding.severity is not Severity.OK]
    assert len(found) >= 5
    assert all(finding.hint for finding in found)


def test_a_daemon_that_does_not_answer_is_an_error_with_its_words(healthy: dict[str, Any]) -> None:
    found = worst(healthy | {"listed": None, "daemon": "connection refused"}, "daemon")
    assert found.severity is Severity.ERROR
    assert "connection refused" in found.message


def test_metrics_that_are_not_served_are_a_warning(healthy: dict[str, Any]) -> None:
    assert worst(healthy, "metrics").severity is Severity.OK
    assert worst(healthy | {"metrics": False}, "metrics").severity is Severity.WARNING


def test_a_state_directory_without_a_lock_is_a_warning(tmp_path: Path, healthy: dict[str, Any]) -> None:
    assert worst(healthy, "state directory").severity is Severity.OK
    unlocked = tmp_path / "unlocked"
    unlocked.mkdir()
    (unlocked / "lock").touch()
    assert worst(healthy | {"state_dir": unlocked}, "state directory").severity is Severity.WARNING


def test_looking_at_the_lock_does_not_take_it_from_a_daemon(healthy: dict[str, Any]) -> None:
    examine(Facts(**healthy))
    with (healthy["state_dir"] / "lock").open("r+") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_limits_are_those_of_the_daemon(healthy: dict[str, Any]) -> None:
    script = (
        "import resource; from instance_manager.platform.linux import lock_file; fd = lock_file('lock');"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (77, 77)); print(flush=True); input()"
    )
    state_dir = healthy["state_dir"].parent / "other"
    state_dir.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=state_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert "only 77 open files" in worst(healthy | {"state_dir": state_dir}, "limits").message
        holder.communicate(b"\n")


def test_others_that_look_at_the_lock_are_not_taken_for_a_daemon(
    tmp_path: Path, healthy: dict[str, Any]
) -> None:
    unlocked = tmp_path / "unlocked"
    unlocked.mkdir()
    with (unlocked / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert worst(healthy | {"state_dir": unlocked}, "state directory").severity is Severity.WARNING


def test_a_relative_state_directory_is_looked_at_too(
    healthy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(healthy["state_dir"].parent)
    assert worst(healthy | {"state_dir": Path("state")}, "journal").severity is Severity.OK


def test_a_file_system_that_does_not_count_files_is_not_full(
    healthy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as Btrfs."""
    fields = [4096, 4096, 10**7, 10**7, 10**7, 0, 0, 0, 0, 255]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    assert worst(healthy, "log directory").severity is not Severity.ERROR


def test_nothing_is_said_about_listeners_while_nobody_knows_whose_they_are(healthy: dict[str, Any]) -> None:
    assert findings(healthy | {"listed": None}, "ports") == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_somebody_who_may_not_look_is_told_so() -> None:
    code = (
        "import os, sys; from pathlib import Path; from instance_manager.doctor import checks\n"
        "os.setuid(65534); facts = checks.Facts(Path(sys.argv[1]), Path('/'), None, {}, '', [])\n"
        "print([f.hint for c in (checks._state_dir, checks._journal, checks._strangers) for f in c(facts)])"
    )
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-c", code, state]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "['look as the user that the daemon runs as', '']\n", done.stderr


def test_a_missing_state_directory_is_an_error(healthy: dict[str, Any], tmp_path: Path) -> None:
    assert worst(healthy | {"state_dir": tmp_path / "no"}, "state directory").severity is Severity.ERROR


@pytest.mark.parametrize("content", [b"noise" * 1000, b"SQLite format 3\0" + b"\1" * 5000])
def test_a_damaged_journal_is_an_error(tmp_path: Path, healthy: dict[str, Any], content: bytes) -> None:
    (tmp_path / "journal.db").write_bytes(content)
    found = worst(healthy | {"state_dir": tmp_path}, "journal")
    assert found.severity is Severity.ERROR
    assert "damaged" in found.message


def test_a_journal_that_was_moved_aside_is_a_warning(healthy: dict[str, Any]) -> None:
    (healthy["state_dir"] / "journal.db.unusable").touch()
    assert worst(healthy, "journal").severity is Severity.WARNING


def test_the_journal_is_only_read(healthy: dict[str, Any]) -> None:
    before = sorted(path.name for path in healthy["state_dir"].iterdir())
    examine(Facts(**healthy))
    assert sorted(path.name for path in healthy["state_dir"].iterdir()) == before
    with sqlite3.connect(healthy["state_dir"] / "journal.db") as connection:
        assert connection.execute("SELECT count(*) FROM processes").fetchone() == (0,)
    connection.close()


def test_a_missing_log_directory_is_an_error(healthy: dict[str, Any], tmp_path: Path) -> None:
    assert worst(healthy | {"logs_dir": tmp_path / "no"}, "log directory").severity is Severity.ERROR


def test_a_full_log_directory_is_an_error(healthy: dict[str, Any], tmp_path: Path) -> None:
    with tmpfs(tmp_path / "tiny", "size=1m") as tiny:
        assert "nearly full" in worst(healthy | {"logs_dir": tiny}, "log directory").message


def test_the_hint_at_a_full_disk_removes_no_log_that_is_still_written(
    healthy: dict[str, Any], tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "tiny", "size=1m") as tiny:
        (tiny / "a.log").write_bytes(b"x" * (512 << 10))
        found = worst(healthy | {"logs_dir": tiny}, "log directory")
    assert "1 logs take 0 MiB" in found.message
    assert "truncate -s 0" in found.hint
    assert "--log-keep-size" in found.hint


@pytest.mark.parametrize("wrong", ["nothing", "lost", "removed"])
def test_a_process_whose_log_is_lost_or_removed_is_named(
    healthy: dict[str, Any], tmp_path: Path, wrong: str
) -> None:
    path = tmp_path / "r1.log"
    with path.open("wb") as log:
        output = subprocess.DEVNULL if wrong == "lost" else log
        process = subprocess.Popen(["/bin/sleep", "1000"], stdout=output)
    try:
        if wrong == "removed":
            path.unlink()
        found = worst(healthy | {"living": [(process.pid, "r1", UUID)]}, "logs")
    finally:
        process.kill()
        process.wait()
    match wrong:
        case "nothing":
            assert found.severity is Severity.OK
        case "lost":
            assert found.message == "logs of r1 are lost for its lifetime"
        case _:
            assert f"truncate -s 0 /proc/{process.pid}/fd/1" in found.hint


def test_background_work_that_fails_is_named(healthy: dict[str, Any]) -> None:
    assert worst(healthy, "background work").severity is Severity.OK
    found = worst(healthy | {"failing": ["log-trim"]}, "background work")
    assert (found.severity, found.message) == (Severity.ERROR, "log-trim of the daemon fails")


def test_a_port_range_that_overlaps_the_ephemeral_ports_is_a_warning(healthy: dict[str, Any]) -> None:
    assert worst(healthy, "port range").severity is Severity.OK
    found = worst(healthy | {"port_range": PortRange(10_000, 60_000)}, "port range")
    assert found.severity is Severity.WARNING


def test_a_foreign_listener_in_the_port_range_is_named(healthy: dict[str, Any]) -> None:
    port = port_span()[0] + 50
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert str(port) in worst(healthy, "ports").message
        # The same port held by an instance of ours is as it should be.
        assert worst(healthy | {"listed": {UUID: (port, port)}}, "ports").severity is Severity.OK


def test_a_living_process_that_the_daemon_does_not_list_is_an_error_with_its_pid(
    healthy: dict[str, Any],
) -> None:
    pid = os.getpid()
    found = worst(healthy | {"living": [(pid, "r9", "another")]}, "unadopted processes")
    assert found.severity is Severity.ERROR
    assert str(pid) in found.message
    assert f"kill {pid}" in found.hint


def test_a_process_that_is_being_replaced_or_has_just_ended_is_not_to_be_killed(
    healthy: dict[str, Any],
) -> None:
    """Neither is in the daemon's list."""
    with closing(sqlite3.connect(healthy["state_dir"] / "journal.db")) as connection, connection:
        connection.execute("INSERT INTO processes VALUES ('shadow', 0, '', '{}')")
    living = [(os.getpid(), "r1", "shadow"), (2**22 + 1, "r2", "gone")]
    assert worst(healthy | {"living": living}, "unadopted processes").severity is Severity.OK


@pytest.mark.parametrize(
    ("days", "severity"),
    [(31, Severity.OK), (29, Severity.WARNING), (6, Severity.ERROR), (-1, Severity.ERROR)],
)
def test_certificates_that_expire_soon_are_told(
    healthy: dict[str, Any], days: int, severity: Severity
) -> None:
    facts = CertificateInspection("", expires_at=1e9 + days * 86_400, now=1e9)
    found = worst(healthy | {"certificates": facts}, "certificates")
    assert found.severity is severity
    assert "2001-" in found.message


def test_certificates_that_cannot_be_used_are_told_with_what_to_do(healthy: dict[str, Any]) -> None:
    facts = CertificateInspection("cannot use tls.crt: it expired; issue a new one", 0, 0)
    found = worst(healthy | {"certificates": facts}, "certificates")
    assert (found.severity, found.message) == (Severity.ERROR, "cannot use tls.crt: it expired")
    assert found.hint.startswith("issue a new one; ")


def test_without_certificates_nothing_is_wrong(healthy: dict[str, Any]) -> None:
    assert worst(healthy, "certificates").severity is Severity.OK
