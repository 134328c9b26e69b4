"""Certificates renewed on disk are taken into use if they are good; what is in use stays if they are not."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from instance_manager.adapters.tls import files
from instance_manager.adapters.tls import reloader as reloading
from instance_manager.adapters.tls.reloader import CertificateReloader
from instance_manager.core.certificates import PEER_NAME, CertificateError
from instance_manager.platform.background import Background
from tests.support.certificates import DAY, Authority, expired, fill, not_yet_valid, today
from tests.support.patience import patience

OURS = Authority()


class Now:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = today().timestamp()

    def __call__(self) -> float:
        return self.time


class Kept:
    """A keeper of a directory that starts with a good set."""

    def __init__(self, folder: Path, **validity: Any) -> None:
        self.first = OURS.signed(**validity)
        self.folder = fill(folder / "tls", self.first)
        self.now = Now()
        self.reloader = CertificateReloader(self.folder, PEER_NAME, self.now)
        self.reloader.open()

    def looked(self, times: int = 1) -> list[Any]:
        with capture_logs() as logs:
            for _ in range(times):
                self.reloader.look()
        return list(logs)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_the_first_set_has_to_be_good(tmp_path: Path) -> None:
    with pytest.raises(CertificateError):
        CertificateReloader(tmp_path, PEER_NAME, Now()).open()


def test_a_good_newer_set_is_used_from_the_next_look_on(kept: Kept) -> None:
    assert kept.looked() == []
    newer = Authority().signed(not_after=today() + 100 * DAY)
    fill(kept.folder, newer)
    (line,) = kept.looked()
    assert (line["event"], line["log_level"]) == ("certificates renewed", "info")
    assert kept.reloader.current == newer
    assert kept.reloader.renewals == 1
    assert abs(kept.reloader.expires_at - (today() + 100 * DAY).timestamp()) < 60
    assert kept.looked() == []


def test_a_directory_swapped_by_a_link_as_in_kubernetes_is_noticed(tmp_path: Path) -> None:
    data = tmp_path / "..data"
    data.symlink_to(fill(tmp_path / "one", OURS.signed()))
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    reloader = CertificateReloader(tmp_path, PEER_NAME, Now())
    reloader.open()
    newer = OURS.signed()
    fresh = tmp_path / "..fresh"
    fresh.symlink_to(fill(tmp_path / "two", newer))
    fresh.replace(data)
    reloader.look()
    assert reloader.current == newer


def test_a_set_that_is_half_written_is_not_told_if_it_is_whole_at_the_next_look(kept: Kept) -> None:
    newer = OURS.signed()
    (kept.folder / "tls.crt").write_bytes(newer.certificate)
    assert kept.looked() == []
    assert kept.reloader.last_error == ""
    assert kept.reloader.current == kept.first
    (kept.folder / "tls.key").write_bytes(newer.key)
    assert [line["event"] for line in kept.looked()] == ["certificates renewed"]
    assert kept.reloader.current == newer


def test_a_set_that_stays_broken_is_told_once_and_the_last_good_one_kept(kept: Kept) -> None:
    (kept.folder / "tls.key").write_bytes(b"noise")
    (line,) = kept.looked(10)
    assert line["log_level"] == "error"
    assert "tls.key" in line["reason"]
    assert "tls.key" in kept.reloader.last_error
    assert not kept.reloader.healthy
    assert kept.reloader.current == kept.first
    # Another mistake is told again, and once it is good it is used.
    (kept.folder / "tls.key").unlink()
    assert "no such file" in kept.looked(10)[0]["reason"]
    fill(kept.folder, kept.first)
    assert kept.looked(3) == []
    assert kept.reloader.healthy


def test_an_expired_set_does_not_replace_a_good_one(kept: Kept) -> None:
    fill(kept.folder, OURS.signed(**expired()))
    kept.looked(3)
    assert kept.reloader.current == kept.first
    assert "expired" in kept.reloader.last_error


def test_a_set_for_later_is_used_when_its_time_has_come(kept: Kept) -> None:
    later = OURS.signed(**not_yet_valid())
    fill(kept.folder, later)
    assert len(kept.looked(5)) == 1
    assert kept.reloader.current == kept.first
    # The clock of the keeper alone is moved, so only what it looks at itself can be held here.
    kept.now.time += 2 * DAY.total_seconds()
    kept.looked()
    assert "not valid before" not in kept.reloader.last_error


@pytest.mark.parametrize(
    ("days", "told"),
    [(31, []), (29, ["warning"]), (6, ["warning"]), (0, ["warning"]), (-1, ["error"])],
)
def test_it_warns_before_the_end(tmp_path: Path, days: int, told: list[str]) -> None:
    kept = Kept(tmp_path, not_after=today() + 40 * DAY)
    kept.now.time = kept.reloader.expires_at - days * DAY.total_seconds() - 60
    assert [line["log_level"] for line in kept.looked(5)] == told
    assert kept.reloader.healthy == (days >= 0)


def test_it_warns_again_every_day_and_at_once_when_it_gets_urgent(tmp_path: Path) -> None:
    kept = Kept(tmp_path, not_after=today() + 40 * DAY)
    hour = 3600
    start = kept.reloader.expires_at - 32 * 24 * hour
    warned = []
    for hours in range(33 * 24):
        kept.now.time = start + hours * hour
        if kept.looked():
            warned.append((kept.reloader.expires_at - kept.now.time) / (24 * hour))
    assert len(warned) == 31  # one a day, the last of them after the end
    assert max(warned) < 30
    assert any(6.9 < left < 7 for left in warned)


async def test_it_looks_by_itself_and_reports_when_that_changes_whether_all_is_well(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "LOOK_SECONDS", 0.01)
    reports: asyncio.Queue[bool] = asyncio.Queue()
    kept.reloader.follow(reports.put_nowait, Background())
    async with asyncio.timeout(patience(20)):
        assert await reports.get() is True
        (kept.folder / "ca.crt").write_bytes(b"")
        assert await reports.get() is False
        fill(kept.folder, kept.first)
        assert await reports.get() is True
    kept.reloader.close()


@pytest.mark.parametrize("error", [UnicodeError("not ASCII"), KeyError("notAfter"), None])
async def test_a_renewed_certificate_that_no_library_expects_ends_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    monkeypatch.setattr(reloading, "LOOK_SECONDS", 0.01)
    background = Background()
    reports: asyncio.Queue[bool] = asyncio.Queue()
    kept.reloader.follow(reports.put_nowait, background)
    async with asyncio.timeout(patience(20)):
        assert await reports.get() is True
        with monkeypatch.context() as patch:
            if error is not None:

                def fail(*_: object) -> None:
                    raise error

                patch.setattr(reloading, "load", fail)
            fill(kept.folder, OURS.signed() if error is not None else OURS.latin_1())
            assert await reports.get() is False
            assert kept.reloader.current == kept.first
            assert kept.reloader.failures == 1
            assert "cannot use" in kept.reloader.last_error
        newer = OURS.signed()
        fill(kept.folder, newer)
        assert await reports.get() is True
    assert kept.reloader.current == newer
    assert background.works[reloading.WORK].error == ""
    await background.close()


async def test_a_look_for_which_no_descriptor_is_left_is_not_the_last(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "LOOK_SECONDS", 1000)
    background = Background()
    kept.reloader.follow(lambda _: None, background)

    def fail(_: Path) -> files.Fingerprint:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(files, "fingerprint", fail)
        kept.reloader.look_now()
    assert kept.reloader.current == kept.first
    newer = OURS.signed()
    fill(kept.folder, newer)
    kept.reloader.look_now()
    assert kept.reloader.current == newer
    await background.close()
