"""A machine of its own for tests: control groups of version 2 and systemd, as on the nodes of today."""
