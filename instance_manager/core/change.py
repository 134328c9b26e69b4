"""One change of one process, as it is published to watchers and remembered."""

from dataclasses import dataclass

from instance_manager.core.process import Process, State

_OVERHEAD = 1000
"""What a change takes beside the words of its process."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a process."""

    revision: int
    """Number of the change, increasing by one."""
    time: float
    """Seconds since the epoch."""
    process: Process
    """As it was right after the change."""
    previous: State | None
    """The state before; None for the first change of a process."""
    deleted: bool = False
    """Whether it has left the list; this is the last change with its UUID."""
    successor: str = ""
    """When it has left the list: UUID of the process that has the name now, after a replacement or a failed
    one; empty if none has it."""
    listed: bool = True
    """Whether it is, or until this change was, the process that has its name. For those who watch only: it is
    not stored."""

    @property
    def weight(self) -> int:
        """About how many bytes it takes, in memory or in a message."""
        spec = self.process.spec
        # Messages have `port_args` twice: also among the arguments.
        return _OVERHEAD + len(spec.binary) + sum(map(len, spec.args)) + 2 * sum(map(len, spec.port_args))

    @property
    def reason(self) -> str:
        """Why it changed, for people."""
        process = self.process
        if self.deleted:
            return "nothing is left of it" + "; its name belongs to another" * bool(self.successor)
        if process.error_msg:
            return process.error_msg
        if self.previous is process.state:
            return "conditions changed"
        match process.state:
            case State.STARTING:
                return "created"
            case State.RUNNING:
                return "answers on its port" if process.ports else "started"
            case State.STOPPING:
                return f"asked to end with {process.stop_signal}"
        return f"ended: {process.exit}" if process.exit else "ended"
