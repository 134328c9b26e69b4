"""Both containments against one model: what belongs to an instance ends with it, and nothing else does."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from instance_manager.app.containment import Kind
from tests.support.cells import by_cgroup, own_root
from tests.support.guard import gone
from tests.support.inmates import BEHAVIOURS, LAST
from tests.support.processes import Started, Workshop, by_session, lives, open_workshop

WITH_ENVIRONMENT = {
    "leaves orphans": (2, f"(setsid /bin/sh -c '{LAST}' &); {LAST}"),
    "wipes its environment": (1, "echo $$; exec env -i sleep 1000"),
}
"""What the search finds for certain; of others it may only say that they may belong to an instance."""


@dataclass
class Instance:
    """What the test knows of an instance, from its processes themselves."""

    started: Started
    pids: set[int] = field(default_factory=set)


class Instances(RuleBasedStateMachine):
    """Instances of one daemon, which start others, lose them, and end."""

    kind: Kind
    instances = Bundle("instances")

    def __init__(self) -> None:
        super().__init__()
        self.living: list[Instance] = []
        self.behaviours = BEHAVIOURS if self.kind is Kind.CGROUP else BEHAVIOURS | WITH_ENVIRONMENT
        self.loop = asyncio.new_event_loop()
        self.undo = ExitStack()
        self.close = AsyncExitStack()
        self.workshop: Workshop

    @initialize()
    def open(self) -> None:
        contained = by_session
        if self.kind is Kind.CGROUP:
            contained = by_cgroup(self.undo.enter_context(own_root()))  # type: ignore[assignment]
        workshop = open_workshop({"PATH": os.environ["PATH"]}, contained=contained)
        self.workshop = self.loop.run_until_complete(self.close.enter_async_context(workshop))

    @rule(target=instances, behaviour=st.sampled_from([*BEHAVIOURS]))
    def start(self, behaviour: str) -> Instance:
        return self.loop.run_until_complete(self._start(*self.behaviours[behaviour]))

    async def _start(self, processes: int, script: str) -> Instance:
        instance = Instance(self.workshop.shell(script))
        while len(instance.pids) < processes:
            instance.pids.add(int(await self.workshop.output.line()))
        assert instance.started.pid in instance.pids
        self.living.append(instance)
        return instance

    @rule(instance=instances)
    def somebody_is_killed(self, instance: Instance) -> None:
        """A descendant ends by itself; what else there is goes on."""
        others = sorted(instance.pids - {instance.started.pid})
        if instance in self.living and others:
            os.kill(others[0], signal.SIGKILL)
            self.loop.run_until_complete(gone(others[:1]))
            instance.pids.remove(others[0])

    @rule(instance=consumes(instances))
    def end(self, instance: Instance) -> None:
        if instance in self.living:
            self.loop.run_until_complete(self._end(instance))

    async def _end(self, instance: Instance) -> None:
        instance.started.child.signal("SIGKILL", session=False)
        await instance.started.exited()
        assert await instance.started.child.end_tree() is None
        await gone(instance.pids)
        self.living.remove(instance)

    @invariant()
    def whoever_was_not_ended_lives(self) -> None:
        for instance in self.living:
            assert all(map(lives, instance.pids))
            cell = self.workshop.containment.around(instance.started.pid)
            assert cell is not None
            members = set(filter(lives, cell.members()))
            assert members <= instance.pids
            # The search finds who has lost his parents and his session only when it is to end him.
            assert members == instance.pids or self.kind is Kind.SESSION

    def teardown(self) -> None:
        for instance in [*self.living]:
            self.loop.run_until_complete(self._end(instance))
        self.loop.run_until_complete(self.close.aclose())
        self.undo.close()
        self.loop.close()


@pytest.mark.parametrize("kind", Kind)
def test_instances_end_whole_and_alone(kind: Kind) -> None:
    machine = type(f"Instances{kind.title()}", (Instances,), {"kind": kind})
    run_state_machine_as_test(machine, settings=settings(max_examples=20, stateful_step_count=20))
