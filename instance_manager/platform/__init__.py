"""What several programs need of Python and Linux. The guard loads parts of it: this file stays empty."""
