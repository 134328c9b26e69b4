"""The daemon: the one place where its parts are put together."""

from instance_manager.daemon.run import run
from instance_manager.daemon.settings import DaemonSettings, OnStop, TlsSettings

__all__ = ["DaemonSettings", "OnStop", "TlsSettings", "run"]
