"""A supervisor in a world of fakes, which remembers everything that was published."""

import itertools
from collections.abc import Callable, Iterable

from instance_manager.app.events import EventLog
from instance_manager.app.replace import Replacer
from instance_manager.app.supervisor import Settings, Supervisor
from instance_manager.core.change import Change
from instance_manager.core.ports import PortRange
from instance_manager.core.process import Process
from instance_manager.core.spec import ProcessSpec
from tests.support.fakes import (
    FakeChild,
    FakeClock,
    FakeJournal,
    FakeLogs,
    FakeReadiness,
    FakeSpawner,
    Notices,
)

STOP_TIMEOUT = 60.0
READY_TIMEOUT = 600.0
REPLACE_TIMEOUT = 30.0
RETRY_INTERVAL = 1.0


class RecordedEvents(EventLog):
    """An event log whose every change can be looked at, and waited for."""

    def __init__(self, now: Callable[[], float], notices: Notices) -> None:
        super().__init__(now)
        self.changes: list[Change] = []
        self._notices = notices

    def publish(self, change: Change) -> None:
        super().publish(change)
        self.changes.append(change)
        self._notices.post()

    def states(self, uuid: str) -> list[str]:
        """Return the states told about one process, each change once, `deleted` for its end."""
        told = (
            "deleted" if c.deleted else str(c.process.state) for c in self.changes if c.process.uuid == uuid
        )
        return [state for state, _ in itertools.groupby(told)]


class World:
    """A supervisor and everything around it."""

    def __init__(self, *, ports: int = 10, obeys: Iterable[str] = ()) -> None:
        self.notices = Notices()
        self.clock = FakeClock(self.notices)
        self.spawner = FakeSpawner(self.notices, obeys=obeys)
        self.readiness = FakeReadiness(self.notices)
        self.logs = FakeLogs(self.notices)
        self.journal = FakeJournal()
        self.events = RecordedEvents(self.clock.now, self.notices)
        uuids = (f"uuid-{number}" for number in itertools.count())
        self.supervisor = Supervisor(
            Settings(
                port_range=PortRange(10000, 10000 + ports - 1),
                stop_timeout=STOP_TIMEOUT,
                ready_timeout=READY_TIMEOUT,
                replace_timeout=REPLACE_TIMEOUT,
                retry_interval=RETRY_INTERVAL,
            ),
            spawner=self.spawner,
            readiness=self.readiness,
            logs=self.logs,
            events=self.events,
            clock=self.clock,
            journal=self.journal,
            new_uuid=lambda: next(uuids),
        )
        self.replacer = Replacer(self.supervisor)

    def child(self, process: Process) -> FakeChild:
        """Return what was spawned for a process."""
        return self.spawner.child(process.uuid)

    def states(self, process: Process) -> list[str]:
        """Return the states told about a process."""
        return self.events.states(process.uuid)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        await self.notices.until(condition)

    async def told(self, process: Process, state: str) -> None:
        """Wait until a state, or `deleted`, is told about a process."""
        await self.until(lambda: state in self.states(process))

    async def running(self, name: str, *, ports: int = 0, binary: str = "/bin/r") -> Process:
        """Create a process and let it become ready."""
        process = self.supervisor.create(spec(name, ports=ports, binary=binary))
        if process.ports is None:
            self.clock.advance()
        else:
            port = process.ports.start
            await self.until(lambda: port in self.readiness.waiting)
            self.readiness.answer(port)
        await self.told(process, "running")
        return self.supervisor.get(name)


def spec(name: str, *, ports: int = 0, binary: str = "/bin/r") -> ProcessSpec:
    """Return the spec of a process that puts each of its ports on its command line."""
    return ProcessSpec(name=name, binary=binary, port_count=ports, port_args=("",) * ports)
