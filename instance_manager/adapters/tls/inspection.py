"""What can be seen of the certificates on disk."""

import time
from dataclasses import dataclass
from pathlib import Path

from instance_manager.adapters.tls.loading import Side, load
from instance_manager.core.certificates import CertificateError


@dataclass(frozen=True, slots=True)
class CertificateInspection:
    """The state of the daemon's certificates; times are in seconds since the epoch."""

    error: str
    """Why they cannot be used; empty if they can."""
    expires_at: float
    now: float


def inspect(folder: Path, peer_name: str) -> CertificateInspection:
    """Load the certificates as the daemon would."""
    now = time.time()
    try:
        return CertificateInspection("", load(folder, Side.SERVER, peer_name, now).expires_at, now)
    except CertificateError as error:
        return CertificateInspection(str(error), 0.0, now)
