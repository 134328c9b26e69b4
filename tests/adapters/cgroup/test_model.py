"""Cells against a model: what instances, daemons and others do in any order, on the real hierarchy."""

import asyncio
import uuid
from contextlib import ExitStack
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from instance_manager.adapters.cgroup import CgroupContainment
from instance_manager.app.containment import Cell, CellMetadata
from instance_manager.core.process import Identity
from tests.support.cell_program import cells, opened
from tests.support.cells import own_root
from tests.support.guard import gone
from tests.support.inmates import BEHAVIOURS, Inmate, behaving
from tests.support.processes import ticks


@dataclass
class Instance:
    """What the test knows of an instance, from its processes themselves."""

    uuid: str
    owner: str
    identity: Identity
    inmate: Inmate
    led: bool = True
    """Whether its leader lives."""


class Containers(RuleBasedStateMachine):
    """Two owners in one root; the daemon of one of them dies now and then."""

    instances = Bundle("instances")

    def __init__(self) -> None:
        super().__init__()
        self.living: list[Instance] = []
        self.leaders: list[Inmate] = []
        self.containments: dict[str, CgroupContainment] = {}
        self.cells: dict[str, Cell] = {}
        self.undo = ExitStack()
        self.loop = asyncio.new_event_loop()

    @initialize()
    def open(self) -> None:
        self.root = self.undo.enter_context(own_root())
        self.loop.run_until_complete(self._open("ours"))
        self.loop.run_until_complete(self._open("others"))

    async def _open(self, owner: str) -> None:
        self.containments[owner] = opened(self.root, owner)

    @rule(
        target=instances, owner=st.sampled_from(["ours", "others"]), behaviour=st.sampled_from([*BEHAVIOURS])
    )
    def start(self, owner: str, behaviour: str) -> Instance:
        metadata = CellMetadata(f"name of {behaviour}", str(uuid.uuid4()), "{}", ("/bin/sh", behaviour))
        cell = self.cells[metadata.uuid] = self.containments[owner].create(metadata)
        inmate = behaving(cell, behaviour)
        identity = Identity(inmate.pid, ticks(inmate.pid))
        cell.led_by(identity, -1)
        instance = Instance(metadata.uuid, owner, identity, inmate)
        self.living.append(instance)
        self.leaders.append(inmate)
        return instance

    @rule(owner=st.sampled_from(["ours", "others"]))
    def intend(self, owner: str) -> None:
        """Make a cell, and die before anything enters it: it is gone when the next daemon has looked."""
        self.containments[owner].create(CellMetadata("intended", str(uuid.uuid4()), "", ())).close()
        self.die(owner)

    @rule(owner=st.sampled_from(["ours", "others"]))
    def die(self, owner: str) -> None:
        """Let the daemon of an owner end, and the next one take over what lives."""
        self.loop.run_until_complete(_close(self.containments[owner]))
        self.loop.run_until_complete(self._open(owner))
        findings = self.loop.run_until_complete(self.containments[owner].find(thorough=False))
        ours = {each.uuid: each for each in self.living if each.owner == owner}
        found_here = [each.uuid for each in findings.adoptable] + [each.uuid for each in findings.unclear]
        assert sorted(found_here) == sorted(ours)
        for found in findings.adoptable:
            known = ours[found.uuid]
            assert found.identity == known.identity or not known.led
            assert found.identity.pid in known.inmate.pids
            assert bool(found.command) == known.led
        for unclear in findings.unclear:
            assert not ours[unclear.uuid].led
        for uuid_, known in ours.items():
            self.cells[uuid_] = self.containments[owner].take_over(uuid_, known.identity)

    @rule(instance=instances)
    def kill_leader(self, instance: Instance) -> None:
        if instance.led and instance in self.living:
            instance.inmate.kill()
            instance.inmate.reap()
            instance.inmate.pids.remove(instance.inmate.pid)
            instance.led = False
            if not instance.inmate.pids:
                self._is_over(instance)

    @rule(instance=consumes(instances))
    def end(self, instance: Instance) -> None:
        if instance in self.living:
            self._is_over(instance)

    @rule(instance=instances)
    def somebody_is_killed(self, instance: Instance) -> None:
        """A descendant ends by itself; what else there is goes on."""
        others = [pid for pid in instance.inmate.pids if pid != instance.inmate.pid]
        if instance in self.living and instance.led and others:
            instance.inmate.kill(others[0])
            self.loop.run_until_complete(gone(others[:1]))
            instance.inmate.pids.remove(others[0])

    def _is_over(self, instance: Instance) -> None:
        pids = [*instance.inmate.pids]
        assert self.loop.run_until_complete(self.cells.pop(instance.uuid).end()) is None
        instance.inmate.reap()
        self.loop.run_until_complete(gone(pids))
        self.living.remove(instance)

    @invariant()
    def whoever_was_not_ended_lives_in_its_cell(self) -> None:
        for instance in self.living:
            assert instance.inmate.living() == set(instance.inmate.pids)
            assert set(self.cells[instance.uuid].members()) >= set(instance.inmate.pids)
        for owner, containment in self.containments.items():
            assert set(cells(containment)) == {each.uuid for each in self.living if each.owner == owner}

    def teardown(self) -> None:
        for instance in [*self.living]:
            self._is_over(instance)
        for containment in self.containments.values():
            self.loop.run_until_complete(_close(containment))
        for leader in self.leaders:
            leader.reap()
        self.undo.close()
        self.loop.close()


async def _close(containment: CgroupContainment) -> None:
    containment.close()


TestContainers = Containers.TestCase
TestContainers.settings = settings(max_examples=40, stateful_step_count=30)
