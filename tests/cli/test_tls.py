"""The command line shows certificates, and tells what is wrong with them, on its side or the daemon's."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from instance_manager.core.certificates import PEER_NAME, CertificateSet
from tests.support.certificates import CLIENT_ONLY, Authority, expired, fill, not_yet_valid
from tests.support.cli import run
from tests.support.daemon import Daemon, running_daemon

OURS = Authority()
FOREIGN = Authority()


def replaced(**parts: bytes) -> CertificateSet:
    return dataclasses.replace(OURS.signed(), **parts)


@pytest.fixture
async def tls_daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    tls = fill(tmp_path / "daemon-tls", OURS.signed())
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--tls-dir", str(tls)) as daemon:
        yield daemon


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A directory of a client that fits."""
    return fill(tmp_path / "client-tls", OURS.signed())


async def test_with_certificates_it_talks_to_a_daemon_that_wants_them(tls_daemon: Daemon, ours: Path) -> None:
    for env, options in (
        ({}, ["--tls-dir", str(ours)]),
        ({"TLS_DIR": str(ours)}, []),
        ({"INSTANCE_MANAGER_TLS_DIR": str(ours)}, []),
    ):
        result = await run("--url", tls_daemon.url, *options, "health", env=env)
        assert (result.code, result.out, result.err) == (0, "SERVING\n", "")
    listed = await run("--url", tls_daemon.url, "--tls-dir", str(ours), "process", "list", "-o", "json")
    assert (listed.code, listed.json) == (0, {})


async def test_without_any_it_is_told_to_name_some(tls_daemon: Daemon) -> None:
    result = await run("--url", tls_daemon.url, "health")
    assert result.code == 5
    assert "it wants certificates; name a directory that has them with --tls-dir" in result.error


async def test_to_a_daemon_in_plain_text_it_says_so(tmp_path: Path, ours: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0") as daemon:
        result = await run("--url", daemon.url, "--tls-dir", str(ours), "health")
    assert result.code == 5
    assert "it does not speak TLS; start it with --tls-dir, or call it without" in result.error


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def holding(make: Callable[[], CertificateSet]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        fill(folder, make())

    return change


OUR_MISTAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing file": (without("tls.key"), "tls.key: no such file or directory; the TLS directory has to hold"),
    "wrong key": (holding(lambda: replaced(key=OURS.signed().key)), "tls.key: it is not the key of"),
    "expired": (holding(lambda: OURS.signed(**expired())), "tls.crt: it expired on"),
    "not yet valid": (holding(lambda: OURS.signed(**not_yet_valid())), "tls.crt: it is not valid before"),
    "wrong CA": (holding(lambda: replaced(ca=FOREIGN.pem)), "tls.crt: it was not signed by the CA in ca.crt"),
    "wrong name": (
        holding(lambda: OURS.signed("other.example")),
        "tls.crt: it names other.example and not longhorn-backend.longhorn-system",
    ),
}


@pytest.mark.parametrize("mistake", OUR_MISTAKES)
async def test_a_mistake_in_its_own_certificates_is_told_before_anything_is_sent(
    ours: Path, mistake: str
) -> None:
    spoil, told = OUR_MISTAKES[mistake]
    spoil(ours)
    result = await run("--url", "tcp://localhost:1", "--tls-dir", str(ours), "health")
    assert result.code == 1
    assert f"{ours}/{told}" in result.error
    assert "; " in result.error


@contextlib.asynccontextmanager
async def server(certificates: CertificateSet) -> AsyncIterator[str]:
    """Run a server without a single method, with any certificates; yields its URL."""
    serving = grpc.aio.server()
    credentials = grpc.ssl_server_credentials(
        [(certificates.key, certificates.certificate)], certificates.ca, require_client_auth=True
    )
    port = serving.add_secure_port("127.0.0.1:0", credentials)
    await serving.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        await serving.stop(None)


THEIR_MISTAKES: dict[str, tuple[Callable[[], CertificateSet], str]] = {
    "expired": (lambda: OURS.signed(**expired()), "its certificate cannot be trusted: it expired on 20"),
    "not yet valid": (
        lambda: OURS.signed(**not_yet_valid()),
        "its certificate cannot be trusted: it is not valid before 20",
    ),
    "wrong CA": (
        lambda: dataclasses.replace(FOREIGN.signed(), ca=OURS.pem),
        "its certificate cannot be trusted: it was not signed by the CA in ca.crt",
    ),
    "wrong name": (
        lambda: OURS.signed("other.example"),
        "its certificate cannot be trusted: it names other.example and not longhorn-backend.longhorn-system",
    ),
    "wrong purpose": (
        lambda: OURS.special(dns=(PEER_NAME,), usage=CLIENT_ONLY),
        "its certificate cannot be trusted: its extended key usage does not allow",
    ),
    "it trusts another CA": (
        lambda: replaced(ca=FOREIGN.pem),
        "it does not accept the certificate in our tls.crt; have it signed by the CA that the daemon has",
    ),
}


@pytest.mark.parametrize("mistake", THEIR_MISTAKES)
async def test_a_mistake_in_the_certificates_of_the_daemon_is_told(ours: Path, mistake: str) -> None:
    make, told = THEIR_MISTAKES[mistake]
    async with server(make()) as url:
        result = await run("--url", url, "--tls-dir", str(ours), "health")
    assert result.code == 5
    assert f"cannot talk to the instance manager at {url}: " in result.error
    assert told in result.error


async def test_an_address_where_nobody_listens_is_told_as_without_certificates(ours: Path) -> None:
    result = await run("--url", "tcp://localhost:1", "--tls-dir", str(ours), "health")
    assert result.code == 5
    assert "connection refused; is it running?" in result.error


async def test_an_empty_directory_of_the_environment_is_plain_text_on_this_machine_only(
    tmp_path: Path, daemon: Daemon
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    env = {"TLS_DIR": str(empty)}
    assert (await run("--url", daemon.url, "health", env=env)).out == "SERVING\n"
    for refused in (
        await run("--url", "tcp://192.0.2.1:8500", "health", env=env),
        await run("--url", daemon.url, "--tls-dir", str(empty), "health"),
    ):
        assert refused.code == 1
        assert "ca.crt: no such file" in refused.error


async def test_names_are_completed_over_tls_too(tls_daemon: Daemon, ours: Path) -> None:
    options = ["--url", tls_daemon.url, "--tls-dir", str(ours)]
    await run(*options, "process", "create", "--name", "r1", "--binary", "/bin/sleep", "--", "1000")
    words = " ".join(["instance-manager", *options, "process", "get", ""])
    env = {
        "_INSTANCE_MANAGER_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split())),
    }
    assert "r1" in (await run(env=env)).out
