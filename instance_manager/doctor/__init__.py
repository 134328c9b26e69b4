"""Checks for common problems on a node; each finding says what to do about it."""

from instance_manager.doctor.checks import examine
from instance_manager.doctor.facts import Facts, gather
from instance_manager.doctor.finding import Finding, Severity

__all__ = ["Facts", "Finding", "Severity", "examine", "gather"]
