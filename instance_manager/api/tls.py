"""Credentials that follow renewed certificates."""

from collections.abc import Callable
from typing import Any

import grpc

from instance_manager.core.certificates import CertificateSet

Certificates = Callable[[], CertificateSet]
"""Returns the certificates in use; called by a thread of gRPC for each new connection."""


def credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Return credentials for one port; each port notices renewals by itself."""
    used = certificates()

    def newer() -> Any:  # a configuration, or None where nothing has changed
        nonlocal used
        current = certificates()
        if current is used:
            return None
        used = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used), newer, require_client_authentication=True
    )


def _configuration(certificates: CertificateSet) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.certificate)], root_certificates=certificates.ca
    )
