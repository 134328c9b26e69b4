"""Adoption: taking over the processes of an earlier daemon, before the ports open.

The journal says which processes there were; /proc says which are alive. For a process in the journal,
`core.adoption` decides how to continue; any other is recovered from what it carries in its environment.
"""

import asyncio
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import structlog

from instance_manager.app.interfaces import (
    Adoptable,
    Findings,
    JournalRecord,
    ProcessAdopter,
    Readiness,
    Unclear,
)
from instance_manager.app.replace import TERMINATE_SIGNAL, Replacer
from instance_manager.app.supervised_process import SupervisedProcess
from instance_manager.app.supervisor import Supervisor
from instance_manager.core.adoption import parse_recovery_metadata, plan_adoption
from instance_manager.core.events import Doubted, Exited, StopRequested
from instance_manager.core.process import Body, Identity, Process, State
from instance_manager.platform.backoff import exponential_backoff

log = structlog.get_logger(__name__)

_SERVES_NOW = 1.0
"""Seconds in which a process that is not in the journal must answer to count as running."""
_FIRST_LOOK, _LONGEST_WAIT = 0.1, 60.0
"""Seconds between looks at processes that were unclear."""


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
        self._intents: list[SupervisedProcess] = []
        """Those that were perhaps spawned: one of the processes that are unclear may be theirs."""
        self._told: set[Unclear] = set()
        """The processes that were unclear at the last look."""
        self._looking: asyncio.Task[None] | None = None

    async def run(self, records: Sequence[JournalRecord]) -> None:
        """Take over everything; afterwards list, get and watch are as if the daemon had never stopped."""
        # A process that nobody has written down may be one that was started without a cell.
        thorough = not records or any(record.process.body is Body.ABSENT for record in records)
        findings = await self._adopter.find(thorough=thorough)
        found = {adoptable.uuid: adoptable for adoptable in findings.adoptable}
        journaled = {record.process.uuid for record in records}
        unclear = self._unclear(findings, [record.process for record in records])
        unjournaled = [s for uuid, s in found.items() if uuid not in journaled]
        restored = await asyncio.gather(*(self._from_environment(s, found.keys()) for s in unjournaled))
        for record in (*records, *(r for r in restored if r is not None)):
            self._adopt(record, found.get(record.process.uuid), unclear)
        self._resume_replacements()
        if unclear:
            self._looking = asyncio.get_running_loop().create_task(self._look_again())
        if records or unjournaled:
            log.info(
                "adopted",
                journaled=len(records),
                living=len(found),
                from_environment=len(unjournaled),
                listed=len(self._supervisor.processes()),
            )

    def close(self) -> None:
        """Do not look again for processes that are unclear."""
        if self._looking is not None:
            self._looking.cancel()

    def _adopt(self, record: JournalRecord, adoptable: Adoptable | None, unclear: Sequence[Unclear]) -> None:
        process = record.process
        identity = adoptable.identity if process.identity is None and adoptable else process.identity
        entry = self._supervisor.registry.take_over(record)
        if process.doubt:
            self._supervisor.handle(entry, Doubted(""))
        if process.body is Body.ABSENT and identity is None and unclear:
            self._intents.append(entry)
            self._supervisor.resume(entry, (), (Doubted(_reason(unclear)),))
            return
        if process.body in {Body.ABSENT, Body.ALIVE} and identity is not None:
            self._take(entry, identity)
        alive = identity if entry.child is not None else None
        if entry.child is None and identity is not None and process.body is not Body.GONE:
            entry.child = self._adopter.leftover_descendants(identity, process.uuid)
        exit_status = self._adopter.exit_status(identity) if identity and not alive else None
        actions, events = plan_adoption(entry.process, alive, exit_status)
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

    def _take(self, entry: SupervisedProcess, identity: Identity) -> None:
        entry.child = self._adopter.adopt(
            identity,
            entry.process.uuid,
            on_exit=lambda status: self._supervisor.handle(entry, Exited(status)),
            on_doubt=lambda reason: self._supervisor.handle(entry, Doubted(reason)),
        )

    async def _look_again(self) -> None:
        """Look for processes until it is clear of each whether it is an instance."""
        for delay in exponential_backoff(_FIRST_LOOK, _LONGEST_WAIT):
            await asyncio.sleep(delay)
            try:
                if await self._look_once():
                    return
            except Exception:
                log.exception("looking for unclear processes failed; trying again")

    async def _look_once(self) -> bool:
        """Take over what has become clear; return whether everything has."""
        findings = await self._adopter.find(thorough=True)
        found = {adoptable.uuid: adoptable for adoptable in findings.adoptable}
        entries = {entry.process.uuid: entry for entry in self._supervisor.registry.entries()}
        unclear = self._unclear(findings, [entry.process for entry in entries.values()])
        for entry in tuple(self._intents):
            adoptable = found.get(entry.process.uuid)
            if adoptable is None and unclear:
                self._supervisor.handle(entry, Doubted(_reason(unclear)))
                continue
            self._intents.remove(entry)
            self._supervisor.handle(entry, Doubted(""))
            if adoptable is not None:
                self._take(entry, adoptable.identity)
            alive = adoptable.identity if adoptable and entry.child else None
            _, events = plan_adoption(entry.process, alive, None)
            self._supervisor.resume(entry, (), events)
        for adoptable in (a for uuid, a in found.items() if uuid not in entries):
            await self._recover_late(adoptable, found.keys())
        return not unclear

    async def _recover_late(self, adoptable: Adoptable, living: AbstractSet[str]) -> None:
        record = await self._from_environment(adoptable, living)
        if record is None:
            return
        if self._supervisor.find(record.process.name) is not None:
            log.error(
                "a process lives whose name is another's by now; end it by hand",
                name=record.process.name,
                uuid=adoptable.uuid,
                pid=adoptable.identity.pid,
            )
            return
        self._adopt(record, adoptable, ())

    def _unclear(self, findings: Findings, known: Iterable[Process]) -> list[Unclear]:
        """Return the processes that may be instances which are not known; says so if they are others."""
        identified = [process for process in known if process.identity is not None]
        identities = {process.identity for process in identified}
        uuids = {process.uuid for process in identified}
        unclear = [
            each
            for each in findings.unclear
            if each.uuid not in uuids and (each.identity is None or each.identity not in identities)
        ]
        if unclear and set(unclear) != self._told:
            log.warning(
                "cannot tell whether some processes are instances; trying again",
                pids=[each.identity.pid for each in unclear if each.identity],
                reason=unclear[0].reason,
            )
        self._told = set(unclear)
        return unclear

    async def _from_environment(self, adoptable: Adoptable, living: AbstractSet[str]) -> JournalRecord | None:
        try:
            recovered = parse_recovery_metadata(
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
        process = recovered.process
        # While the process to be replaced lives, this one may have failed to replace it.
        replacing = recovered.replaces in living
        asked = replacing or not recovered.as_started or adoptable.age < self._ready_timeout
        state = await self._state_of(process, asked=asked)
        log.warning(
            "adopted without journal",
            name=process.name,
            uuid=process.uuid,
            state=state,
            **({} if recovered.as_started else {"command_line": "another than it was started with"}),
        )
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
            replaces=recovered.replaces,
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


def _reason(unclear: Sequence[Unclear]) -> str:
    """Return in words which processes may be the one that was not found, and what to do."""
    first = unclear[0]
    which = f"it may be pid {first.identity.pid}" if first.identity else "processes cannot be looked at"
    more = f" or one of {len(unclear) - 1} others" if len(unclear) > 1 else ""
    return f"{which}{more} ({first.reason}); end that by hand if it is stray"
