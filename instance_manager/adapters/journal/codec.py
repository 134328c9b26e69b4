"""Processes as JSON text, changes as rows.

Unknown keys are ignored and missing ones get their default, so that versions can read each other's journals.
"""

import json
from typing import Any

from instance_manager.core.change import Change
from instance_manager.core.errors import MALFORMED
from instance_manager.core.names import validate_name
from instance_manager.core.ports import port_range
from instance_manager.core.process import Body, ExitStatus, Identity, Process, State
from instance_manager.core.spec import ProcessSpec

_TOO_LARGE_PID, _TOO_LATE = 2**31, 2**63
"""Limits of PIDs and start times; system calls fail on larger ones."""

_BODIES = {
    State.STARTING: {Body.ABSENT, Body.ALIVE},
    State.RUNNING: {Body.ALIVE},
    State.STOPPING: {Body.ABSENT, Body.ALIVE, Body.LEADER_EXITED},
    State.STOPPED: {Body.LEADER_EXITED, Body.GONE},
    State.ERROR: {Body.ALIVE, Body.LEADER_EXITED, Body.GONE},
}
"""What may exist of a process in each state; from anything else no daemon could go on."""

_ENCODER = json.JSONEncoder(separators=(",", ":"))


def encode(process: Process) -> str:
    """Return a process as text."""
    spec, ports, identity, exit_status = process.spec, process.ports, process.identity, process.exit
    return _ENCODER.encode(
        {
            "name": spec.name,
            "binary": spec.binary,
            "args": spec.args,
            "port_count": spec.port_count,
            "port_args": spec.port_args,
            "type": spec.instance_type,
            "volume": spec.volume_name,
            "uuid": process.uuid,
            "ports": [ports.start, ports.end] if ports else None,
            "state": process.state,
            "failure": process.failure,
            "hindrance": process.stop_error,
            "doubt": process.doubt,
            "conditions": process.conditions,
            "body": process.body,
            "identity": [identity.pid, identity.start_time] if identity else None,
            "exit": [exit_status.code, exit_status.signal, exit_status.known] if exit_status else None,
            "stop_signal": process.stop_signal,
            "killed": process.killed,
            "doomed": process.deletion_requested,
        }
    )


def decode(text: str) -> Process:
    """Return the process in a text.

    Raises:
        ValueError: if the text is malformed.
    """
    try:
        return _decode(json.loads(text))
    except MALFORMED as error:
        raise ValueError(f"no process: {error!r}") from error


def decode_change(row: tuple[int, float, str, int, str, str]) -> Change:
    """Return the change in a row of `events`.

    Raises:
        ValueError: if the row is malformed.
    """
    revision, time, previous, deleted, successor, process = row
    before = State(previous) if previous else None
    return Change(revision, time, decode(process), before, bool(deleted), successor)


def _decode(data: dict[str, Any]) -> Process:
    ports, identity, exit_status = data.get("ports"), data.get("identity"), data.get("exit")
    # A name becomes a path.
    validate_name(str(data["name"]))
    state, body = State(data["state"]), Body(data["body"])
    if body not in _BODIES[state]:
        raise ValueError(f"no process is {state} and {body}")
    return Process(
        spec=ProcessSpec(
            name=str(data["name"]),
            binary=str(data["binary"]),
            args=tuple(map(str, data.get("args", ()))),
            port_count=int(data.get("port_count", 0)),
            port_args=tuple(map(str, data.get("port_args", ()))),
            instance_type=str(data.get("type", "")),
            volume_name=str(data.get("volume", "")),
        ),
        uuid=str(data["uuid"]),
        ports=port_range(int(ports[0]), int(ports[1])) if ports else None,
        state=state,
        failure=str(data.get("failure", "")),
        stop_error=str(data.get("hindrance", "")),
        doubt=str(data.get("doubt", "")),
        conditions={str(key): bool(value) for key, value in data.get("conditions", {}).items()},
        body=body,
        identity=_identity(int(identity[0]), int(identity[1])) if identity else None,
        exit=ExitStatus(int(exit_status[0]), str(exit_status[1]), bool(exit_status[2]))
        if exit_status
        else None,
        stop_signal=str(data.get("stop_signal", "SIGINT")),
        killed=bool(data.get("killed", False)),
        deletion_requested=bool(data.get("doomed", False)),
    )


def _identity(pid: int, start_time: int) -> Identity:
    if not (0 < pid < _TOO_LARGE_PID and 0 <= start_time < _TOO_LATE):
        raise ValueError(f"no process has PID {pid} and start time {start_time}")
    return Identity(pid, start_time)
