"""Checks for common problems on a node; each finding says what to do about it."""

from instance_manager.doctor.checks import Finding, Severity, examine
from instance_manager.doctor.facts import Facts, gather

__all__ = ["Facts", "Finding", "Severity", "examine", "gather"]
