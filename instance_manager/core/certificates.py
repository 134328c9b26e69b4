"""Certificates of a mutual TLS connection: what makes one unusable, and when to renew it.

Each side shows a certificate signed by a CA that the other side knows, and both certificates carry the same
name, the peer name.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, auto

from instance_manager.core.x509 import pem_blocks, to_pem

PEER_NAME = "longhorn-backend.longhorn-system"
"""The name that Longhorn's components expect in each other's certificates."""
CA_FILE = "ca.crt"
CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
FILES = (CA_FILE, CERTIFICATE_FILE, KEY_FILE)
"""The files of a TLS directory, in PEM, named as in a Kubernetes secret of type kubernetes.io/tls."""

_CERTIFICATE = "CERTIFICATE"
_CERTIFICATE_LABELS = (_CERTIFICATE, "X509 CERTIFICATE")

DAY = 86_400.0
SOON = 30 * DAY
VERY_SOON = 7 * DAY


class CertificateError(Exception):
    """The certificates cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class CertificateSet:
    """What one side needs: the contents of the three files of a TLS directory, in PEM."""

    ca: bytes
    certificate: bytes
    """Followed by the intermediate certificates, if there are any."""
    key: bytes = field(repr=False)

    def normalized(self) -> "CertificateSet":
        """Return it with nothing but PEM blocks in one form, so that all libraries read the same in it.

        Parts in which there is no block become empty.
        """
        return CertificateSet(
            _certificates_in(self.ca), _certificates_in(self.certificate), _key_in(self.key)
        )


@dataclass(frozen=True, slots=True)
class Certificate:
    """The content of a certificate. Times are in seconds since the epoch."""

    dns_names: tuple[str, ...]
    common_name: str
    issuer: str
    not_before: float
    not_after: float

    @property
    def names(self) -> tuple[str, ...]:
        """All its names: the DNS names and the common name."""
        common = (self.common_name,) if self.common_name else ()
        return tuple(dict.fromkeys((*self.dns_names, *common)))


@dataclass(frozen=True, slots=True)
class CertificateProblem:
    """What is wrong with a certificate and what to do about it; both texts call the certificate `it`."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


def _certificates_in(content: bytes) -> bytes:
    blocks = pem_blocks(content)
    return b"".join(to_pem(_CERTIFICATE, der) for label, der in blocks if label in _CERTIFICATE_LABELS)


def _key_in(content: bytes) -> bytes:
    keys = (to_pem(label, der) for label, der in pem_blocks(content) if label.endswith("PRIVATE KEY"))
    return next(keys, b"")


class Urgency(IntEnum):
    """How soon a certificate has to be renewed."""

    NONE = auto()
    SOON = auto()
    """Within 30 days."""
    VERY_SOON = auto()
    """Within 7 days."""
    EXPIRED = auto()


def matches_name(names: tuple[str, ...] | list[str], peer_name: str) -> bool:
    """Return whether one of the names is the peer name; a wildcard does not count, as it means others too.

    Nothing matches if one of them has a control character: it was made to be misread.
    """
    return peer_name.casefold() in {name.casefold() for name in names} and not any(map(_is_odd, names))


def _is_odd(name: str) -> bool:
    """Return whether a name is none: others may cut it at a NUL or a line end."""
    return not name.isprintable()


def find_problem(certificate: Certificate, peer_name: str, now: float) -> CertificateProblem | None:
    """Return what is wrong with a certificate's dates or names, None if nothing is."""
    if now < certificate.not_before:
        return CertificateProblem(
            f"it is not valid before {format_utc(certificate.not_before)}, "
            f"and the clock here says {format_utc(now)}",
            "set the clock right, or issue a certificate that is valid now",
        )
    if now > certificate.not_after:
        return CertificateProblem(
            f"it expired on {format_utc(certificate.not_after)}", "issue a new one and put it in its place"
        )
    if not matches_name(certificate.names, peer_name):
        return CertificateProblem(
            f"it names {join_names(certificate.names)} and not {peer_name}",
            f"issue one with the DNS name {peer_name} (subjectAltName), or set --tls-peer-name on both sides",
        )
    return None


def wrong_ca(certificate: Certificate) -> CertificateProblem:
    """Return the mistake for a certificate that was not signed by our CA."""
    return CertificateProblem(
        f"it was not signed by the CA in {CA_FILE}; its issuer is called {certificate.issuer or 'nothing'}",
        f"put the certificate of that issuer into {CA_FILE}, or have it signed by the CA that is there",
    )


def urgency(expires_at: float, now: float) -> Urgency:
    """Return how urgent the renewal of certificates is that expire at `expires_at`."""
    left = expires_at - now
    if left < 0:
        return Urgency.EXPIRED
    if left < VERY_SOON:
        return Urgency.VERY_SOON
    return Urgency.SOON if left < SOON else Urgency.NONE


def join_names(names: tuple[str, ...] | list[str]) -> str:
    """Return names as text: the first five, and how many more there are."""
    few = 5
    more = f" and {len(names) - few} more" if len(names) > few else ""
    return (", ".join(names[:few]) + more) or "nobody"


def format_utc(time: float) -> str:
    """Return a time, in seconds since the epoch, as text in UTC."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S} UTC"
