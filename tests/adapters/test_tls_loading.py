"""A TLS directory is taken only if everything in it fits, and what does not is told with what to do."""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from instance_manager.adapters.tls import Loaded, Side, is_empty, load
from instance_manager.core.certificates import PEER_NAME, CertificateError, CertificateSet
from tests.support.certificates import (
    CLIENT_ONLY,
    DAY,
    SERVER_ONLY,
    Authority,
    expired,
    fill,
    not_yet_valid,
    today,
)

OURS = Authority()
FOREIGN = Authority()


def loaded(folder: Path, side: Side = Side.SERVER) -> Loaded:
    return load(folder, side, PEER_NAME, time.time())


def refusal(folder: Path, side: Side = Side.SERVER) -> str:
    with pytest.raises(CertificateError) as caught:
        loaded(folder, side)
    message = str(caught.value)
    assert message.startswith("cannot ")
    assert ";" in message, "it says what to do"
    assert "\n" not in message
    assert b"PRIVATE" not in message.encode()
    return message


def replaced(**parts: bytes) -> CertificateSet:
    return dataclasses.replace(OURS.signed(), **parts)


@pytest.mark.parametrize("side", Side)
def test_a_good_set_is_loaded_with_what_it_says(tmp_path: Path, side: Side) -> None:
    end = today() + 90 * DAY
    certificates = OURS.signed(PEER_NAME, "127.0.0.1", common_name="a", not_after=end)
    found = loaded(fill(tmp_path, certificates), side)
    assert found.certificates == certificates
    assert found.certificate.names == (PEER_NAME, "a")
    assert abs(found.expires_at - end.timestamp()) < 2


def test_a_chain_with_an_intermediate_and_comments_around_it_is_good(tmp_path: Path) -> None:
    leaf = OURS.ca.create_child_ca().issue_cert(PEER_NAME)
    chain = "# Zertifikat für den Knoten\n".encode() + b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    loaded(fill(tmp_path, CertificateSet(OURS.pem, chain, leaf.private_key_pem.bytes())))


def test_a_second_ca_beside_the_right_one_is_good(tmp_path: Path) -> None:
    loaded(fill(tmp_path, replaced(ca=FOREIGN.pem + OURS.pem)))


def test_a_name_in_the_common_name_alone_is_good(tmp_path: Path) -> None:
    assert loaded(fill(tmp_path, OURS.special(common_name=PEER_NAME))).certificate.names == (PEER_NAME,)


@pytest.mark.parametrize("name", ["ca.crt", "tls.crt", "tls.key"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = fill(tmp_path / "tls", OURS.signed())
    (folder / name).unlink()
    assert f"{folder / name}: no such file" in refusal(folder)


@pytest.mark.parametrize("name", ["ca.crt", "tls.crt", "tls.key"])
@pytest.mark.parametrize(
    "content", [b"", b"\0\xff noise", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"x" * (2 << 20)]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    folder = fill(tmp_path / "tls", OURS.signed())
    (folder / name).write_bytes(content)
    assert str(folder / name) in refusal(folder)


@pytest.mark.parametrize("name", ["ca.crt", "tls.crt", "tls.key"])
def test_a_file_cut_off_in_the_middle_is_named(tmp_path: Path, name: str) -> None:
    folder = fill(tmp_path / "tls", OURS.signed())
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) * 2 // 3])
    assert str(folder / name) in refusal(folder)


@pytest.mark.parametrize("name", ["ca.crt", "tls.crt", "tls.key"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_named_and_does_not_stop_the_start(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    folder = fill(tmp_path / "tls", OURS.signed())
    (folder / name).unlink()
    make(folder / name)
    assert str(folder / name) in refusal(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not read")
def test_a_file_that_must_not_be_read_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "tls", OURS.signed())
    (folder / "tls.key").chmod(0o000)
    for parent in (folder, *folder.parents):
        if parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        message = refusal(folder)
    finally:
        os.seteuid(0)
    assert f"{folder / 'tls.key'}: permission denied" in message


MISTAKES: dict[str, tuple[Callable[[], CertificateSet], list[str]]] = {
    "wrong key": (lambda: replaced(key=OURS.signed().key), ["tls.key: it is not the key of"]),
    "expired": (lambda: OURS.signed(**expired()), ["tls.crt: it expired on 20", "issue a new one"]),
    "not yet valid": (
        lambda: OURS.signed(**not_yet_valid()),
        ["tls.crt: it is not valid before 20", "set the clock right"],
    ),
    "wrong CA": (
        lambda: replaced(ca=FOREIGN.pem),
        ["tls.crt: it was not signed by the CA in ca.crt", "put the certificate of that issuer"],
    ),
    "wrong name": (
        lambda: OURS.signed("node-1.example", "127.0.0.1"),
        ["tls.crt: it names node-1.example and not longhorn-backend", "--tls-peer-name"],
    ),
    "wildcard": (lambda: OURS.signed("*.longhorn-system"), ["it names *.longhorn-system and not longhorn"]),
    "no name": (lambda: OURS.special(dns=()), ["it names nobody and not longhorn-backend"]),
    "self-signed": (lambda: replaced(certificate=FOREIGN.pem), ["tls.key: it is not the key of"]),
    "leaf as CA": (lambda: replaced(ca=FOREIGN.signed().certificate), ["it was not signed by the CA"]),
}


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_told_with_what_to_do(tmp_path: Path, mistake: str, side: Side) -> None:
    make, told = MISTAKES[mistake]
    message = refusal(fill(tmp_path, make()), side)
    for part in told:
        assert part in message


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(tmp_path: Path) -> None:
    encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + OURS.signed().key.split(b"\n", 1)[1]
    assert "without passphrase" in refusal(fill(tmp_path, replaced(key=encrypted)))


def test_a_certificate_for_clients_only_is_refused_for_a_server_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    for usage, fits, other in (
        (CLIENT_ONLY, Side.CLIENT, Side.SERVER),
        (SERVER_ONLY, Side.SERVER, Side.CLIENT),
    ):
        folder = fill(tmp_path, OURS.special(dns=(PEER_NAME,), usage=usage))
        loaded(folder, fits)
        assert "extended key usage" in refusal(folder, other)


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP521R1())]
)
def test_a_key_with_which_grpc_would_refuse_everybody_is_refused_at_once(tmp_path: Path, key: Any) -> None:
    assert "kind of key" in refusal(fill(tmp_path, OURS.special(dns=(PEER_NAME,), key=key)))


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())]
)
def test_the_usual_keys_are_good(tmp_path: Path, key: Any) -> None:
    loaded(fill(tmp_path, OURS.special(dns=(PEER_NAME,), key=key)))


def test_another_peer_name_is_held_against_the_certificate(tmp_path: Path) -> None:
    folder = fill(tmp_path, OURS.signed("storage.example"))
    found = load(folder, Side.SERVER, "Storage.Example", time.time())
    assert found.certificate.names == ("storage.example",)


def test_a_directory_is_empty_only_without_any_of_the_files(tmp_path: Path) -> None:
    assert is_empty(tmp_path)
    assert is_empty(tmp_path / "no")
    (tmp_path / "tls.key").symlink_to("nowhere")
    assert not is_empty(tmp_path)


def test_loading_leaves_no_descriptor_open(tmp_path: Path) -> None:
    folder = fill(tmp_path, OURS.signed())
    loaded(folder)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        loaded(folder)
    assert len(list(descriptors.iterdir())) == before


def test_a_set_expires_with_its_ca_if_that_expires_first(tmp_path: Path) -> None:
    until = (today() + 5 * DAY).replace(microsecond=0)
    ca = OURS.renewed(since=today() - DAY, until=until)
    assert loaded(fill(tmp_path, replaced(ca=ca))).expires_at == until.timestamp()


@pytest.mark.parametrize("side", Side)
def test_a_ca_out_of_its_time_is_told_as_such(tmp_path: Path, side: Side) -> None:
    gone = OURS.renewed(since=today() - 9 * DAY, until=today() - DAY)
    message = refusal(fill(tmp_path / "gone", replaced(ca=gone)), side)
    assert "ca.crt: it expired on 20" in message
    assert "renew the CA" in message
    coming = OURS.renewed(since=today() + DAY, until=today() + 9 * DAY)
    message = refusal(fill(tmp_path / "coming", replaced(ca=coming)), side)
    assert "ca.crt: it is not valid before 20" in message
