"""Log files that the processes write themselves: bounded, followed for echo and for readers."""

from instance_manager.adapters.logs.echo import EchoSink
from instance_manager.adapters.logs.files import LogFiles

__all__ = ["EchoSink", "LogFiles"]
