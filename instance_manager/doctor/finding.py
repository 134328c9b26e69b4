"""What a check has found."""

from dataclasses import dataclass
from enum import StrEnum, auto


class Severity(StrEnum):
    """How bad a finding is."""

    OK = auto()
    WARNING = auto()
    ERROR = auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check."""

    check: str
    severity: Severity
    message: str
    hint: str = ""
