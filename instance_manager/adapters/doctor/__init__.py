"""What goes wrong on a node, looked at one by one; each finding says what to do about it."""

from instance_manager.adapters.doctor.checks import CertificateFacts, Facts, Finding, Severity, examine

__all__ = ["CertificateFacts", "Facts", "Finding", "Severity", "examine"]
