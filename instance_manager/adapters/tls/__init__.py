"""Certificate files: read, held against what a connection needs, renewed, and explained when one fails.

What a certificate says is learnt from a TLS handshake of this program with itself in memory, by Python's own
`ssl`, which is loaded anyway: a library that parses X.509 would take 18 MiB. And a set that has passed is
known to work.
"""

from instance_manager.adapters.tls.diagnosis import Attempt, diagnose
from instance_manager.adapters.tls.files import is_empty
from instance_manager.adapters.tls.loading import Loaded, Side, load

# `keeper` is for the daemon; a client does without.

__all__ = ["Attempt", "Loaded", "Side", "diagnose", "is_empty", "load"]
