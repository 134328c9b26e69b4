"""Adoption: taking over the processes of an earlier daemon, before the ports open.

The journal says which processes there were; /proc says which are alive. For a process in the journal,
`core.adoption` decides how to continue; any other is recovered from what it carries in its environment.
"""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import structlog

from instance_manager.app.interfaces import Adoptable, JournalRecord, ProcessAdopter, Readiness
from instance_manager.app.replace import TERMINATE_SIGNAL, Replacer
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.adoption import parse_recovery_metadata, plan_adoption
from instance_manager.core.events import Exited, StopRequested
from instance_manager.core.process import Body, Process, State

log = structlog.get_logger(__name__)

_SERVES_NOW = 1.0
"""Seconds in which a process that is not in the journal must answer to count as running."""


class Adoption:
    """Takes over the processes of an earlier daemon."""

    def __init__(
        self, supervisor: Supervisor, replacer: Replacer, *, adopter: ProcessAdopter, readiness: Readiness
    ) -> None:
        self._supervisor = supervisor
        self._replacer = replacer
        self._adopter = adopter
        self._readiness = readiness
        self._ready_timeout = supervisor.settings.ready_timeout

    async def run(self, records: Sequence[JournalRecord]) -> None:
        """Take over everything; afterwards list, get and watch are as if the daemon had never stopped."""
        found = {adoptable.uuid: adoptable for adoptable in self._adopter.find()}
        journaled = {record.process.uuid for record in records}
        unjournaled = [s for uuid, s in found.items() if uuid not in journaled]
        restored = await asyncio.gather(*(self._from_environment(s, found.keys()) for s in unjournaled))
        for record in (*records, *(r for r in restored if r is not None)):
            self._adopt(record, found.get(record.process.uuid))
        self._resume_replacements()
        if records or unjournaled:
            log.info(
                "adopted",
                journaled=len(records),
                living=len(found),
                from_environment=len(unjournaled),
                listed=len(self._supervisor.processes()),
            )

    def _adopt(self, record: JournalRecord, adoptable: Adoptable | None) -> None:
        process = record.process
        identity = adoptable.identity if process.identity is None and adoptable else process.identity
        entry = self._supervisor.registry.take_over(record)
        if process.body in {Body.ABSENT, Body.ALIVE} and identity is not None:
            entry.child = self._adopter.adopt(
                identity, process.uuid, lambda status: self._supervisor.handle(entry, Exited(status))
            )
        alive = identity if entry.child is not None else None
        if entry.child is None and identity is not None and process.body is not Body.GONE:
            entry.child = self._adopter.leftover_descendants(identity, process.uuid)
        exit_status = self._adopter.exit_status(identity) if identity and not alive else None
        actions, events = plan_adoption(process, alive, exit_status)
        log.debug(
            "adopt",
            name=process.name,
            uuid=process.uuid,
            recorded=process.state,
            alive=alive is not None,
            exit=str(exit_status or ""),
            actions=actions,
            events=events,
        )
        entry.logs = True
        self._supervisor.logs.adopt(process.name, alive.pid if alive else None)
        self._supervisor.resume(entry, actions, events)

    async def _from_environment(self, adoptable: Adoptable, living: AbstractSet[str]) -> JournalRecord | None:
        try:
            process, replaces = parse_recovery_metadata(
                adoptable.name,
                adoptable.uuid,
                adoptable.recovery_metadata,
                adoptable.command,
                adoptable.identity,
            )
        except ValueError as error:
            log.warning(
                "cannot adopt a process that carries our recovery metadata; end it by hand if it is stray",
                name=adoptable.name,
                uuid=adoptable.uuid,
                pid=adoptable.identity.pid,
                reason=str(error),
            )
            return None
        # While the process to be replaced lives, this one may have failed to replace it.
        replacing = replaces in living
        state = await self._state_of(process, asked=replacing or adoptable.age < self._ready_timeout)
        log.warning("adopted without journal", name=process.name, uuid=process.uuid, state=state)
        return JournalRecord(
            process=Process(
                spec=process.spec,
                uuid=process.uuid,
                ports=process.ports,
                state=state,
                body=Body.ALIVE,
                identity=process.identity,
            ),
            listed=not replacing or state is State.RUNNING,
            replaces=replaces,
        )

    async def _state_of(self, process: Process, *, asked: bool) -> State:
        """Return whether a process is running or still starting.

        A process older than the ready timeout is not asked: it may be busy, and if it did not answer in time
        it would be stopped as one that never became ready.
        """
        if process.ports is None or process.identity is None or not asked:
            return State.RUNNING
        try:
            missing = await self._readiness.wait(process.ports.start, _SERVES_NOW, process.identity.pid)
        except Exception:
            # What one instance causes must not keep the daemon from taking over the others.
            log.exception("readiness check failed", name=process.name, uuid=process.uuid)
            return State.STARTING
        return State.STARTING if missing else State.RUNNING

    def _resume_replacements(self) -> None:
        """Continue every replace that was in progress, whichever step it had reached."""
        entries = {entry.process.uuid: entry for entry in self._supervisor.registry.entries()}
        listed = [entry for entry in entries.values() if self._supervisor.registry.is_listed(entry)]
        for entry in listed:
            old = entries.get(entry.replaces)
            if old is not None and not old.process.deletion_requested:
                self._supervisor.handle(old, StopRequested(signal=TERMINATE_SIGNAL))
        for entry in entries.values():
            old = entries.get(entry.replaces)
            if entry in listed or entry.process.deletion_requested:
                continue
            if old in listed:
                self._replacer.resume(old, entry)
            else:
                # Neither listed nor to be listed: nobody would ever end it.
                self._supervisor.handle(entry, StopRequested())
