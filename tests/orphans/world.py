"""An orphan agent in a world of fakes, where time passes when a test says so."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from instance_manager.orphans.agent import OrphanAgent
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner, OwnerKind
from instance_manager.orphans.settings import OrphanSettings
from tests.support.fake_orphans import FakeManager, MemoryOwners, MemoryRecords
from tests.support.fakes import FakeClock

_MOST = 1_000_000  # turns; one that waits for a read to run into its timeout takes many

MANAGER = "im-1"
NEIGHBOUR = "z-e-0"
_QUIET = 4  # turns of the event loop in which nothing happened, after which nothing will


def owner(name: str, **fields: object) -> Owner:
    """Return an owner that runs on the instance manager, with some of it changed."""
    here = Owner(
        name,
        OwnerKind.ENGINE,
        node_id="n",
        owner_id="n",
        desired_state="running",
        current_state="running",
        instance_manager=MANAGER,
    )
    return replace(here, **fields)  # type: ignore[arg-type]


def instance(name: str, uuid: str = "u1", state: str = "running") -> ObservedInstance:
    return ObservedInstance(name, uuid, OwnerKind.ENGINE, state)


class OrphanWorld:
    """The agent, and everything around it."""

    def __init__(self, settings: OrphanSettings, records: MemoryRecords | None = None) -> None:
        self.settings = settings
        self.clock = FakeClock()
        self.owners = MemoryOwners(owner(NEIGHBOUR))
        self.manager = FakeManager(MANAGER, instance(NEIGHBOUR, "u0"))
        self.records = records or MemoryRecords()
        self.agent = self.new_agent()
        self.task: asyncio.Task[None] | None = None

    def new_agent(self, read_timeout: float = 30.0) -> OrphanAgent:
        return OrphanAgent(
            self.settings,
            owners=self.owners,
            records=self.records,
            managers=[self.manager],
            clock=self.clock,
            read_timeout=read_timeout,
        )

    async def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.agent.run())
        await self.settle()

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        (result,) = await asyncio.gather(self.task, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError), result

    async def crash(self) -> None:
        """Lose everything but the records, and begin again."""
        await self.stop()
        self.agent = self.new_agent()
        await self.start()

    async def settle(self) -> None:
        """Let the agent do all it can at this time."""
        assert self.task is not None
        quiet = turns = 0
        while quiet < _QUIET:
            await asyncio.sleep(0)
            quiet, turns = quiet + 1 if self._idle() else 0, turns + 1
            assert turns < _MOST, "the agent never comes to rest"
        assert not self.task.done(), self.task.exception()

    def _idle(self) -> bool:
        """Whether the agent waits for nothing but time and news."""
        real = self.agent.reconciler
        under_way = any(each.in_flight for each in real.candidates.open.values()) or any(
            due == float("inf") for due in real._due.values()
        )
        return not under_way and real.next_due() > self.clock.now()

    async def passes(self, seconds: float) -> None:
        """Let time pass, second by second, as an agent that is awake sees it."""
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            await self.settle()
            due = min((timer.due for timer in self.clock.timers), default=end)
            self.clock.advance(max(0.0, min(due, end) - self.clock.now()))
        await self.settle()

    async def abandon(self, name: str, uuid: str = "u1") -> None:
        """Have an instance whose owner was removed without it."""
        self.owners.put(owner(name))
        self.manager.put(instance(name, uuid))
        await self.settle()
        self.owners.remove(name)
        await self.settle()

    @property
    def orphans(self) -> Sequence[Orphan]:
        return tuple(self.records.open.values())


@asynccontextmanager
async def orphan_world(**settings: object) -> AsyncIterator[OrphanWorld]:
    """Run an agent with some of its settings changed."""
    world = OrphanWorld(OrphanSettings(**settings))  # type: ignore[arg-type]
    await world.start()
    try:
        yield world
    finally:
        await world.stop()
