"""Mutual TLS: when the daemon does not start, and says why."""

import asyncio
import contextlib
import dataclasses
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from instance_manager.core.certificates import CertificateSet
from tests.support.certificates import Authority, expired, fill, not_yet_valid
from tests.support.daemon import (
    BIN,
    refusal,
    running_daemon,
)
from tests.support.patience import patience

OURS = Authority()
FOREIGN = Authority()
WITHOUT_OVERRIDE = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--") if os.geteuid() == 0 else ()
)
"""To root, too, the mode of a file then means something."""


def replaced(**parts: bytes) -> CertificateSet:
    return dataclasses.replace(OURS.signed(), **parts)


def no_file(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def noise_in(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(b"\0noise")

    return change


def other(make: Callable[[], CertificateSet]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        fill(folder, make())

    return change


UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no ca.crt": (no_file("ca.crt"), "ca.crt: no such file"),
    "no tls.crt": (no_file("tls.crt"), "tls.crt: no such file"),
    "no tls.key": (no_file("tls.key"), "tls.key: no such file"),
    "noise as ca.crt": (noise_in("ca.crt"), "ca.crt: it holds no certificate"),
    "noise as tls.crt": (noise_in("tls.crt"), "tls.crt: it holds no certificate"),
    "noise as tls.key": (noise_in("tls.key"), "tls.key: it holds no private key"),
    "wrong key": (other(lambda: replaced(key=OURS.signed().key)), "is not the key of"),
    "expired": (other(lambda: OURS.signed(**expired())), "it expired on"),
    "not yet valid": (other(lambda: OURS.signed(**not_yet_valid())), "it is not valid before"),
    "wrong CA": (other(lambda: replaced(ca=FOREIGN.pem)), "it was not signed by the CA"),
    "wrong name": (other(lambda: OURS.signed("other.example")), "names other.example and not"),
}


async def ended(
    folder: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    before: tuple[str, ...] = (),
    program: tuple[str, ...] = (str(BIN),),
) -> tuple[int, str, bool]:
    """Start a daemon that must not serve; return exit code, reason, and whether a port was ever open."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    listen = [] if "--listen" in arguments else ["--listen", f"127.0.0.1:{port}"]
    paths = ["--logs-dir", str(folder / "logs"), "--state-dir", str(folder / "state")]
    process = await asyncio.create_subprocess_exec(
        *(*program, *before, "daemon", *listen, *paths, *arguments),
        env=os.environ | (env or {}),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    ending = asyncio.create_task(process.communicate())
    opened = False
    try:
        async with asyncio.timeout(patience(40)):
            while not ending.done():
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    opened = True
                    writer.close()
                await asyncio.wait([ending], timeout=0.01)
            _, err = await ending
    except TimeoutError:
        process.terminate()
        await ending
        raise AssertionError("it serves") from None
    assert process.returncode is not None
    return process.returncode, refusal(err.decode()), opened


@pytest.mark.parametrize("case", UNUSABLE)
async def test_certificates_that_cannot_be_used_end_the_start_before_a_port_is_open(
    tmp_path: Path, case: str
) -> None:
    spoil, told = UNUSABLE[case]
    tls = fill(tmp_path / "tls", OURS.signed())
    spoil(tls)
    code, reason, opened = await ended(tmp_path, "--tls-dir", str(tls))
    # Not 2, with which a guard would give up at once and take the processes with it.
    assert code == 1, reason
    assert not opened
    assert reason.startswith("cannot ")
    assert told in reason
    assert not (tmp_path / "state").exists(), "nothing else was touched before"


async def test_a_missing_directory_ends_the_start_whoever_names_it(tmp_path: Path) -> None:
    missing = str(tmp_path / "no")
    for arguments, env, before in (
        (("--tls-dir", missing), {}, ()),
        (("--tls-dir", missing, "--insecure"), {}, ()),
        ((), {}, ("--tls-dir", missing)),
        ((), {"TLS_DIR": missing}, ()),
        ((), {"INSTANCE_MANAGER_TLS_DIR": missing}, ()),
    ):
        code, reason, opened = await ended(tmp_path, *arguments, env=env, before=before)
        assert (code, opened) == (1, False)
        assert "no/ca.crt: no such file or directory; the TLS directory has to hold" in reason


async def test_an_empty_directory_of_the_environment_is_plain_text_only_with_insecure(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    env = {"TLS_DIR": str(tmp_path / "tls"), "INSTANCE_MANAGER_DAEMON_INSECURE": "true"}
    async with running_daemon(tmp_path, "--listen", "0.0.0.0:0", environment=env) as daemon:
        assert daemon.serving[-1]["tls"] is False
        assert [line for line in daemon.lines if line["event"].startswith("plain text")]
        daemon.url = daemon.url.replace("0.0.0.0", "127.0.0.1")
        async with daemon.client() as client:
            assert await client.health() == "SERVING"
    # One file is enough to say that there are to be certificates.
    (tmp_path / "tls" / "ca.crt").write_bytes(OURS.pem)
    code, reason, opened = await ended(tmp_path, env=env)
    assert (code, opened) == (1, False)
    assert "tls.crt: no such file" in reason


def locked(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).chmod(0)


def emptied(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(b"")

    return change


def nothing_but(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for each in {"ca.crt", "tls.crt", "tls.key"} - {name}:
            (folder / each).unlink()

    return change


def link_to_nothing(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        nothing_but(name)(folder)
        (folder / name).unlink()
        (folder / name).symlink_to(folder / "gone")

    return change


def directory_instead(folder: Path) -> None:
    (folder / "tls.key").unlink()
    (folder / "tls.key").mkdir()


PARTIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "only ca.crt": (nothing_but("ca.crt"), "cannot read {}/tls.crt: no such file or directory; "),
    "only tls.crt": (nothing_but("tls.crt"), "cannot read {}/ca.crt: no such file or directory; "),
    "only tls.key": (nothing_but("tls.key"), "cannot read {}/ca.crt: no such file or directory; "),
    "a link to nothing": (link_to_nothing("ca.crt"), "cannot read {}/ca.crt: no such file or directory; "),
    "a directory as tls.key": (directory_instead, "cannot read {}/tls.key: "),
    "an unreadable tls.key": (locked("tls.key"), "cannot read {}/tls.key: permission denied; let the user"),
    "an unreadable directory": (locked("."), "cannot read {}/ca.crt: permission denied; let the user"),
    "a directory that may be listed only": (
        lambda folder: folder.chmod(0o600),
        "cannot read {}/ca.crt: permission denied; let the user",
    ),
    "empty tls.crt": (emptied("tls.crt"), "cannot use {}/tls.crt: it holds no certificate"),
}
"""What an environment for plain text must not be taken for: somebody wants TLS."""


@pytest.mark.parametrize("case", PARTIAL)
async def test_files_that_are_there_in_part_are_never_taken_for_none(tmp_path: Path, case: str) -> None:
    spoil, told = PARTIAL[case]
    tls = fill(tmp_path / "tls", OURS.signed())
    spoil(tls)
    env = {"TLS_DIR": str(tls), "INSTANCE_MANAGER_DAEMON_INSECURE": "true"}
    try:
        code, reason, opened = await ended(tmp_path, env=env, program=(*WITHOUT_OVERRIDE, str(BIN)))
    finally:
        tls.chmod(0o700)
    assert (code, opened) == (1, False), reason
    assert told.format(tls) in reason


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", ""])
async def test_plain_text_beyond_this_machine_has_to_be_asked_for(tmp_path: Path, host: str) -> None:
    code, reason, opened = await ended(tmp_path, "--listen", f"{host}:0")
    assert (code, opened) == (2, False)
    for way in ("cannot serve plain text", "--tls-dir", "localhost", "--insecure"):
        assert way in reason
    assert not (tmp_path / "state").exists()
