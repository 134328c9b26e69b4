"""What a person can set about orphans."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OrphanSettings:
    """Times are in seconds."""

    wait: float = 10.0
    """From the first suspicion until an instance is judged, and between two looks of their own."""
    resync: float = 300.0
    """Between two looks at everything, whatever notifications have told."""
    auto_deletion: bool = False
    grace: float = 300.0
    """How long an orphan is left alone before auto-deletion deletes it."""
    limit: int = 20
    """Orphans that may be declared within a minute; more than that are a sign of something else."""
    retry: float = 10.0
    """After something failed; doubled from failed delete to failed delete, up to `resync`."""
    poll: float = 2.0
    """Between two looks at what people have asked for."""
