"""The event log: every change once, in order, for any number of subscribers, in bounded memory.

A change is recorded as the value it led to, so a slow subscriber still reads what happened. A subscriber that
falls too far behind is cut off with an error; nobody waits for it.
"""

from collections.abc import Callable, Iterable

from instance_manager.app.broadcast import Broadcaster, Overflow
from instance_manager.app.history import DEFAULT_MEMORY, EmptyEventStore, History
from instance_manager.app.interfaces import EventStore
from instance_manager.core.change import Change
from instance_manager.core.process import Process, State

DEFAULT_BACKLOG = 8192
"""Changes a subscriber may lag behind, if they are not too long; all that lag share them."""


class EventLog(Broadcaster[Change]):
    """Numbers the changes, remembers the latest and offers each one to every subscriber."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        backlog: int = DEFAULT_BACKLOG,
        memory: int = DEFAULT_MEMORY,
        store: EventStore | None = None,
    ) -> None:
        """Start without subscribers.

        Args:
            now: returns seconds since the epoch.
            backlog: how many changes a subscriber may lag behind.
            memory: how many changes are remembered.
            store: the changes of earlier daemons.
        """
        super().__init__(backlog, Overflow.CUT_OFF, lambda change: change.weight)
        self._now = now
        self.history = History(store or EmptyEventStore(), memory)

    @property
    def revision(self) -> int:
        """The revision of the latest change."""
        return self.history.revision

    def prepare(
        self,
        process: Process,
        previous: State | None,
        endings: Iterable[bool],
        successor: str = "",
        *,
        listed: bool = True,
    ) -> list[Change]:
        """Number the next changes of a process without publishing them yet.

        Args:
            process: the process as it is now.
            previous: its state before.
            endings: one item for each change: whether the process leaves the list with it.
            successor: UUID of another process that has the name, empty if there is none.
            listed: whether the process has its name.
        """
        changes: list[Change] = []
        for revision, deleted in enumerate(endings, start=self.revision + 1):
            left_to = successor if deleted else ""
            changes.append(Change(revision, self._now(), process, previous, deleted, left_to, listed))
            previous = process.state
        return changes

    def publish(self, change: Change) -> None:
        """Record the change that was prepared next, and offer it to every subscriber."""
        self.history.add(change)
        super().publish(change)

    def repeat(self, process: Process) -> None:
        """Offer a process as it is to every subscriber, with the revision of the latest change.

        To be called when it has been given a name: it has not changed, but what the name stands for has.
        """
        self.offer(Change(self.revision, self._now(), process, process.state))
