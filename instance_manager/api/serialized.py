"""Caches of serialized messages: what many clients read is serialized once, after each change."""

from collections.abc import Callable

from instance_manager.app.supervisor import Supervisor
from instance_manager.core.change import Change
from instance_manager.core.process import Process

_CHANGES_KEPT = 1024
_BYTES_KEPT = 4 << 20
_FEW = 1024
"""Number of changed names that a list remembers before it drops those of processes that are gone."""


class SerializedChanges:
    """Serializes each change once for all watchers."""

    def __init__(self, serialize: Callable[[Change], bytes]) -> None:
        self._serialize = serialize
        self._known: dict[tuple[int, str], bytes] = {}
        """By revision and UUID: a change that is repeated may have the revision of another process's."""
        self._bytes = 0

    def get(self, change: Change) -> bytes:
        """Return the serialized message for a change."""
        key = change.revision, change.process.uuid
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._serialize(change)
            self._bytes += len(known)
            while len(self._known) > _CHANGES_KEPT or self._bytes > _BYTES_KEPT:
                self._bytes -= len(self._known.pop(next(iter(self._known))))
        return known


class SerializedProcesses:
    """Serializes each process once after each of its changes."""

    def __init__(self, supervisor: Supervisor, serialize: Callable[[Process], bytes]) -> None:
        self._supervisor = supervisor
        self._serialize = serialize
        self._known: dict[str, bytes] = {}
        supervisor.changed.observe(lambda name: self._known.pop(name, None))

    def get(self, name: str) -> bytes:
        """Return the serialized message for a process.

        Raises:
            NotFoundError: if no process has this name.
        """
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._serialize(self._supervisor.get(name))
        return known


class SerializedList:
    """A serialized list of all processes: after a change, only the changed process is serialized again."""

    def __init__(self, supervisor: Supervisor, serialize: Callable[[Process], bytes]) -> None:
        """Start with all processes; `serialize` returns a list message with only one process."""
        self._supervisor = supervisor
        self._serialize = serialize
        self._changed: set[str] = set(supervisor.processes())
        self._entries: dict[str, bytes] = {}
        self._whole: bytes | None = b""
        self._most = _FEW
        supervisor.changed.observe(self._note)

    def get(self) -> bytes:
        """Return the list."""
        for name in tuple(self._changed):
            self._whole = None
            process = self._supervisor.find(name)
            if process is None:
                self._entries.pop(name, None)
            else:
                self._entries[name] = self._serialize(process)
            # Not before: what cannot be serialized fails every list, rather than to be missing in them.
            self._changed.discard(name)
        if self._whole is None:
            # Concatenated list messages parse as one message with all their entries.
            self._whole = b"".join(self._entries.values())
        return self._whole

    def _note(self, name: str) -> None:
        """Remember that a process has changed, in bounded memory even if nobody asks for the list."""
        self._changed.add(name)
        if len(self._changed) > self._most:
            listed = self._supervisor.processes().keys() | self._entries.keys()
            self._changed &= listed
            self._most = max(_FEW, 2 * len(listed))
