"""Slots divided among clients: who holds the fewest is next, and who holds the most gives up first.

Two levels: hosts have the same right, and so have the connections of a host.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Holder(NamedTuple):
    """Who holds slots, or waits for one."""

    host: str
    connection: str


class Share(NamedTuple):
    """How much a connection holds; what its host holds counts first."""

    of_host: int
    of_connection: int


class Holdings(Generic[Item]):
    """What each connection holds, and since when."""

    def __init__(self) -> None:
        self._items: dict[Holder, dict[Item, float]] = {}
        """The oldest item first; the connections in the order in which they began to hold something."""
        self._hosts: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def share(self, holder: Holder) -> Share:
        """Return how much a connection and its host hold."""
        return Share(self._hosts[holder.host], len(self._items.get(holder, ())))

    def add(self, holder: Holder, item: Item, now: float) -> None:
        """Let a connection hold an item."""
        self._items.setdefault(holder, {})[item] = now
        self._hosts[holder.host] += 1
        self._count += 1

    def discard(self, holder: Holder, item: Item) -> None:
        """Take an item away, if it is held."""
        items = self._items.get(holder, {})
        if items.pop(item, None) is None:
            return
        if not items:
            del self._items[holder]
        self._count -= 1
        self._hosts[holder.host] -= 1
        if not self._hosts[holder.host]:
            del self._hosts[holder.host]

    def greediest(self) -> Holder:
        """Return the connection that holds the most, of the host that holds the most."""
        return max(self._items, key=self.share)

    def poorest(self, held: "Holdings[Item]") -> Holder:
        """Return the connection that holds the least elsewhere; of several, the one that came first."""
        return min(self._items, key=held.share)

    def oldest(self, holder: Holder) -> tuple[Item, float]:
        """Return the first item of a connection, and since when it is held."""
        return next(iter(self._items[holder].items()))

    def last(self, holder: Holder) -> None:
        """Put a connection behind the others."""
        if holder in self._items:
            self._items[holder] = self._items.pop(holder)


class Slots(Generic[Item]):
    """A number of slots, those that hold them, and those that wait for one."""

    def __init__(self, slots: int, most: int, patience: float, short_patience: float) -> None:
        """Begin with no item.

        Args:
            slots: largest number of items that hold a slot.
            most: largest number of items, those that wait included.
            patience: seconds for which an item may keep its slot while others wait.
            short_patience: the same if its client holds more slots than one that waits.
        """
        self._slots = slots
        self._most = most
        self._patience = patience
        self._short_patience = short_patience
        self._all: Holdings[Item] = Holdings()
        self._held: Holdings[Item] = Holdings()
        self._waiting: Holdings[Item] = Holdings()
        """The connections in the order of their turns, among those that hold the same."""

    @property
    def held(self) -> int:
        """The number of items that hold a slot."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """The number of items that wait for one."""
        return len(self._waiting)

    def add(self, holder: Holder, item: Item, now: float) -> Item | None:
        """Let an item wait for a slot; return the one that has to go for it, if there are too many."""
        self._all.add(holder, item, now)
        self._waiting.add(holder, item, now)
        if len(self._all) <= self._most:
            return None
        greediest = self._all.greediest()
        surplus, _ = self._all.oldest(greediest)
        self.remove(greediest, surplus)
        return surplus

    def remove(self, holder: Holder, item: Item) -> None:
        """Forget an item, whether it holds a slot, waits, or is forgotten already."""
        for holdings in (self._all, self._held, self._waiting):
            holdings.discard(holder, item)

    def grant(self, now: float) -> Item | None:
        """Give a free slot to the next item that waits and return it; None if there is none of either."""
        if not self._waiting or len(self._held) >= self._slots:
            return None
        holder = self._waiting.poorest(self._held)
        item, _ = self._waiting.oldest(holder)
        self._waiting.discard(holder, item)
        self._waiting.last(holder)
        self._held.add(holder, item, now)
        return item

    def due(self) -> float | None:
        """Return when the next item has to give up its slot; None if nobody waits for it."""
        if not self._waiting or len(self._held) < self._slots:
            return None
        poorest, greediest = self._waiting.poorest(self._held), self._held.greediest()
        has_more = self._has_more(greediest, poorest)
        return self._held.oldest(greediest)[1] + (self._short_patience if has_more else self._patience)

    def give_up(self) -> Item:
        """Take its slot from the item that is due, and forget it."""
        greediest = self._held.greediest()
        item, _ = self._held.oldest(greediest)
        self.remove(greediest, item)
        self._waiting.last(greediest)
        return item

    def _has_more(self, greedy: Holder, poor: Holder) -> bool:
        """Return whether a slot has to move: for a difference of one, it would move back next time."""
        more, less = self._held.share(greedy), self._held.share(poor)
        level = int(greedy.host == poor.host)
        return less[level] == 0 < more[level] or less[level] + 1 < more[level]
