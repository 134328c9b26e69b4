"""The settings of the search for orphans."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OrphanSettings:
    """All settings; times are in seconds."""

    confirm_delay: float = 10.0
    """From the first suspicion until an instance is judged; also between two empty lists of owners."""
    resync: float = 300.0
    """Between two full checks."""
    auto_deletion: bool = False
    grace: float = 300.0
    """How long auto-deletion leaves a new orphan alone."""
    max_per_minute: int = 20
    """Largest number of orphans declared within a minute; if there are more, something else is wrong."""
    retry: float = 10.0
    """Until something that failed is tried again; doubled with each failed delete, up to `resync`."""
    poll_interval: float = 2.0
    """Between two reads of the records, for the requests of people."""
