"""Opening gRPC channels, in plain text or with certificates."""

from collections.abc import Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from instance_manager.core.certificates import CertificateSet


class Certificates(Protocol):
    """Certificates that are renewed now and then."""

    peer_name: str
    """The name that the certificate of the other side must carry, whatever its address."""

    @property
    def current(self) -> CertificateSet:
        """What to show and to trust now: the same value until it is renewed."""


def open_channel(
    target: str, options: Sequence[tuple[str, Any]], tls: CertificateSet | None, peer_name: str = ""
) -> grpc.aio.Channel:
    """Return a channel, which connects with the first call.

    Args:
        target: as gRPC writes it.
        options: of gRPC.
        tls: certificates to show and to trust; None for plain text.
        peer_name: the name in the certificate of the other side.
    """
    if tls is None:
        return grpc.aio.insecure_channel(target, options=tuple(options))
    tls = tls.normalized()
    presented = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    override = ("grpc.ssl_target_name_override", peer_name)
    return grpc.aio.secure_channel(target, presented, options=(*options, override))


def shown_to(target: str, certificates: Certificates | None) -> CertificateSet | None:
    """Return the certificates for a target; none for a Unix socket, which has an owner instead."""
    return None if certificates is None or target.startswith("unix:") else certificates.current
