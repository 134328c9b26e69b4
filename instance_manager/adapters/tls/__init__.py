"""Certificate files: read, checked, reloaded when they are renewed, and diagnosed when a connection fails.

The content of a certificate is learnt from a TLS handshake of this program with itself, in memory, with
Python's `ssl`, which is loaded anyway: a library that parses X.509 would take 18 MiB. And a set that has
completed a handshake is known to work.
"""

from instance_manager.adapters.tls.diagnosis import Attempt, diagnose
from instance_manager.adapters.tls.files import is_empty
from instance_manager.adapters.tls.loading import Loaded, Side, load

# `keeper` is only for the daemon; clients do not load it.

__all__ = ["Attempt", "Loaded", "Side", "diagnose", "is_empty", "load"]
