"""TLS contexts from certificates in memory, handshakes between them, and the content of a certificate."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from instance_manager.core.certificates import Certificate, CertificateSet

_PARTIAL_CHAIN = ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
# Of OpenSSL's x509_vfy.h; Python has no name for it.
_NO_CHECK_TIME = 0x200000
_EXPIRED = (9, 10)
"""OpenSSL's codes for a certificate in the chain that is not valid yet, or has expired."""
_WRONG_CA = (2, 7, 18, 19, 20, 21, 24, 30)
"""OpenSSL's codes for a chain that does not lead to a certificate of the CA."""
_WRONG_PURPOSE = 26
_SUPPORTED_KEYS = tuple(
    bytes.fromhex(algorithm)
    for algorithm in (
        "300d06092a864886f70d0101010500",  # RSA
        "301306072a8648ce3d020106082a8648ce3d030107",  # ECDSA on P-256
        "301006072a8648ce3d020106052b81040022",  # ECDSA on P-384
    )
)
"""Encoded algorithms (RFC 3279, RFC 5480) of the public keys that gRPC's TLS library supports. It does not
support all of those of OpenSSL: Ed25519 and P-521, for example."""


class NoCertificateError(Exception):
    """The PEM text contains no certificate."""


def trust(context: ssl.SSLContext, pem: bytes, *, any_time: bool = False) -> None:
    """Let a context trust only the certificates in `pem`, with `any_time` regardless of their dates.

    Raises:
        NoCertificateError: if there is none, or one is damaged.
    """
    try:
        # Anything that is not ASCII can only be a comment around the certificates.
        context.load_verify_locations(cadata=pem.decode("ascii", errors="ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise NoCertificateError from error
    context.verify_mode = ssl.CERT_REQUIRED
    # As gRPC does: a CA certificate counts whether or not it is self-signed.
    context.verify_flags |= _PARTIAL_CHAIN
    if any_time:
        context.verify_flags |= _NO_CHECK_TIME


def client_context() -> ssl.SSLContext:
    """Return the context of a client that trusts any server; names are compared elsewhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def server_context() -> ssl.SSLContext:
    """Return the context of a server that asks for no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    return context


def load_identity(context: ssl.SSLContext, certificates: CertificateSet) -> None:
    """Let a context use a certificate and its key.

    Raises:
        ssl.SSLError: if the key cannot be read, or belongs to another certificate.
    """
    with _as_file(certificates.certificate) as chain, _as_file(certificates.key) as key:
        # Without a passphrase to offer, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(chain, key, password=lambda: "")


def memory_handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Carry out a handshake in memory and return both ends, the server's first.

    Raises:
        ssl.SSLError: if one side refuses the other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_side=False),
    )
    ready: set[ssl.SSLObject] = set()
    while len(ready) < len(ends):
        for end in reversed(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ready.add(end)
    return ends


def parse_certificate(decoded: dict[str, Any]) -> Certificate:
    """Return a certificate from the dictionary that `ssl` has decoded it into."""
    subject = _attributes(decoded.get("subject", ()))
    issuer = _attributes(decoded.get("issuer", ()))
    return Certificate(
        dns_names=tuple(name for kind, name in decoded.get("subjectAltName", ()) if kind == "DNS"),
        common_name=subject.get("commonName", ""),
        issuer=issuer.get("commonName", "") or ", ".join(issuer.values()),
        not_before=ssl.cert_time_to_seconds(decoded["notBefore"]),
        not_after=ssl.cert_time_to_seconds(decoded["notAfter"]),
    )


def has_supported_key(der: bytes) -> bool:
    """Return whether gRPC supports the kind of key of a certificate."""
    return any(algorithm in der for algorithm in _SUPPORTED_KEYS)


def is_wrong_ca(error: ssl.SSLCertVerificationError) -> bool:
    """Return whether a certificate was refused because it was not signed by the CA."""
    return error.verify_code in _WRONG_CA


def explain(error: ssl.SSLCertVerificationError) -> str:
    """Return why a certificate was refused, other than for its CA, and what to do."""
    if error.verify_code == _WRONG_PURPOSE:
        return (
            "its extended key usage does not allow this side of a connection; "
            "issue one for both serverAuth and clientAuth"
        )
    if error.verify_code in _EXPIRED:
        return f"one that vouches for it is not valid: {error.verify_message}; renew the whole chain"
    return f"{error.verify_message}; issue a new one"


def _attributes(name: Any) -> dict[str, str]:
    return {kind: value for part in name for kind, value in part}


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Provide bytes as a file in memory, as `ssl` only reads files, and those on disk may have changed."""
    fd = os.memfd_create("certificates", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
