"""Why a connection to a daemon fails: its certificate checked against ours."""

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass

from instance_manager.adapters.tls import handshake
from instance_manager.core.addresses import Address
from instance_manager.core.certificates import CERTIFICATE_FILE, CertificateSet, find_problem, wrong_ca


@dataclass(frozen=True, slots=True)
class Attempt:
    """A connection that failed."""

    address: Address
    ours: CertificateSet | None
    """Our certificates; None if plain text was tried."""
    peer_name: str
    """The name that both certificates must carry."""
    within: float
    """Timeout of each connection in seconds."""


def diagnose(attempt: Attempt, now: float) -> str | None:
    """Connect once more, without gRPC, and return what is wrong with the certificates of either side.

    Returns:
        What is wrong and what to do, in lower case and without a full stop; `it` is the daemon. None if
        nothing is wrong with the certificates, or if the daemon cannot be reached at all.
    """
    try:
        presented = _server_certificate(attempt)
        if attempt.ours is None:
            return presented and "it wants certificates; name a directory that has them with --tls-dir"
        if presented is None:
            return "it does not speak TLS; start it with --tls-dir, or call it without"
        return _find_problem(attempt, attempt.ours, presented, now)
    except (OSError, handshake.NoCertificateError):
        return None


def _find_problem(attempt: Attempt, ours: CertificateSet, presented: str, now: float) -> str | None:
    lenient, strict = _context(attempt), _context(attempt)
    handshake.trust(lenient, presented.encode(), any_time=True)
    handshake.trust(strict, ours.ca)
    certificate = None
    try:
        with lenient.wrap_socket(_connect(attempt)) as connection:
            certificate = handshake.parse_certificate(connection.getpeercert() or {})
        if wrong := find_problem(certificate, attempt.peer_name, now):
            return f"its certificate cannot be trusted: {wrong}"
        with strict.wrap_socket(_connect(attempt)) as connection:
            if _is_accepted(connection):
                return None
    except ssl.SSLCertVerificationError as error:
        if certificate and handshake.is_wrong_ca(error):
            return f"its certificate cannot be trusted: {wrong_ca(certificate)}"
        return f"its certificate cannot be trusted: {handshake.explain(error)}"
    return (
        f"it does not accept the certificate in our {CERTIFICATE_FILE}; have it signed by the CA that the "
        "daemon has in its ca.crt"
    )


def _is_accepted(connection: ssl.SSLSocket) -> bool:
    """Return whether the daemon accepts our certificate; it then sends the first bytes."""
    try:
        return bool(connection.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


def _server_certificate(attempt: Attempt) -> str | None:
    """Return the certificate of the server in PEM; None if it does not speak TLS."""
    context, plain = _context(attempt), _connect(attempt)
    with plain, suppress(ssl.SSLError, ConnectionError), context.wrap_socket(plain) as connection:
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")
    return None


def _context(attempt: Attempt) -> ssl.SSLContext:
    context = handshake.client_context()
    if attempt.ours is not None:
        handshake.load_identity(context, attempt.ours)
    return context


def _connect(attempt: Attempt) -> socket.socket:
    if attempt.address.path:
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.settimeout(attempt.within)
        try:
            plain.connect(attempt.address.path)
        except OSError:
            plain.close()
            raise
        return plain
    return socket.create_connection((attempt.address.host, attempt.address.port), timeout=attempt.within)
