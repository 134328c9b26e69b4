"""The port pool: contiguous ranges out of one span, next-fit.

Next-fit, because somebody may still try to connect to a port that was just freed: it is allocated again only
after the whole span has been used.
"""

import functools
import re
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from instance_manager.core.errors import InvalidArgumentError, ResourceExhaustedError

MAX_PORT = 65535


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports from `start` to `end`, both included."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start + 1

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"


def port_range(start: int, end: int) -> PortRange:
    """Return the ports from `start` to `end`.

    Raises:
        ValueError: if this is not a range of valid ports.
    """
    if not 1 <= start <= end <= MAX_PORT:
        raise ValueError(f"no port range: {start}-{end}")
    return PortRange(start, end)


def parse_port_range(text: str) -> PortRange:
    """Read `FIRST-LAST`.

    Raises:
        InvalidArgumentError: if it is not two ports in ascending order.
    """
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*-\s*([0-9]{1,5})\s*", text)
    if match is None:
        raise InvalidArgumentError(
            f"cannot read the port range {text!r}: write FIRST-LAST, such as 10000-20000"
        )
    start, end = int(match[1]), int(match[2])
    if not 1 <= start <= end <= MAX_PORT:
        raise InvalidArgumentError(
            f"cannot use the port range {text!r}: it takes 1 <= FIRST <= LAST <= {MAX_PORT}"
        )
    return PortRange(start, end)


def join_ports(ports: Iterable[int]) -> str:
    """Return ports as text: the first ten, and how many more there are."""
    few = 10
    listed = sorted(ports)
    more = f" and {len(listed) - few} more" if len(listed) > few else ""
    return ", ".join(map(str, listed[:few])) + more


@dataclass(frozen=True, slots=True)
class PortPool:
    """The allocated ports of `span`; a value: every operation returns a new pool."""

    span: PortRange
    cursor: int
    """Where the next search starts."""
    taken: tuple[PortRange, ...] = ()
    """The allocated ranges, in ascending order, never overlapping."""

    @classmethod
    def of(cls, span: PortRange) -> "PortPool":
        """Return a pool with everything free."""
        return cls(span=span, cursor=span.start)

    @property
    def free_count(self) -> int:
        """The number of free ports."""
        return sum(len(gap) for gap in self._gaps())

    def allocate(
        self, count: int, is_free: Callable[[int], bool] = lambda _: True
    ) -> tuple["PortPool", PortRange]:
        """Allocate `count` consecutive ports in the first gap from the cursor on, wrapping around once.

        Args:
            count: number of ports.
            is_free: tells whether a port that is not allocated can be used, or another program has it.

        Raises:
            ResourceExhaustedError: if no gap is wide enough.
        """
        gaps = self._gaps()
        ahead = (PortRange(max(g.start, self.cursor), g.end) for g in gaps if g.end >= self.cursor)
        held: set[int] = set()
        is_free = functools.cache(is_free)
        for gap in (*ahead, *gaps):
            start = gap.start
            while start + count - 1 <= gap.end:
                # The last one first: the search continues behind it.
                found = next((p for p in range(start + count - 1, start - 1, -1) if not is_free(p)), None)
                if found is None:
                    return self._take(PortRange(start, start + count - 1))
                held.add(found)
                start = found + 1
        others = f" and others have {join_ports(held)}" if held else ""
        raise ResourceExhaustedError(
            f"cannot allocate {count} consecutive ports out of {self.span} "
            f"({self.free_count - len(held)} free in all{others}): "
            "delete processes that are no longer needed or widen --port-range"
        )

    def reserve(self, ports: PortRange) -> "PortPool":
        """Allocate a range that is known to be in use; it may be outside the span.

        Raises:
            ValueError: if any of it is already allocated.
        """
        if any(r.start <= ports.end and ports.start <= r.end for r in self.taken):
            raise ValueError(f"ports {ports} are handed out already")
        taken = list(self.taken)
        insort(taken, ports)
        ahead = self.cursor <= ports.end < self.span.end
        return replace(self, taken=tuple(taken), cursor=ports.end + 1 if ahead else self.cursor)

    def release(self, ports: PortRange) -> "PortPool":
        """Free an allocated range.

        Raises:
            ValueError: if exactly this range is not allocated.
        """
        kept = tuple(r for r in self.taken if r != ports)
        if len(kept) == len(self.taken):
            raise ValueError(f"ports {ports} are not handed out")
        return replace(self, taken=kept)

    def _take(self, ports: PortRange) -> tuple["PortPool", PortRange]:
        taken = list(self.taken)
        insort(taken, ports)
        cursor = ports.end + 1 if ports.end < self.span.end else self.span.start
        return replace(self, taken=tuple(taken), cursor=cursor), ports

    def _gaps(self) -> list[PortRange]:
        gaps, begin = [], self.span.start
        for used in self.taken:
            last = min(used.start - 1, self.span.end)
            if begin <= last:
                gaps.append(PortRange(begin, last))
            begin = max(begin, used.end + 1)
        if begin <= self.span.end:
            gaps.append(PortRange(begin, self.span.end))
        return gaps
