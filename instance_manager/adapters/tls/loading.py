"""Loading a TLS directory, and refusing it unless everything in it is right."""

import ssl
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path

from instance_manager.adapters.tls import files, handshake
from instance_manager.core.certificates import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    Certificate,
    CertificateError,
    CertificateSet,
    find_problem,
    format_utc,
    wrong_ca,
)


class Side(StrEnum):
    """Which side of a connection shows the certificate."""

    SERVER = auto()
    CLIENT = auto()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked set of certificates."""

    certificates: CertificateSet
    certificate: Certificate
    expires_at: float
    """When the certificate or its CA expires, in seconds since the epoch."""


def load(folder: Path, side: Side, peer_name: str, now: float) -> Loaded:
    """Read a TLS directory, and check everything that a connection will require.

    Args:
        folder: the directory with the three files.
        side: which side of a connection will use the certificate.
        peer_name: a name that the certificate must carry.
        now: seconds since the epoch.

    Raises:
        CertificateError: if anything is missing, unreadable, not valid now, or does not belong together.
    """
    # What is checked here is what gRPC gets.
    certificates = files.read(folder).normalized()
    path = folder / CERTIFICATE_FILE
    certificate = _describe(certificates, folder, side)
    if wrong := find_problem(certificate, peer_name, now):
        raise CertificateError(f"cannot use {path}: {wrong}")
    ca_expires_at = _ca_expires_at(certificates, folder, now)
    server, client = _contexts(certificates)
    handshake.trust(client if side is Side.SERVER else server, certificates.ca)
    try:
        handshake.memory_handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        if handshake.is_wrong_ca(error):
            raise CertificateError(f"cannot use {path}: {wrong_ca(certificate)}") from error
        raise CertificateError(f"cannot use {path}: {handshake.explain(error)}") from error
    except ssl.SSLError as error:
        raise CertificateError(f"cannot use {path}: {error}; issue a new one") from error
    return Loaded(certificates, certificate, min(certificate.not_after, ca_expires_at))


def _describe(certificates: CertificateSet, folder: Path, side: Side) -> Certificate:
    """Return the content of the certificate, whether or not it can be trusted."""
    path, key = folder / CERTIFICATE_FILE, folder / KEY_FILE
    try:
        probe = handshake.client_context()
        handshake.trust(probe, certificates.certificate)
    except handshake.NoCertificateError as error:
        raise CertificateError(f"cannot use {path}: {_NO_CERTIFICATE}") from error
    try:
        server, client = _contexts(certificates)
    except ssl.SSLError as error:
        if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
            raise CertificateError(
                f"cannot use {key}: it is not the key of {path}; put the two there that were made together"
            ) from error
        if error.reason and error.reason.startswith(("EE_KEY", "CA_MD", "CA_KEY")):
            raise CertificateError(
                f"cannot use {path}: {_words(error.reason)}; issue a new one with a stronger key and SHA-256"
            ) from error
        raise CertificateError(
            f"cannot use {key}: it holds no private key that can be read; "
            "put it there in PEM, without passphrase"
        ) from error
    verifier = client if side is Side.SERVER else server
    handshake.trust(verifier, certificates.certificate, any_time=True)
    try:
        ends = handshake.memory_handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(f"cannot use {path}: {handshake.explain(error)}") from error
    except ssl.SSLError as error:
        raise CertificateError(f"cannot use {path}: {error}; issue a new one") from error
    end = ends[1 if side is Side.SERVER else 0]
    if not handshake.has_supported_key(end.getpeercert(binary_form=True) or b""):
        raise CertificateError(
            f"cannot use {path}: gRPC does not work with its kind of key; "
            "issue one with a key of RSA, or ECDSA on P-256 or P-384"
        )
    return handshake.parse_certificate(end.getpeercert() or {})


def _ca_expires_at(certificates: CertificateSet, folder: Path, now: float) -> float:
    """Return when the last of the CA's certificates expires, in seconds since the epoch."""
    path = folder / CA_FILE
    probe = handshake.client_context()
    try:
        handshake.trust(probe, certificates.ca)
    except handshake.NoCertificateError as error:
        raise CertificateError(f"cannot use {path}: {_NO_CERTIFICATE}") from error
    found = [handshake.parse_certificate(each) for each in probe.get_ca_certs()]
    if not found:
        # A single certificate that is trusted as it is; it is checked with the rest.
        return float("inf")
    last = max(each.not_after for each in found)
    if now > last:
        raise CertificateError(
            f"cannot use {path}: it expired on {format_utc(last)}; renew the CA and what it has signed"
        )
    first = min(each.not_before for each in found)
    if now < first:
        raise CertificateError(
            f"cannot use {path}: it is not valid before {format_utc(first)}, and this machine's clock says "
            f"{format_utc(now)}; set the clock right"
        )
    return last


def _contexts(certificates: CertificateSet) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server and a client context that use the certificate and do not check that of the other."""
    server, client = handshake.server_context(), handshake.client_context()
    handshake.load_identity(server, certificates)
    handshake.load_identity(client, certificates)
    return server, client


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()


_NO_CERTIFICATE = "it holds no certificate that can be read; put it there in PEM"
