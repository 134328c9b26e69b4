"""Checks for common problems on a node; each finding says what to do about it."""

from instance_manager.doctor.checks import CertificateFacts, Facts, Finding, Severity, examine

__all__ = ["CertificateFacts", "Facts", "Finding", "Severity", "examine"]
