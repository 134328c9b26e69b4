"""Certificates made on the fly: TLS directories of every kind, good and bad."""

import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from instance_manager.core.certificates import PEER_NAME, CertificateSet

DAY = dt.timedelta(days=1)


def today() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Authority:
    """A CA that fills TLS directories."""

    def __init__(self) -> None:
        self.ca = trustme.CA()

    @property
    def pem(self) -> bytes:
        return self.ca.cert_pem.bytes()

    def renewed(self, *, since: dt.datetime, until: dt.datetime) -> bytes:
        """Return the CA's certificate with another validity; what it has signed stays signed."""
        made = x509.load_pem_x509_certificate(self.pem)
        builder = (
            x509.CertificateBuilder()
            .subject_name(made.subject)
            .issuer_name(made.issuer)
            .public_key(made.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
        )
        for extension in made.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        signer: Any = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def leaf(self, *names: str, **validity: Any) -> trustme.LeafCert:
        """Issue a certificate; without a name for the peer name."""
        validity = {"not_before": today() - DAY, "not_after": today() + 365 * DAY} | validity
        return self.ca.issue_cert(*(names or (PEER_NAME,)), **validity)

    def signed(self, *names: str, **validity: Any) -> CertificateSet:
        """Return what one side needs, with this CA on both ends."""
        return self.shown(self.leaf(*names, **validity))

    def shown(self, leaf: trustme.LeafCert) -> CertificateSet:
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        return CertificateSet(self.pem, chain, leaf.private_key_pem.bytes())

    def special(
        self,
        *,
        common_name: str = "",
        usage: Any = None,
        dns: tuple[str, ...] = (),
        key: Any = None,
        until: dt.datetime | None = None,
    ) -> CertificateSet:
        """Return a certificate that trustme would not issue: with a common name only, or for one purpose."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(x509.load_pem_x509_certificate(self.pem).subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today() - DAY)
            .not_valid_after(until or today() + DAY)
        )
        if dns:
            names = x509.SubjectAlternativeName([x509.DNSName(name) for name in dns])
            builder = builder.add_extension(names, critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        signer: Any = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        certificate = builder.sign(signer, hashes.SHA256())
        return CertificateSet(
            self.pem,
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def latin_1(self) -> CertificateSet:
        """Return a certificate with a DNS name in Latin-1, where only ASCII may be, beside the peer name."""
        made = self.special(dns=("gruen.example", PEER_NAME))
        plain = x509.load_pem_x509_certificate(made.certificate).tbs_certificate_bytes
        content = plain.replace(b"gruen.example", "gr\u00fcnn.example".encode("latin-1"))
        signer: Any = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        signature = b"\0" + signer.sign(content, ec.ECDSA(hashes.SHA256()))
        whole = content + _ECDSA_WITH_SHA256 + bytes([3, len(signature)]) + signature
        der = b"\x30\x82" + len(whole).to_bytes(2, "big") + whole
        return CertificateSet(made.ca, ssl.DER_cert_to_PEM_cert(der).encode(), made.key)


_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
"""The algorithm of a signature, in DER."""
SERVER_ONLY = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_ONLY = ExtendedKeyUsageOID.CLIENT_AUTH


def expired() -> dict[str, Any]:
    """The validity of a certificate that is not valid any more."""
    return {"not_before": today() - 30 * DAY, "not_after": today() - DAY}


def not_yet_valid() -> dict[str, Any]:
    """The validity of a certificate that is not valid yet."""
    return {"not_before": today() + DAY, "not_after": today() + 30 * DAY}


def with_mark(content: bytes) -> bytes:
    """Return PEM as an editor on Windows leaves it: with a byte order mark, other line ends and a comment."""
    return b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\nIssued for \xc3\xbcs \x00"


def fill(folder: Path, certificates: CertificateSet) -> Path:
    """Write a TLS directory, each file in one step as a careful operator does."""
    folder.mkdir(exist_ok=True)
    contents = {"ca.crt": certificates.ca, "tls.crt": certificates.certificate, "tls.key": certificates.key}
    for name, content in contents.items():
        fresh = folder / f".{name}"
        fresh.write_bytes(content)
        fresh.replace(folder / name)
    return folder
