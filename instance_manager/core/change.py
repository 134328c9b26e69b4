"""One change of one process, as it is told to watchers and remembered."""

from dataclasses import dataclass

from instance_manager.core.process import Process, State


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a process at one moment."""

    revision: int
    """Increasing by one from change to change."""
    time: float
    """Seconds since the epoch."""
    process: Process
    """As it was right after the change."""
    previous: State | None
    """State before; None for the first change of a process."""
    deleted: bool = False
    """It has left the list; nothing more will be told about this UUID."""

    @property
    def reason(self) -> str:
        """Why it changed, in words."""
        process = self.process
        if self.deleted:
            return "nothing is left of it"
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
