"""The composition root of the daemon: puts its parts together, starts and stops them."""

from instance_manager.daemon.run import run
from instance_manager.daemon.settings import ContainmentChoice, DaemonSettings, OnStop, TlsSettings

__all__ = ["ContainmentChoice", "DaemonSettings", "OnStop", "TlsSettings", "run"]
