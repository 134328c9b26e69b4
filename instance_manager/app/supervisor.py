"""The supervisor: starts, watches and stops processes by running the actions that the lifecycle decides on.

Everything that happens to a process is an event for `core.lifecycle.step`. The supervisor records the process
as it is then and runs the actions that `step` returns; their outcomes are events again. It runs on one event
loop and never awaits between a decision and its actions, so callers never see an intermediate state.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import structlog

from instance_manager.app.action_runner import ActionRunner
from instance_manager.app.broadcast import Broadcaster
from instance_manager.app.events import EventLog
from instance_manager.app.interfaces import Journal, JournalRecord, Logs, Readiness, Spawner
from instance_manager.app.registry import DEFAULT_MAX_PROCESSES, Registry
from instance_manager.app.supervised_process import SupervisedProcess, Waiting
from instance_manager.core import conditions
from instance_manager.core.actions import Action, Remove
from instance_manager.core.errors import (
    AlreadyExistsError,
    NotFoundError,
    UnavailableError,
)
from instance_manager.core.events import ConditionObserved, Event, SpawnFailed, StopRequested
from instance_manager.core.lifecycle import begin, step
from instance_manager.core.ports import PortRange
from instance_manager.core.process import Body, Process, State
from instance_manager.core.spec import ProcessSpec, validate_spec
from instance_manager.platform.clock import Cancellable, Clock

log = structlog.get_logger(__name__)

GIVE_UP_DELAY = 5.0
"""Seconds after the grace period of a shutdown until processes that remain are given up."""

_STOPPED_AT_ONCE = 16
"""Processes asked to end in one round of the event loop."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Timeouts, in seconds, and limits."""

    port_range: PortRange
    stop_timeout: float = 60.0
    """From the first signal of a stop to SIGKILL."""
    ready_timeout: float = 600.0
    """From the spawn until the process must serve on its port; an engine does when its replicas are open."""
    replace_timeout: float = 30.0
    """The same for one that is to replace another, and whose caller waits."""
    reserved_ports: AbstractSet[int] = frozenset()
    """Ports that are never handed out: the daemon's own."""
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
        port_is_free: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self.settings = settings
        self.events = events
        self.logs = logs
        self._spawner = spawner
        self._journal = journal
        self._new_uuid = new_uuid
        self.registry = Registry(
            settings.port_range, settings.max_processes, port_is_free, settings.reserved_ports
        )
        self.changed: Broadcaster[str] = Broadcaster()
        """Names whose process has changed or been replaced by another, for cache invalidation. Not every one
        is a `Change` in the event log."""
        self._ended = asyncio.Event()
        """Set during a shutdown when no process remains, or those that remain have been given up."""
        self._give_up_timer: Cancellable | None = None
        self._clock = clock
        self._draining = False
        self._read_only: AbstractSet[str] = frozenset()
        self._inbox: deque[tuple[SupervisedProcess, Event]] = deque()
        self._handling = False
        self._actions = ActionRunner(
            grace=settings.stop_timeout,
            ready_within=self._ready_within,
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

    def waiting(self, name: str) -> Waiting | None:
        """Return for what the listed process with a name is waited for; None if it is not."""
        entry = self.registry.holder(name)
        return entry.waiting if entry else None

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
                f"cannot create {spec.name}: a process of this name already exists ({holder.process.state}); "
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
                f"cannot find a process named {name!r} with UUID {uuid}: "
                f"the one of this name has UUID {entry.process.uuid}"
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

    async def shutdown(self, grace: float) -> list[Process]:
        """Start nothing any more, and stop all processes in parallel.

        Args:
            grace: seconds until SIGKILL; processes that remain `GIVE_UP_DELAY` later are given up.

        Returns:
            The processes that could not be stopped.
        """
        # `force_shutdown` may have been called before.
        grace = min(grace, self._actions.grace) if self._draining else grace
        self.close()
        self._actions.grace = grace
        if entries := self.registry.entries():
            self._ended.clear()
            self._give_up_in(grace + GIVE_UP_DELAY)
            for number, entry in enumerate(entries, 1):
                self._stop_within_grace(entry)
                if number % _STOPPED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            await self._ended.wait()
        if self._give_up_timer is not None:
            self._give_up_timer.cancel()
        return self.remaining

    def _stop_within_grace(self, entry: SupervisedProcess) -> None:
        if entry not in self.registry:
            return  # it has ended meanwhile
        self.handle(entry, StopRequested())
        # Only the first wait depends on the grace period; a process that was killed is retried soon.
        if entry.timer is not None and not entry.process.killed:
            self._actions.start_timer(entry, self._actions.grace)

    def hurry(self, entry: SupervisedProcess, grace: float) -> None:
        """Give a process that is being stopped at most some more seconds until it is killed."""
        if entry.timer is not None and not entry.process.killed and grace < self._actions.grace:
            self._actions.start_timer(entry, grace)

    def force_shutdown(self) -> None:
        """During a shutdown, or just before it: kill at once instead of waiting for the grace period."""
        self.close()
        self._actions.grace = 0
        self._give_up_in(GIVE_UP_DELAY)
        for entry in self.registry.entries():
            if entry.timer is not None:
                self._actions.start_timer(entry, 0)

    def _give_up_in(self, seconds: float) -> None:
        if self._give_up_timer is not None:
            self._give_up_timer.cancel()
        self._give_up_timer = self._clock.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        """Kill what has not been killed yet, however late that is, before anything is given up."""
        alive = [e for e in self.registry.entries() if e.process.body is Body.ALIVE and not e.process.killed]
        for entry in alive:
            self._actions.start_timer(entry, 0)
        if alive:
            self._give_up_in(GIVE_UP_DELAY)
        else:
            self._ended.set()

    # --- for the use cases beside this one ---

    def start(
        self, spec: ProcessSpec, *, replaces: str = "", ready_within: float | None = None
    ) -> SupervisedProcess:
        """Start a process whose spec is valid.

        Args:
            spec: what to run.
            replaces: UUID of the process that it is to replace, beside which it starts unlisted; empty to
                start it listed.
            ready_within: seconds from the spawn until it must serve; None for what the settings say.

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
        entry = SupervisedProcess(process, replaces=replaces, ready_within=ready_within)
        self.registry.add(entry, listed=not replaces)
        try:
            # The intent is in the journal before there is a process to lose.
            self._apply(entry, None, process, actions)
        except Exception as error:
            # Whatever it was: the name and the ports must not stay taken by nothing.
            self.handle(entry, StopRequested())
            if entry.process.body is Body.ABSENT:
                self.handle(entry, SpawnFailed(str(error)))
            raise
        return entry

    def _ready_within(self, entry: SupervisedProcess) -> float:
        """Return the seconds from the spawn until a process must serve."""
        if entry.ready_within is not None:
            return entry.ready_within
        listed = self.registry.is_listed(entry)
        return self.settings.ready_timeout if listed else self.settings.replace_timeout

    def transfer_name(self, old: SupervisedProcess, new: SupervisedProcess) -> None:
        """Give the name of a listed process to another one."""
        self.registry.transfer_name(old, new)
        # In this order: a daemon that dies in between leaves a journal with two claims, and the new one wins.
        self._journal.record(self.registry.record_of(new))
        self._journal.record(self.registry.record_of(old))
        self.events.repeat(new.process)
        self.changed.publish(new.process.name)

    def resume(self, entry: SupervisedProcess, actions: Iterable[Action], events: Iterable[Event]) -> None:
        """Continue with a process of an earlier daemon."""
        self.changed.publish(entry.process.name)
        self._apply(entry, entry.process, entry.process, tuple(actions))
        for event in events:
            self.handle(entry, event)

    def handle(self, entry: SupervisedProcess, event: Event) -> None:
        """Apply an event; events that its actions cause are applied after it."""
        self._inbox.append((entry, event))
        if self._handling:
            return
        self._handling = True
        try:
            while self._inbox:
                entry, event = self._inbox.popleft()
                before = entry.process
                after, actions = step(before, event)
                log.debug("transition", name=after.name, uuid=after.uuid, on=event, state=after.state)
                if after is not before:
                    self._apply(entry, before, after, actions)
        finally:
            self._handling = False

    def _apply(
        self, entry: SupervisedProcess, before: Process | None, after: Process, actions: tuple[Action, ...]
    ) -> None:
        """Make a transition: record it, publish what watchers see of it, and run its actions.

        Whatever watchers have seen is in the journal: a daemon that dies takes nothing back.
        """
        entry.process = after
        visible = before is None or before.visible != after.visible
        removed = any(isinstance(action, Remove) for action in actions)
        holder = self.registry.holder(after.name)
        changes = self.events.prepare(
            after,
            before.state if before else None,
            [False] * visible + [True] * removed,
            successor=holder.process.uuid if holder and holder is not entry else "",
            listed=holder is entry,
        )
        if removed:
            self._journal.forget(after.uuid, changes)
        else:
            self._journal.record(self.registry.record_of(entry), changes)
        for change in changes:
            self.events.publish(change)
        # A delete of a failed process is no transition, but get and list show it from now on.
        if changes or (before is not None and before.deleting != after.deleting):
            self.changed.publish(after.name)
        if visible:
            _log_state(after)
        entry.on_transition()
        for action in actions:
            log.debug("action", name=after.name, uuid=after.uuid, action=action)
            if isinstance(action, Remove):
                self._remove(entry)
            else:
                self._actions.run(entry, action)

    def _remove(self, entry: SupervisedProcess) -> None:
        process = entry.process
        self.registry.remove(entry)
        if entry.logs:
            self.logs.release(process.name, failed=process.state is State.ERROR)
        log.info("process deleted", name=process.name, uuid=process.uuid)
        if not self.registry.entries():
            self._ended.set()


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
