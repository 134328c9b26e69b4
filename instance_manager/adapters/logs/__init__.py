"""Log files that the processes write themselves: bounded, echoed and streamed."""

from instance_manager.adapters.logs.files import LogFiles

__all__ = ["LogFiles"]
