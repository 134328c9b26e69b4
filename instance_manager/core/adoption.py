"""Adoption of the processes of an earlier daemon: what to do with each, given what was found.

Also the recovery metadata: what a process carries in its environment, so that it can be adopted even if the
journal is lost.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from instance_manager.core import actions, events
from instance_manager.core.errors import MALFORMED
from instance_manager.core.names import validate_name
from instance_manager.core.ports import port_range
from instance_manager.core.process import Body, ExitStatus, Identity, Process, State
from instance_manager.core.spec import ProcessSpec, command_line

_LONGEST_METADATA = 100_000
"""Bytes; the kernel allows 128 KiB for one variable."""

_LONGEST_ARGS = 8192
"""Characters of arguments that it carries twice."""

_ENCODER = json.JSONEncoder(separators=(",", ":"))

UNKNOWN_EXIT = ExitStatus(known=False)
NEVER_SPAWNED = "the instance manager died before the process was started; delete it and create it again"


def plan_adoption(
    process: Process, found: Identity | None, exit_status: ExitStatus | None
) -> tuple[tuple[actions.Action, ...], tuple[events.Event, ...]]:
    """Decide how to continue with a process that an earlier daemon recorded.

    Args:
        process: the process as it was recorded.
        found: identity of the OS process if it is still alive, else None.
        exit_status: how it ended, None if unknown.

    Returns:
        Actions to run and events to apply.
    """
    match process.body:
        case Body.ABSENT:
            return (), (events.Spawned(found) if found else events.SpawnFailed(NEVER_SPAWNED),)
        case Body.ALIVE if found is None:
            return (), (events.Exited(exit_status or UNKNOWN_EXIT),)
        case Body.ALIVE:
            return _go_on(process), ()
        case Body.LEADER_EXITED:
            return (actions.KillTree(),), ()
    return ((actions.Remove(),) if process.deletion_requested else ()), ()


def _go_on(process: Process) -> tuple[actions.Action, ...]:
    if process.state is State.STARTING:
        return (actions.AwaitReady(),)
    if process.state is State.RUNNING:
        return ()
    if process.killed:
        return actions.Signal("SIGKILL", session=True), actions.StartTimer(actions.Timer.RETRY)
    return actions.Signal(process.stop_signal), actions.StartTimer(actions.Timer.GRACE)


def recovery_metadata(process: Process, replaces: str) -> str:
    """Return the text that a process carries for `parse_recovery_metadata`; empty if it would be too long."""
    spec, ports = process.spec, process.ports
    # Its command line says the same, but a process can change that.
    words = list(spec.args) if sum(map(len, spec.args)) <= _LONGEST_ARGS else None
    text = _ENCODER.encode(
        {
            "binary": spec.binary,
            "args": len(spec.args),
            "words": words,
            "port_count": spec.port_count,
            "port_args": spec.port_args,
            "ports": [ports.start, ports.end] if ports else None,
            "replaces": replaces,
            "type": spec.instance_type,
            "volume": spec.volume_name,
        }
    )
    return text if len(text.encode()) <= _LONGEST_METADATA else ""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A process that was recovered from what it carries."""

    process: Process
    """As running."""
    replaces: str
    """UUID of the process that it replaces; empty if it replaces none."""
    as_started: bool
    """Whether it has the command line that it was started with.

    If not, it has executed another program or shows a title; or it is a descendant of one that has ended.
    """


def _carried(words: object) -> tuple[str, ...] | None:
    """Return the arguments in the metadata; None if there are none, as with earlier versions."""
    if words is None:
        return None
    if not isinstance(words, list):
        raise TypeError("words is no list")
    return tuple(map(str, words))


def parse_recovery_metadata(
    name: str, uuid: str, text: str, words: Sequence[str], identity: Identity
) -> Recovered:
    """Return the process that carries the metadata.

    If neither metadata nor command line tell its arguments, it has none.

    Args:
        name: the name in its environment.
        uuid: the UUID in its environment.
        text: the metadata.
        words: its command line. An interpreter may precede the requested program.
        identity: identity of the OS process.

    Raises:
        ValueError: if the metadata is malformed.
    """
    try:
        validate_name(name)
        data = json.loads(text)
        ports = port_range(*map(int, data["ports"])) if data["ports"] else None
        spec = ProcessSpec(
            name=name,
            binary=str(data["binary"]),
            port_count=int(data["port_count"]),
            port_args=tuple(map(str, data["port_args"])),
            instance_type=str(data.get("type", "")),
            volume_name=str(data.get("volume", "")),
        )
        count, replaces = int(data["args"]), str(data["replaces"])
        args = _carried(data.get("words"))
    except MALFORMED as error:
        raise ValueError(f"no recovery metadata: {error!r}") from error
    tail = command_line(spec if args is None else replace(spec, args=args), ports)[1:]
    end = len(words) - len(tail)
    as_started = end >= 1 and tuple(words[end:]) == tail
    if args is None:
        as_started = as_started and end > count
        args = tuple(words[end - count : end]) if as_started else ()
    spec = replace(spec, args=args)
    process = Process(
        spec=spec, uuid=uuid, ports=ports, state=State.RUNNING, body=Body.ALIVE, identity=identity
    )
    return Recovered(process, replaces, as_started)
