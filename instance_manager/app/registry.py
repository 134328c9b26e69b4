"""The registry: which processes there are, under which names, and which ports they hold."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet

import structlog

from instance_manager.app.interfaces import JournalRecord
from instance_manager.app.supervised_process import SupervisedProcess
from instance_manager.core.errors import NotFoundError, ResourceExhaustedError
from instance_manager.core.ports import PortPool, PortRange
from instance_manager.core.process import MAX_ERROR_BYTES, Process
from instance_manager.core.spec import ProcessSpec, command_bytes

DEFAULT_MAX_PROCESSES = 4096
"""Far more than a node needs; each takes a PID, a descriptor and space in every list."""

MAX_LIST_BYTES = 4 << 20
"""Largest list of all processes: clients accept no longer message."""
_LIST_ENTRY_BYTES = 200 + MAX_ERROR_BYTES
"""What a process takes in a list beside its names and words, even if it fails: state, UUID, ports, error."""
_PORT_BYTES = 5
"""Digits of a port."""
_WORD_BYTES = 4
"""What each word takes in addition to its characters."""

log = structlog.get_logger(__name__)


def list_bytes(spec: ProcessSpec) -> int:
    """Return how many bytes a process takes at most in a list of InstanceService, the longer one."""
    # Each of port_args is there twice: as it was given, and among the arguments, with its port.
    resolved = sum(len(arg.encode(errors="surrogatepass")) + _PORT_BYTES for arg in spec.port_args)
    words = 2 + len(spec.args) + 2 * len(spec.port_args) + sum(arg.count(",") for arg in spec.port_args)
    # The name is the key of the entry, too.
    names = 2 * len(spec.name) + len(spec.volume_name.encode()) + len(spec.instance_type)
    return names + command_bytes(spec) + resolved + _WORD_BYTES * words + _LIST_ENTRY_BYTES


class Registry:
    """All processes of which something is left, listed or not, and their ports."""

    def __init__(
        self,
        span: PortRange,
        max_processes: int = DEFAULT_MAX_PROCESSES,
        port_is_free: Callable[[int], bool] = lambda _: True,
        reserved: AbstractSet[int] = frozenset(),
    ) -> None:
        """Start empty.

        Args:
            span: ports to allocate.
            max_processes: largest number of entries.
            port_is_free: tells whether no other program has a port.
            reserved: ports that are not allocated, although nobody may have them at the moment.
        """
        self._reserved = reserved
        self._max_processes = max_processes
        self._port_is_free = port_is_free
        self._held: set[int] = set()
        """Ports of the span that other programs had when they were last looked at."""
        self._pool = PortPool.of(span)
        self._list_bytes = 0
        self._entries: dict[str, SupervisedProcess] = {}
        """By UUID."""
        self._listed: dict[str, SupervisedProcess] = {}
        """By name: the processes that clients see."""

    @property
    def free_ports(self) -> int:
        """The number of free ports."""
        return self._pool.free_count

    def __contains__(self, entry: SupervisedProcess) -> bool:
        """Return whether an entry is here, listed or not."""
        return entry.process.uuid in self._entries

    def entries(self) -> list[SupervisedProcess]:
        """Return every entry, listed or not."""
        return list(self._entries.values())

    def processes(self) -> dict[str, Process]:
        """Return every listed process by name."""
        return {name: entry.process for name, entry in self._listed.items()}

    def holder(self, name: str) -> SupervisedProcess | None:
        """Return the listed entry with a name, None if the name is free."""
        return self._listed.get(name)

    def find(self, name: str) -> SupervisedProcess:
        """Return the listed entry with a name.

        Raises:
            NotFoundError: if no process has this name.
        """
        entry = self._listed.get(name)
        if entry is None:
            raise NotFoundError(
                f"cannot find a process named {name!r}: it was never created or has been deleted"
            )
        return entry

    def is_listed(self, entry: SupervisedProcess) -> bool:
        """Return whether clients see this entry under its name."""
        return self._listed.get(entry.process.name) is entry

    def record_of(self, entry: SupervisedProcess) -> JournalRecord:
        """Return the journal record of an entry."""
        return JournalRecord(entry.process, self.is_listed(entry), entry.replaces)

    def check_capacity(self, spec: ProcessSpec) -> None:
        """Check that one more process may be added.

        Raises:
            ResourceExhaustedError: if there are too many, or the list of them would be too long for clients.
        """
        if len(self._entries) >= self._max_processes:
            raise ResourceExhaustedError(
                f"cannot create {spec.name}: there are {len(self._entries)} processes and --max-processes is "
                f"{self._max_processes}; delete processes that are no longer needed or raise it"
            )
        size = self._list_bytes + list_bytes(spec)
        if size > MAX_LIST_BYTES:
            raise ResourceExhaustedError(
                f"cannot create {spec.name}: a list of all processes could have {size} bytes then, "
                f"and clients accept {MAX_LIST_BYTES}; delete processes that are no longer needed, or "
                "shorten their names, args and port_args"
            )

    def allocate(self, count: int) -> PortRange | None:
        """Allocate ports that no other program has; None if `count` is 0.

        Raises:
            ResourceExhaustedError: if there is no range wide enough.
        """
        if not count:
            return None
        self._pool, ports = self._pool.allocate(count, self._can_use)
        return ports

    def _can_use(self, port: int) -> bool:
        if port in self._reserved:
            return False
        if self._port_is_free(port):
            self._held.discard(port)
            return True
        if port not in self._held:
            self._held.add(port)
            log.warning("port left out: another program has it", port=port)
        return False

    def add(self, entry: SupervisedProcess, *, listed: bool) -> None:
        """Add an entry whose ports are allocated, under its name or, unlisted, beside the one that has it."""
        self._entries[entry.process.uuid] = entry
        self._list_bytes += list_bytes(entry.process.spec)
        if listed:
            self._listed[entry.process.name] = entry

    def take_over(self, record: JournalRecord) -> SupervisedProcess:
        """Add a process of an earlier daemon, with the name and the ports that it had.

        If two claim one name, which happens after a crash in the middle of a swap, the replacement gets it.
        """
        process = record.process
        entry = SupervisedProcess(process, replaces=record.replaces)
        holder = self.holder(process.name)
        self.add(
            entry,
            listed=record.listed and (holder is None or record.replaces == holder.process.uuid),
        )
        if process.ports is not None:
            try:
                self._pool = self._pool.reserve(process.ports)
            except ValueError as error:
                log.error("two processes claim the same ports", name=process.name, reason=str(error))  # noqa: TRY400
        return entry

    def transfer_name(self, old: SupervisedProcess, new: SupervisedProcess) -> None:
        """Give the name of a listed entry to another one.

        Raises:
            ValueError: if the old entry is not listed.
        """
        if not self.is_listed(old):
            raise ValueError(f"{old.process.name} is not listed any more")
        self._listed[old.process.name] = new

    def remove(self, entry: SupervisedProcess) -> None:
        """Remove an entry, and free its ports and, if it is listed, its name."""
        process = entry.process
        del self._entries[process.uuid]
        self._list_bytes -= list_bytes(process.spec)
        if self.is_listed(entry):
            del self._listed[process.name]
        if process.ports in self._pool.taken:
            self._pool = self._pool.release(process.ports)
