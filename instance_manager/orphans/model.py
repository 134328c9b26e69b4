"""Orphans: the judgement of one instance, and the record of an orphan from its creation to its end.

An orphan is an instance that runs although nothing owns it. A single judgement can be wrong if something
happens between reading the instance and reading its owner; `verification` orders the reads to avoid this.
"""

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum, auto

from instance_manager.core.instance import DataEngine
from instance_manager.core.process import State


class OwnerKind(StrEnum):
    """Type of an owner; instances of other types have no owner and are not judged."""

    ENGINE = auto()
    REPLICA = auto()


@dataclass(frozen=True, slots=True)
class Owner:
    """The custom resource that an instance belongs to."""

    name: str
    kind: OwnerKind
    deleting: bool = False
    """Whether its deletion was requested (`metadata.deletionTimestamp`)."""
    node_id: str = ""
    """Node on which the instance should run (`spec.nodeID`); empty for no particular one."""
    owner_id: str = ""
    """Node whose controller manages it (`status.ownerID`)."""
    desired_state: str = ""
    current_state: str = ""
    instance_manager: str = ""
    """Name of the instance manager of its instance (`status.instanceManagerName`)."""


@dataclass(frozen=True, slots=True)
class ObservedInstance:
    """An instance as reported by an instance manager."""

    name: str
    uuid: str
    """Empty if the instance manager is older than 1.9."""
    kind: str
    """`engine`, `replica`, or a type that is not judged."""
    state: str
    data_engine: DataEngine = "v1"
    deleting: bool = False
    """Whether a delete was requested; the state alone does not show that of an instance in `error`."""

    @property
    def settled(self) -> bool:
        """Whether it is in a state that is judged."""
        return self.state in {State.RUNNING, State.ERROR} and not self.deleting


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A read that failed; never the same as the answer that there is nothing."""

    reason: str


class Verdict(StrEnum):
    """The judgement of an instance by its owner."""

    ORPHAN = auto()
    OWNED = auto()
    IN_TRANSITION = auto()
    """The instance is starting, stopping, stopped or being deleted."""
    NO_IDENTITY = auto()
    """It has no UUID: whether a later process of this name is the same one could not be known."""
    NOT_JUDGED = auto()
    """Its type has no owners, or its owner is of another kind."""
    UNKNOWN = auto()
    """The owner could not be read; the earlier verdict stands."""
    OWNER_IN_TRANSITION = auto()


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and the reason in words."""

    verdict: Verdict
    reason: str

    @property
    def is_orphan(self) -> bool:
        """Whether the verdict is that nothing owns the instance."""
        return self.verdict is Verdict.ORPHAN


def judge(instance: ObservedInstance, owner: Owner | Unreadable | None, manager: str) -> Judgement:
    """Judge an instance by its owner.

    Args:
        instance: the instance as it was read.
        owner: the owner of this name, None if there is none.
        manager: name of the instance manager on which it runs.
    """
    if not instance.settled:
        doing = "being deleted" if instance.deleting else instance.state or "in no state"
        return Judgement(Verdict.IN_TRANSITION, f"the instance is {doing}: only running and error are judged")
    if not instance.uuid:
        return Judgement(
            Verdict.NO_IDENTITY, "the instance has no UUID: its instance manager is older than 1.9"
        )
    if instance.kind not in set(OwnerKind):
        return Judgement(
            Verdict.NOT_JUDGED, f"an instance of type {instance.kind!r} has no owner to look for"
        )
    if isinstance(owner, Unreadable):
        return Judgement(Verdict.UNKNOWN, f"the owner could not be read: {owner.reason}")
    if owner is None:
        return Judgement(Verdict.ORPHAN, "the instance has no owner")
    if owner.kind != instance.kind:
        return Judgement(
            Verdict.NOT_JUDGED, f"its owner's kind is {owner.kind}, its own type {instance.kind}"
        )
    return _judge_by_present(owner, manager)


def _judge_by_present(owner: Owner, manager: str) -> Judgement:
    if transition := _transition(owner):
        return Judgement(Verdict.OWNER_IN_TRANSITION, transition)
    if owner.current_state == State.STOPPED:
        return Judgement(Verdict.ORPHAN, "its owner is stopped: no instance is expected anywhere")
    if owner.current_state != State.RUNNING:
        return Judgement(Verdict.OWNER_IN_TRANSITION, f"its owner is in state {owner.current_state}")
    if owner.instance_manager != manager:
        return Judgement(Verdict.ORPHAN, f"its owner runs on instance manager {owner.instance_manager}")
    return Judgement(Verdict.OWNED, "its owner runs here")


def _transition(owner: Owner) -> str:
    """Return why an owner's status is not final yet, empty if it is."""
    if owner.deleting:
        return "its owner is being deleted"
    if not owner.current_state or not owner.owner_id:
        return "its owner's status is not filled in yet"
    if owner.current_state == State.RUNNING and not owner.instance_manager:
        return "its owner's status does not say yet where it runs"
    if owner.current_state != owner.desired_state:
        return f"its owner is {owner.current_state} and wanted {owner.desired_state or 'in no state'}"
    if owner.node_id and owner.node_id != owner.owner_id:
        return f"its owner is scheduled to node {owner.node_id}, which does not look after it yet"
    return ""


def is_back(owner: Owner | Unreadable | None, instance: ObservedInstance, manager: str) -> bool:
    """Return whether an instance that was an orphan has an owner on its instance manager again."""
    return (
        isinstance(owner, Owner)
        and owner.kind == instance.kind
        and owner.instance_manager == manager
        and not _judge_by_present(owner, manager).is_orphan
    )


class Resolution(StrEnum):
    """The status of a record: open, or why it was closed."""

    OPEN = auto()
    """The instance is an orphan, as far as is known."""
    GONE = auto()
    """The instance ended by itself, or somebody else has deleted it."""
    REPLACED = auto()
    """Its name belongs to an instance with another UUID."""
    OWNED = auto()
    """It has an owner on this instance manager again."""
    MANAGER_LEFT = auto()
    """The instance manager itself is going away, or is no longer followed."""
    DELETED = auto()
    """It was deleted because of this record."""


AUTO_DELETION = "auto-deletion"
"""Stands for the person in records of automatic deletions."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """The record of one orphan."""

    instance: ObservedInstance
    """As it was when it was declared an orphan."""
    manager: str
    """Name of the instance manager on which it runs."""
    created: float
    """Seconds since the epoch."""
    reason: str
    """Why it was declared an orphan."""
    exists: bool = True
    """The condition `InstanceExist`: whether the instance existed when it was last read."""
    resolution: Resolution = Resolution.OPEN
    ended: float = 0.0
    """When it was closed, in seconds since the epoch."""
    outcome: str = ""
    """Why it was closed, in words."""
    requested_by: str = ""
    """Who asked for the instance to be deleted; empty if nobody did."""
    requested_at: float = 0.0
    """When they did, in seconds since the epoch."""
    deleted_by: str = ""
    """Who deleted it; set once the instance manager has accepted the delete."""
    attempts: int = 0
    """How many deletes have failed."""
    last_error: str = ""
    """Why the last delete failed or was not sent."""

    @property
    def name(self) -> str:
        """The name of the record, unique to the instance and its instance manager."""
        return record_name(self.instance, self.manager)

    @property
    def type(self) -> str:
        """`engine-instance` or `replica-instance`."""
        return f"{self.instance.kind}-instance"

    @property
    def parameters(self) -> dict[str, str]:
        """Which instance the record is about."""
        return {
            "InstanceName": self.instance.name,
            "InstanceUUID": self.instance.uuid,
            "InstanceManager": self.manager,
        }

    def with_request_of(self, other: "Orphan") -> "Orphan":
        """Return the record with the later of the two requests to delete the instance."""
        if other.requested_at <= self.requested_at:
            return self
        return replace(self, requested_by=other.requested_by, requested_at=other.requested_at)

    def close(self, resolution: Resolution, now: float, outcome: str) -> "Orphan":
        """Return the record closed."""
        exists = resolution not in {Resolution.GONE, Resolution.REPLACED, Resolution.DELETED}
        return replace(self, exists=exists, resolution=resolution, ended=now, outcome=outcome)

    def close_as_gone(self, now: float) -> "Orphan":
        """Return the record closed because the instance is gone; it is unknown who has ended it."""
        asked = f"; {self.requested_by} had asked for its deletion" if self.requested_by else ""
        return self.close(Resolution.GONE, now, f"the instance is gone{asked}")


def record_name(instance: ObservedInstance, manager: str) -> str:
    """Return the name of an instance's record; it depends on nothing but the instance and its manager."""
    key = f"{instance.name}-{instance.uuid}-{manager}-{instance.data_engine}"
    return f"orphan-{hashlib.sha256(key.encode()).hexdigest()}"


def review(
    record: Orphan,
    instance: ObservedInstance | Unreadable | None,
    owner: Owner | Unreadable | None,
    now: float,
) -> Orphan:
    """Return an open record updated, or closed, by what its instance and owner are now.

    Args:
        record: the open record.
        instance: the instance that has the name now, None if there is none.
        owner: the owner of that name, None if there is none.
        now: seconds since the epoch.
    """
    if isinstance(instance, Unreadable):
        return record
    gone = instance is None or instance.uuid != record.instance.uuid
    if gone and record.deleted_by:
        return record.close(Resolution.DELETED, now, f"deleted by {record.deleted_by}")
    if instance is None:
        return record.close_as_gone(now)
    if gone:
        return record.close(
            Resolution.REPLACED, now, f"the name belongs to an instance with UUID {instance.uuid}"
        )
    if is_back(owner, record.instance, record.manager):
        return record.close(Resolution.OWNED, now, "the owner is back on this instance manager")
    return record


def deletion_requester(record: Orphan, now: float, *, auto_deletion: bool, grace: float) -> str:
    """Return on whose behalf the instance of an open record is to be deleted now, empty if not at all.

    Args:
        record: the open record.
        now: seconds since the epoch.
        auto_deletion: whether orphans are deleted without a request.
        grace: seconds that auto-deletion leaves a new orphan alone.
    """
    if record.requested_by:
        return record.requested_by
    return AUTO_DELETION if auto_deletion and now - record.created >= grace else ""
