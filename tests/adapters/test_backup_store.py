"""Backups are looked at by the program of an engine, which alone gets the credentials."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instance_manager.adapters import backup_store
from instance_manager.adapters.backup_store import BackupInspection
from instance_manager.core.backups import BackupVolume
from instance_manager.core.errors import NotFoundError, UpstreamError
from instance_manager.platform.commands import Output
from tests.support.patience import patience

URL = "vfs:///b?backup=b1&volume=vol1"
GOOD = """echo '{"Name": "b1", "VolumeName": "vol1", "VolumeSize": "16777216"}'"""
Store = Callable[..., BackupInspection]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store whose engine `e` is a script."""

    def make(script: str, seconds: float = patience(30.0), **limits: Any) -> BackupInspection:
        program = tmp_path / "longhorn"
        program.write_text(
            f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nenv > {tmp_path}/variables\n{script}\n'
        )
        program.chmod(0o755)

        def binary(name: str) -> str:
            if name != "e":
                raise NotFoundError(f"cannot find a process named {name!r}")
            return str(program)

        return BackupInspection(binary, seconds, **limits)

    return make


async def failure(store: BackupInspection, engine: str = "e", url: str = URL) -> str:
    with pytest.raises(UpstreamError) as error:
        await store.volume(engine, url, {})
    return str(error.value)


async def test_the_volume_of_a_backup_is_told(store: Store, tmp_path: Path) -> None:
    assert await store(GOOD).volume("e", URL, {}) == BackupVolume("vol1", 16 << 20)
    assert (tmp_path / "arguments").read_text() == f"backup inspect {URL}\n"


async def test_credentials_are_in_the_environment_of_the_program_alone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CERT", "of-the-daemon")
    before = dict(os.environ)
    await store(GOOD).volume("e", URL, {"AWS_SECRET_ACCESS_KEY": "hunter2"})
    variables = (tmp_path / "variables").read_text()
    assert "AWS_SECRET_ACCESS_KEY=hunter2" in variables
    assert "of-the-daemon" not in variables
    assert "hunter2" not in (tmp_path / "arguments").read_text()
    assert dict(os.environ) == before
    await store(GOOD).volume("e", URL, {})
    assert "hunter2" not in (tmp_path / "variables").read_text()


@pytest.mark.parametrize("key", ["AWS_CERT", "AZBLOB_CERT"])
@pytest.mark.parametrize("length", [131_000, 131_072, 2 << 20])
async def test_certificates_may_be_longer_than_an_environment_takes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, length: int
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    script = f'(printf %s "$AWS_CERT$AZBLOB_CERT"; cat $SSL_CERT_FILE /dev/null) > {tmp_path}/told'
    certificates = "c" * length
    told = await store(f"{script}; {GOOD}").volume("e", URL, {key: certificates, "AWS_ENDPOINTS": "there"})
    assert told == BackupVolume("vol1", 16 << 20)
    assert (tmp_path / "told").read_text() == certificates
    assert "AWS_ENDPOINTS=there" in (tmp_path / "variables").read_text()


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo cannot find b1 in backupstore; exit 1", "cannot find b1 in backupstore"),
        ("echo level=info >&2; echo 'driver  is not supported' >&2; exit 1", "driver  is not supported"),
        ("exit 0", "cannot read what"),
        ("echo no json", "cannot read what"),
        ("echo []", "cannot read what"),
        ("echo '{}'", "cannot read what"),
        ("""echo '{"VolumeSize": "many"}'""", "cannot read what"),
        ("""echo '{"VolumeSize": null}'""", "cannot read what"),
        ("""echo '{"VolumeSize": "-1"}'""", "cannot read what"),
        ("""echo '{"VolumeSize": " 1_0"}'""", "cannot read what"),
        ("""echo '{"VolumeSize": true}'""", "cannot read what"),
        ("""echo '{"VolumeSize": 1.5}'""", "cannot read what"),
    ],
)
async def test_a_backup_that_cannot_be_looked_at_says_why(store: Store, script: str, text: str) -> None:
    told = await failure(store(script))
    assert told.startswith(text)
    assert "\n" not in told


async def test_a_program_that_hangs_is_given_up(store: Store) -> None:
    assert "no answer within 0.3 s" in await failure(store("exec sleep 1000", 0.3))


async def test_an_engine_that_is_not_here_has_no_program(store: Store) -> None:
    assert await failure(store(GOOD), engine="f") == "cannot find a process named 'f'"


@pytest.mark.parametrize("url", ["", "-x", "--help"])
async def test_an_option_is_no_url(store: Store, url: str, tmp_path: Path) -> None:
    assert "it is no URL" in await failure(store(GOOD), url=url)
    assert not (tmp_path / "arguments").exists()


async def test_only_so_many_programs_run_at_once_and_others_wait(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[asyncio.Event] = []
    begun: list[int] = []

    async def run(*_: object) -> Output:
        running.append(asyncio.Event())
        begun.append(len(running))
        await running[-1].wait()
        return Output('{"VolumeSize": "1"}', "")

    monkeypatch.setattr(backup_store, "run_checked", run)
    made = store(GOOD, most=2, waiting=patience(30.0))
    looks = {asyncio.create_task(made.volume("e", URL, {})) for _ in range(5)}
    while looks:
        await asyncio.sleep(0)
        if running:
            running.pop(0).set()
            done, looks = await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
            assert {look.result() for look in done} == {BackupVolume("", 1)}
    assert (len(begun), max(begun)) == (5, 2)


async def test_one_that_waits_for_too_long_says_for_what(store: Store) -> None:
    made = store("exec sleep 1000", most=1, waiting=0.2)
    first = asyncio.create_task(made.volume("e", URL, {}))
    await asyncio.sleep(0)
    told = await failure(made)
    assert told.startswith(
        "cannot look at the backup: 1 others are being looked at, which is the most at once"
    )
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert "cannot read what" in await failure(store("exit 0", most=1))
