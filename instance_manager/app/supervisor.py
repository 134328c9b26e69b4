"""The supervisor: starts, watches and stops processes by carrying out what the lifecycle decides.

Everything that happens to a process is an event for `core.lifecycle.step`. The supervisor carries out the
effects that `step` returns, and their outcomes are events again. It runs on one event loop and never awaits
between a decision and its effects, so callers never see an intermediate state.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import structlog

from instance_manager.app.action_runner import ActionRunner
from instance_manager.app.events import EventLog
from instance_manager.app.interfaces import Journal, JournalRecord, Logs, Readiness, Spawner
from instance_manager.app.registry import DEFAULT_MAX_PROCESSES, Registry
from instance_manager.app.supervised_process import SupervisedProcess
from instance_manager.core import conditions
from instance_manager.core.errors import (
    AlreadyExistsError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from instance_manager.core.lifecycle import begin, step
from instance_manager.core.ports import PortRange
from instance_manager.core.process import (
    Action,
    ConditionObserved,
    Event,
    Process,
    Publish,
    Remove,
    SpawnFailed,
    State,
    StopRequested,
)
from instance_manager.core.spec import ProcessSpec, validate_spec
from instance_manager.platform.clock import Clock

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """Timeouts, in seconds, and limits."""

    port_range: PortRange
    stop_timeout: float = 60.0
    """From the first signal of a stop to SIGKILL."""
    ready_timeout: float = 30.0
    """From the spawn until the process must serve on its port."""
    retry_interval: float = 1.0
    """Between attempts to kill what has survived SIGKILL."""
    max_processes: int = DEFAULT_MAX_PROCESSES
    """Largest number of processes, including ended ones that are still listed."""


class Supervisor:
    """The processes of this node."""

    def __init__(
        self,
        settings: Settings,
        *,
        spawner: Spawner,
        readiness: Readiness,
        logs: Logs,
        events: EventLog,
        clock: Clock,
        journal: Journal,
        new_uuid: Callable[[], str],
    ) -> None:
        self.settings = settings
        self.events = events
        self.logs = logs
        self._spawner = spawner
        self._journal = journal
        self._new_uuid = new_uuid
        self.registry = Registry(settings.port_range, settings.max_processes)
        self.listeners: list[Callable[[str], object]] = []
        """Called at once with each name whose process has changed or been replaced by another, so that
        whatever is kept about it can be dropped. Not every such event is a `Change` in the event log."""
        self.on_empty: Callable[[], object] = lambda: None
        """Called when nothing is left of the last process."""
        self._draining = False
        self._read_only: AbstractSet[str] = frozenset()
        self._inbox: deque[tuple[SupervisedProcess, Event]] = deque()
        self._handling = False
        self.actions = ActionRunner(
            grace=settings.stop_timeout,
            ready_timeout=settings.ready_timeout,
            retry_interval=settings.retry_interval,
            spawner=spawner,
            readiness=readiness,
            logs=logs,
            clock=clock,
            report=self.handle,
        )

    # --- what callers ask for ---

    @property
    def draining(self) -> bool:
        """Whether nothing is started any more."""
        return self._draining

    @property
    def remaining(self) -> list[Process]:
        """All processes of which something is left, listed or not."""
        return [entry.process for entry in self.registry.entries()]

    def records(self) -> list[JournalRecord]:
        """Return the journal records of all processes."""
        return [self.registry.record_of(entry) for entry in self.registry.entries()]

    def processes(self) -> dict[str, Process]:
        """Return all listed processes by name."""
        return self.registry.processes()

    def find(self, name: str) -> Process | None:
        """Return the listed process with a name, None if there is none."""
        entry = self.registry.holder(name)
        return entry.process if entry else None

    def get(self, name: str) -> Process:
        """Return the listed process with a name.

        Raises:
            NotFoundError: if there is none.
        """
        return self.registry.find(name).process

    def create(self, spec: ProcessSpec) -> Process:
        """Start a process and return it in state `starting`, or `error` if it cannot be executed.

        Raises:
            InvalidArgumentError: if the spec is wrong.
            AlreadyExistsError: if the name is taken.
            PermissionDeniedError: if the binary is not allowed.
            ResourceExhaustedError: if there are too many processes, or no ports or other resources.
            UnavailableError: if the daemon is shutting down.
        """
        validate_spec(spec)
        holder = self.registry.holder(spec.name)
        if holder is not None:
            raise AlreadyExistsError(
                f"cannot create {spec.name}: a process of this name is listed ({holder.process.state}); "
                "delete it first and wait until it is gone"
            )
        return self.start(spec).process

    def delete(self, name: str, uuid: str = "") -> Process:
        """Begin to stop a process and return it; it leaves the list when nothing is left of it.

        Args:
            name: name of the process.
            uuid: if not empty, only the process with this UUID is deleted.

        Raises:
            NotFoundError: if no process has this name, or the one that has it has another UUID.
        """
        entry = self.registry.find(name)
        if uuid and entry.process.uuid != uuid:
            raise NotFoundError(
                f"cannot delete {name} with UUID {uuid}: "
                f"the process of this name has UUID {entry.process.uuid}"
            )
        self.handle(entry, StopRequested())
        return entry.process

    def observe_mounts(self, read_only_volumes: AbstractSet[str]) -> None:
        """Update the conditions for the volumes (by `conditions.volume_key`) that are mounted read-only."""
        self._read_only = read_only_volumes
        for entry in self.registry.entries():
            for name, value in conditions.observe(entry.process.name, read_only_volumes).items():
                self.handle(entry, ConditionObserved(name, value))

    def close(self) -> None:
        """Start nothing any more, but leave the running processes alone."""
        self._draining = True

    # --- for the use cases beside this one ---

    def start(self, spec: ProcessSpec, *, replaces: str = "") -> SupervisedProcess:
        """Start a process whose spec is valid.

        Args:
            spec: what to run.
            replaces: UUID of the process that it is to replace, beside which it starts unlisted; empty to
                start it listed.

        Raises:
            PermissionDeniedError: if the binary is not allowed.
            ResourceExhaustedError: if there are too many processes, or no ports or other resources.
            UnavailableError: if the daemon is shutting down.
        """
        if self.draining:
            raise UnavailableError(f"cannot create {spec.name}: the instance manager is ending")
        self._spawner.check_allowed(spec.binary)
        self.registry.check_capacity(spec)
        ports = self.registry.allocate(spec.port_count)
        process, actions = begin(
            spec, self._new_uuid(), ports, conditions.observe(spec.name, self._read_only)
        )
        entry = SupervisedProcess(process, replaces=replaces)
        self.registry.add(entry, listed=not replaces)
        # The intent is in the journal before there is a process to lose.
        self._commit(entry, None, actions)
        try:
            for action in actions:
                self._carry_out(entry, action)
        except (PermissionDeniedError, ResourceExhaustedError) as error:
            self.handle(entry, StopRequested())
            self.handle(entry, SpawnFailed(str(error)))
            raise
        return entry

    def transfer_name(self, old: SupervisedProcess, new: SupervisedProcess) -> None:
        """Give the name of a listed process to another one."""
        self.registry.transfer_name(old, new)
        # In this order: a daemon that dies in between leaves a journal with two claims, and the new one wins.
        self._journal.record(self.registry.record_of(new))
        self._journal.record(self.registry.record_of(old))
        self._notify(new.process.name)

    def resume(self, entry: SupervisedProcess, actions: Iterable[Action], events: Iterable[Event]) -> None:
        """Continue with a process of an earlier daemon."""
        actions = tuple(actions)
        self._notify(entry.process.name)
        self._commit(entry, entry.process.state, actions)
        for action in actions:
            self._carry_out(entry, action)
        for event in events:
            self.handle(entry, event)

    def handle(self, entry: SupervisedProcess, event: Event) -> None:
        """Apply an event and carry out its effects; events that these cause are handled after it."""
        self._inbox.append((entry, event))
        if self._handling:
            return
        self._handling = True
        try:
            while self._inbox:
                entry, event = self._inbox.popleft()
                before = entry.process
                entry.process, actions = step(before, event)
                if entry.process is not before:
                    self._commit(entry, before.state, actions)
                if entry.process.deleting and not before.deleting:
                    # No transition, so nothing to publish; but get and list show it from now on.
                    self._notify(entry.process.name)
                entry.on_transition()
                for action in actions:
                    self._carry_out(entry, action)
        finally:
            self._handling = False

    def _commit(self, entry: SupervisedProcess, previous: State | None, actions: Sequence[Action]) -> None:
        """Write a process to the journal and publish its changes, before its other effects are carried out.

        Whatever watchers have seen is in the journal: a daemon that dies takes nothing back.
        """
        endings = [isinstance(action, Remove) for action in actions if isinstance(action, Publish | Remove)]
        changes = self.events.prepare(entry.process, previous, endings)
        if any(endings):
            self._journal.forget(entry.process.uuid, changes)
        else:
            self._journal.record(self.registry.record_of(entry), changes)
        self.events.publish(changes)
        for change in changes:
            self._notify(change.process.name)

    def _notify(self, name: str) -> None:
        for listener in self.listeners:
            listener(name)

    # --- effects ---

    def _carry_out(self, entry: SupervisedProcess, action: Action) -> None:
        match action:
            case Publish():
                _log_state(entry.process)
            case Remove():
                self._remove(entry)
            case _:
                self.actions.run(entry, action)

    def _remove(self, entry: SupervisedProcess) -> None:
        process = entry.process
        self.registry.remove(entry)
        if entry.logs:
            self.logs.release(process.name)
        entry.on_transition()
        log.info("process deleted", name=process.name, uuid=process.uuid)
        if not self.registry.entries():
            self.on_empty()


def _log_state(process: Process) -> None:
    level = log.warning if process.error_msg else log.info
    level(
        f"process {process.state}",
        name=process.name,
        uuid=process.uuid,
        **{"pid": process.identity.pid} if process.identity else {},
        **{"exit": str(process.exit)} if process.exit else {},
        **{"reason": process.error_msg} if process.error_msg else {},
    )
