"""Runs an agent through every order in which a world may move and its reads and notifications may come.

What may happen at each point: an owner or a process moves on; a notification arrives, late, merged with
later ones, or out of an older cache; a read reaches its server; an answer reaches the agent; the agent takes
what is due; the agent crashes and begins again with nothing but its records. Each is a step, and every order
of them is a schedule. Schedules that lead to the same state go on together; they are counted all the same.

A state is a tuple of small numbers, each of which stands for a value (`Names`). What a part does from a state
of its own is worked out once, by the real code, and remembered.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from instance_manager.orphans.actions import (
    Action,
    CloseRecord,
    ConfirmNoOwner,
    ListInstances,
    ListOwners,
    ListRecords,
    ReadInstance,
    ReadOwner,
    WriteRecord,
)
from instance_manager.orphans.events import InstanceChanged, OwnerChanged
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner
from instance_manager.orphans.results import (
    InstanceRead,
    InstancesRead,
    OwnerRead,
    OwnersRead,
    RecordsRead,
    RecordWritten,
    Result,
)
from tests.orphans.explorer.agents import Agent
from tests.orphans.explorer.world import (
    BYSTANDER,
    MANAGER,
    Life,
    Script,
    instance_of,
    is_orphan,
    moves,
    owner_of,
)

Value = TypeVar("Value", bound=Hashable)
Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is explored."""

    name: str
    scripts: tuple[Script, ...]
    agent: Callable[[], Agent]
    rewinds: int = 1
    """How often a notification may come out of an older cache."""
    crashes: int = 1
    """How often the agent may begin again."""


@dataclass(slots=True)
class Findings:
    """What was found in all of the schedules."""

    scenario: str
    schedules: int = 0
    """Orders of steps from the beginning to an end, each counted once."""
    states: int = 0
    """Different states that were met."""
    steps: int = 0
    """Different steps from one to another."""
    false_orphans: int = 0
    """Different steps by which an instance was declared an orphan that is none."""
    missed: int = 0
    """Different ends at which a true orphan has no record, or a record stands for none."""
    example: tuple[str, ...] = field(default=())
    """The steps that led to the first thing that was wrong."""


class Names(Generic[Value]):
    """Gives each different value a number."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self._numbers: dict[Hashable, int] = {}

    def number(self, value: Value, key: Hashable = None) -> int:
        """Return the number of a value; `key` tells values apart that cannot be compared themselves."""
        key = value if key is None else key
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = len(self.values)
            self.values.append(value)
        return known


class Call(NamedTuple):
    """An action on its way to a server, or its result on the way back."""

    action: Action
    result: Result | None = None


class Place(NamedTuple):
    """Everything about one name except what the agent makes of it."""

    life: Life
    owners: tuple[Owner | None, ...] = (None,)
    """Every state of the owner so far."""
    instances: tuple[ObservedInstance | None, ...] = (None,)
    """Every state of the instance so far."""
    owner_seen: int = 0
    """Which of the owner's states the agent was last notified of."""
    instance_seen: int = 0


class Point(NamedTuple):
    """One state of everything, by the numbers of its parts."""

    places: Numbers
    calls: Numbers
    records: int
    agent: int
    rewinds: int
    crashes: int


Step = tuple[str, Point]


class Explorer:
    """Explores one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.scripts = scenario.scripts
        self.index = {script.name: number for number, script in enumerate(scenario.scripts)}
        self.findings = Findings(scenario.name)
        self.schedules: dict[Point, int] = {}
        self.path: list[str] = []
        self.places = Names[Place]()
        self.calls = Names[Call]()
        self.records = Names[frozenset[Orphan]]()
        self.agents = Names[Agent]()  # type: ignore[type-var]
        self._moves: dict[tuple[int, int], list[tuple[str, int]]] = {}
        self._notified: dict[tuple[int, int, int, bool], list[tuple[str, int, int, bool]]] = {}
        self._continued: dict[tuple[int, int], int] = {}
        self._taken: dict[int, tuple[int, Numbers]] = {}
        self._served: dict[tuple[int, Numbers, int], tuple[int, int]] = {}
        self._busy: dict[int, bool] = {}
        self._labels: dict[int, str] = {}
        self._begun: dict[tuple[int, Numbers], int] = {}

    def run(self) -> Findings:
        """Walk through everything that can be reached."""
        agent = self.scenario.agent()
        agent.begin((BYSTANDER,), (), ())
        nothing = self.records.number(frozenset())
        places = (self.places.number(Place(Life())),) * len(self.scripts)
        start = Point(places, (), nothing, self._agent(agent), self.scenario.rewinds, self.scenario.crashes)
        # Each visit: a state, the steps that are left to be taken from it, and the schedules counted so far.
        stack = [_Visit(start, self._steps(start))]
        while stack:
            visit = stack[-1]
            step = next(visit.steps, None)
            if step is None:
                stack.pop()
                count = self.schedules[visit.point] = visit.schedules or 1
                if stack:
                    stack[-1].schedules += count
                    self.path.pop()
                continue
            self.findings.steps += 1
            label, point = step
            known = self.schedules.get(point)
            if known is not None:
                visit.schedules += known
            else:
                self.path.append(label)
                stack.append(_Visit(point, self._steps(point)))
        self.findings.schedules = self.schedules[start]
        self.findings.states = len(self.schedules)
        return self.findings

    # --- steps ---

    def _steps(self, point: Point) -> Iterator[Step]:
        """Return every step that may come next; without one, look at what is left."""
        places, calls, records, agent, rewinds, crashes = point
        steps: list[Step] = []
        for number, place in enumerate(places):
            for label, after in self._world(number, place):
                moved = _put(places, number, after)
                steps.append((label, Point(moved, calls, records, agent, rewinds, crashes)))
            for label, after, notified, rewound in self._notifications(number, place, point):
                moved = _put(places, number, after)
                steps.append((label, Point(moved, calls, records, notified, rewinds - rewound, crashes)))
        steps += [self._call(point, position) for position in range(len(calls))]
        if self._has_work(agent):
            steps.append(("the agent takes what is due", self._take(point)))
        if crashes:
            steps.append(("the agent crashes", self._crash(point)))
        if not steps:
            self._end(point)
        return iter(steps)

    def _has_work(self, agent: int) -> bool:
        known = self._busy.get(agent)
        if known is None:
            known = self._busy[agent] = self.agents.values[agent].has_work()
        return known

    def _world(self, number: int, place: int) -> list[tuple[str, int]]:
        known = self._moves.get((number, place))
        if known is None:
            script, now = self.scripts[number], self.places.values[place]
            known = self._moves[number, place] = []
            for what, life in moves(now.life, script):
                after = now._replace(
                    life=life,
                    owners=_appended(now.owners, owner_of(life, script)),
                    instances=_appended(now.instances, instance_of(life, script)),
                )
                known.append((f"{script.name}: {what}", self.places.number(after)))
        return known

    def _notifications(self, number: int, place: int, point: Point) -> list[tuple[str, int, int, bool]]:
        if not self.agents.values[point.agent].follows:
            return []
        key = (number, place, point.agent, bool(point.rewinds))
        known = self._notified.get(key)
        if known is None:
            known = self._notified[key] = list(self._notify(number, place, point))
        return known

    def _notify(self, number: int, place: int, point: Point) -> Iterator[tuple[str, int, int, bool]]:
        now, name = self.places.values[place], self.scripts[number].name
        for to in _reachable(now.owner_seen, len(now.owners), back=point.rewinds > 0):
            agent = self.agents.values[point.agent].fork()
            agent.on_event(OwnerChanged(name, now.owners[to]))
            after = self.places.number(now._replace(owner_seen=to))
            yield f"news {to} of {name}'s owner", after, self._agent(agent), to < now.owner_seen
        for to in _reachable(now.instance_seen, len(now.instances), back=point.rewinds > 0):
            agent = self.agents.values[point.agent].fork()
            agent.on_event(InstanceChanged(MANAGER, name, now.instances[to]))
            after = self.places.number(now._replace(instance_seen=to))
            yield f"news {to} of {name}'s process", after, self._agent(agent), to < now.instance_seen

    def _call(self, point: Point, position: int) -> Step:
        places, calls, records, agent, rewinds, crashes = point
        number = calls[position]
        call = self.calls.values[number]
        others = calls[:position] + calls[position + 1 :]
        label = self._labels.get(number)
        if label is None:
            label = self._labels[number] = _describe(call)
        if call.result:
            return label, self._answer(point, others, number)
        key = (number, places, records)
        known = self._served.get(key)
        if known is None:
            result, after = self._serve(point, call.action)
            served = Call(call.action, result)
            known = self._served[key] = self.calls.number(served), self.records.number(after)
        answered, records = known
        if isinstance(call.action, WriteRecord | CloseRecord):
            # What is written is written; nobody else reads it while the answer is on its way.
            return label, self._answer(point._replace(records=records), others, answered)
        return label, Point(places, tuple(sorted((*others, answered))), records, agent, rewinds, crashes)

    def _answer(self, point: Point, others: Numbers, number: int) -> Point:
        after = self._continued.get((point.agent, number))
        if after is None:
            call = self.calls.values[number]
            agent = self.agents.values[point.agent].fork()
            assert call.result is not None
            agent.on_result(call.result)
            after = self._continued[point.agent, number] = self._agent(agent)
        return point._replace(agent=after, calls=others)

    def _serve(self, point: Point, action: Action) -> tuple[Result, frozenset[Orphan]]:
        result: Result
        records = self.records.values[point.records]
        owners, instances = self._everything(point)
        match action:
            case ReadOwner(_, seen):
                result = OwnerRead(action, self._owner(point, self.index[seen.name]))
            case ListOwners() | ConfirmNoOwner():
                result = OwnersRead(action, owners)
            case ReadInstance(_, seen):
                result = InstanceRead(action, self._instance(point, self.index[seen.name]))
            case ListInstances():
                result = InstancesRead(action, instances)
            case ListRecords():
                result = RecordsRead(action, tuple(records))
            case WriteRecord(record):
                result = RecordWritten(action)
                records = frozenset({r for r in records if r.name != record.name} | {record})
            case CloseRecord(record):
                result = RecordWritten(action)
                records = frozenset(r for r in records if r.name != record.name)
            case _:
                raise AssertionError(f"nobody asked for {action}")
        return result, records

    def _everything(self, point: Point) -> tuple[tuple[Owner, ...], tuple[ObservedInstance, ...]]:
        """Return all owners and all instances as they are."""
        owners = (self._owner(point, number) for number in range(len(self.scripts)))
        instances = (self._instance(point, number) for number in range(len(self.scripts)))
        return (
            (BYSTANDER, *(owner for owner in owners if owner)),
            tuple(instance for instance in instances if instance),
        )

    def _owner(self, point: Point, number: int) -> Owner | None:
        return self.places.values[point.places[number]].owners[-1]

    def _instance(self, point: Point, number: int) -> ObservedInstance | None:
        return self.places.values[point.places[number]].instances[-1]

    def _take(self, point: Point) -> Point:
        known = self._taken.get(point.agent)
        if known is None:
            agent = self.agents.values[point.agent].fork()
            calls = tuple(self.calls.number(Call(action)) for action in agent.next_actions())
            known = self._taken[point.agent] = self._agent(agent), calls
        after, calls = known
        for number in calls:
            action = self.calls.values[number].action
            if isinstance(action, WriteRecord) and action.declares:
                self._check(point, action.record)
        return point._replace(agent=after, calls=tuple(sorted(point.calls + calls)))

    def _crash(self, point: Point) -> Point:
        """Begin again with the latest notifications: caches that are as old as they were."""
        key = (point.records, point.places)
        known = self._begun.get(key)
        if known is None:
            places = [self.places.values[number] for number in point.places]
            owners = (place.owners[place.owner_seen] for place in places)
            instances = (place.instances[place.instance_seen] for place in places)
            agent = self.scenario.agent()
            agent.begin(
                (BYSTANDER, *(owner for owner in owners if owner)),
                tuple(instance for instance in instances if instance),
                tuple(self.records.values[point.records]),
            )
            known = self._begun[key] = self._agent(agent)
        return point._replace(agent=known, calls=(), crashes=point.crashes - 1)

    def _agent(self, agent: Agent) -> int:
        return self.agents.number(agent, agent.key())

    # --- what is wrong ---

    def _check(self, point: Point, record: Orphan) -> None:
        number = self.index[record.instance.name]
        life = self.places.values[point.places[number]].life
        if not is_orphan(life, record.instance.uuid, self.scripts[number]):
            self.findings.false_orphans += 1
            self._remember(f"declares {record.instance.uuid} an orphan")

    def _end(self, point: Point) -> None:
        """Nothing can happen any more: a look at everything has to leave records of the true orphans only."""
        agent = self.agents.values[point.agent].fork()
        agent.list_everything(*self._everything(point))
        left = self._drained(point._replace(agent=self._agent(agent)))
        orphans = set()
        for number, script in enumerate(self.scripts):
            place = self.places.values[point.places[number]]
            instance = place.instances[-1]
            if instance and is_orphan(place.life, instance.uuid, script):
                orphans.add(instance.uuid)
        recorded = {record.instance.uuid for record in self.records.values[left.records]}
        if recorded != orphans:
            self.findings.missed += 1
            self._remember(f"ends with records of {sorted(recorded)}, orphans are {sorted(orphans)}")

    def _drained(self, point: Point) -> Point:
        while point.calls or self._has_work(point.agent):
            point = self._call(point, 0)[1] if point.calls else self._take(point)
        return point

    def _remember(self, what: str) -> None:
        if not self.findings.example:
            self.findings.example = (*self.path, what)


@dataclass(slots=True)
class _Visit:
    point: Point
    steps: Iterator[Step]
    schedules: int = 0


def _reachable(seen: int, length: int, *, back: bool) -> Iterator[int]:
    """Later news, with some of it skipped; earlier news, if a cache may be rewound."""
    yield from range(seen + 1, length)
    if back:
        yield from range(seen)


def _put(values: Numbers, number: int, value: int) -> Numbers:
    return (*values[:number], value, *values[number + 1 :])


def _appended(history: tuple[Value, ...], value: Value) -> tuple[Value, ...]:
    return history if history[-1] == value else (*history, value)


def _describe(call: Call) -> str:
    action = call.action
    seen = action.seen.name if isinstance(action, ReadOwner | ReadInstance) else ""
    return f"{'result of' if call.result else 'a server takes'} {type(action).__name__} {seen}".rstrip()
