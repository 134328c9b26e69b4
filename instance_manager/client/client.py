"""The client: all services over one connection."""

from instance_manager.client.audit import AuditCalls
from instance_manager.client.events import EventCalls
from instance_manager.client.instances import InstanceCalls
from instance_manager.client.processes import ProcessCalls
from instance_manager.client.status import StatusCalls


class Client(ProcessCalls, InstanceCalls, EventCalls, AuditCalls, StatusCalls):
    """A connection to one instance manager; use it as an asynchronous context manager."""
