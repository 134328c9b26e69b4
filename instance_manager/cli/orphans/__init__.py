"""`instance-manager orphans`."""
