"""The world the agent lives in: owners, processes, and what is seen of them, as values to explore.

Whoever creates an instance writes its owner first and calls the instance manager second. Whoever deletes one
calls the instance manager first, waits for its answer, and removes the owner second.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from instance_manager.core.process import State
from instance_manager.orphans.model import ObservedInstance, Owner, OwnerKind

MANAGER = "im-1"
NODE = "node-1"
BYSTANDER = Owner(
    "z-e-0",
    OwnerKind.ENGINE,
    node_id=NODE,
    owner_id=NODE,
    desired_state="running",
    current_state="running",
    instance_manager=MANAGER,
)
"""An owner that is there all the time: an owner source that shows nothing at all is another matter."""


@dataclass(frozen=True, slots=True)
class Script:
    """What may happen to the instances of one name."""

    name: str
    abandoned: bool = False
    """The owner is removed although nobody has called the instance manager: a true orphan."""
    fails: bool = False
    """Its process may end in `error` by itself."""
    status: bool = False
    """Its owner's status is filled in after the process runs, as a step of its own."""
    reused: bool = False
    """When its owner has been removed, another of the same name is created, and a process for it."""
    starts: bool = True
    """Its process is in `starting` for a while; without it runs at once."""
    shows_deletes: bool = True
    """Whether the instance manager shows that a process in `error` is being deleted."""


class Life(NamedTuple):
    """What is true about one name."""

    owner: str = ""
    """Empty: not yet; else `waiting`, `running` or `removed`."""
    process: str = ""
    """Empty: not yet; else its state, `error-deleting` or `gone`."""
    generation: int = 0
    """Of the owner."""
    process_generation: int = 0
    asked: bool = False
    """The instance manager has answered that the process of this generation is being deleted."""


def moves(life: Life, script: Script) -> Iterator[tuple[str, Life]]:
    """Yield everything that may happen next."""
    owned = life.owner in {"waiting", "running"}
    if not life.owner:
        yield "writes the owner", life._replace(owner="waiting")
    if owned and not life.asked and _may_create(life):
        first = State.STARTING if script.starts else State.RUNNING
        yield "creates the process", life._replace(process=first, process_generation=life.generation)
    own = life.process_generation == life.generation
    if life.process == State.STARTING:
        yield "gets ready", life._replace(process=State.RUNNING)
    if script.fails and life.process in {State.STARTING, State.RUNNING}:
        yield "fails", life._replace(process=State.ERROR)
    if script.status and life.owner == "waiting" and life.process == State.RUNNING and own:
        yield "fills in the owner's status", life._replace(owner="running")
    if owned and own and life.process in {State.STARTING, State.RUNNING, State.ERROR}:
        yield from _endings(life, script)
    if life.process in {State.STOPPING, "error-deleting"}:
        yield "ends", life._replace(process="gone")
    if owned and life.asked:
        yield "removes the owner", life._replace(owner="removed")
    if script.reused and life.owner == "removed" and life.generation == 0:
        yield "writes another owner", life._replace(owner="waiting", generation=1, asked=False)


def _may_create(life: Life) -> bool:
    return not life.process or (life.process == "gone" and life.process_generation < life.generation)


def _endings(life: Life, script: Script) -> Iterator[tuple[str, Life]]:
    if script.abandoned:
        if life.process != State.STARTING:
            yield "removes the owner only", life._replace(owner="removed")
        return
    failed = life.process == State.ERROR
    yield "has it deleted", life._replace(process="error-deleting" if failed else State.STOPPING, asked=True)


def owner_of(life: Life, script: Script) -> Owner | None:
    """Return the owner as the source of truth has it."""
    if life.owner not in {"waiting", "running"}:
        return None
    if life.owner == "waiting":
        return replace(BYSTANDER, name=script.name, current_state="", instance_manager="")
    return replace(BYSTANDER, name=script.name)


def instance_of(life: Life, script: Script) -> ObservedInstance | None:
    """Return the instance as the instance manager has it."""
    if life.process in {"", "gone"}:
        return None
    deleting = life.process in {State.STOPPING, "error-deleting"}
    return ObservedInstance(
        script.name,
        f"{script.name}-{life.process_generation}",
        OwnerKind.ENGINE,
        State.ERROR if life.process == "error-deleting" else life.process,
        deleting=deleting and (script.shows_deletes or life.process == State.STOPPING),
    )


def is_orphan(life: Life, uuid: str, script: Script) -> bool:
    """Tell whether the instance with this UUID is one in truth: it runs, and its owner went without it."""
    return (
        life.owner == "removed"
        and not life.asked
        and life.process in {State.RUNNING, State.ERROR}
        and uuid == f"{script.name}-{life.process_generation}"
    )
