"""Every string that two programs must agree on. The guard holds it in memory for good: it imports nothing."""

STATE_DIR = "/run/instance-manager"
"""The state directory of daemon, guard and doctor, unless an option names another."""
STATE_DIR_VARIABLE = "INSTANCE_MANAGER_DAEMON_STATE_DIR"
"""The daemon's option --state-dir, which the guard sets for it."""
GUARD_VARIABLE = "INSTANCE_MANAGER_GUARD"
"""PID of the guard; set only for the daemon."""
GUARD_STATE_DIR_VARIABLE = "INSTANCE_MANAGER_GUARD_STATE_DIR"
"""The guard's option --state-dir, which it sets for the daemon: there the two leave word for each other."""

# The daemon sets these for each instance, whose descendants inherit them.
NAME_VARIABLE = "INSTANCE_MANAGER_NAME"
UUID_VARIABLE = "INSTANCE_MANAGER_UUID"
NO_INSTANCE = "none"
"""Value of that for other programs that daemon and guard start: no instance has left them behind."""
OWNER_VARIABLE = "INSTANCE_MANAGER_OWNER"
"""Marks the processes of one state directory."""
RECOVERY_METADATA_VARIABLE = "INSTANCE_MANAGER_ENVELOPE"
"""Lets a process be adopted when the journal is lost, see `core.adoption`."""

JOURNAL = "journal.db"
"""The journal's file in the state directory."""
JOURNALED_UUIDS = "SELECT uuid FROM processes"
"""What doctor asks the journal, of whatever version."""
EXITS = "exits"
"""The folder in the guard's state directory in which the guard records how adopted processes have ended."""
ON_STOP = "on-stop"
"""The file there that says what becomes of instances at the end, see `format_on_stop`."""

LOG_SETTINGS = "log-settings"
"""The file there that says how much is logged: the level, and in a second line the areas in detail."""

FOLLOW_METADATA = "instance-manager-follow"
"""Metadata of a call that reads a log: "true" continues with new lines until the process has ended."""
TAIL_METADATA = "instance-manager-tail"
"""Metadata of the same: the number of lines to start with."""

METRICS_HEALTH = "metrics"
"""Name under which the health service tells whether metrics are served; unknown if none are to be."""
SPDK_HEALTH = "spdk"
"""Name under which it tells whether the SPDK service is there; unknown if v2 is not served."""
BACKGROUND_HEALTH = "background"
"""Name under which the health service tells of all background work; with a slash and its name, of each."""
BACKGROUND_WORKS = (
    "call-summary",
    "certificates",
    "engine-connections",
    "event-loop",
    "event-loop-lag",
    "health-report",
    "journal-check",
    "log-adopt",
    "log-echo",
    "log-follow",
    "log-history",
    "log-probe",
    "log-retention",
    "log-trim",
    "log-watch",
    "metrics-server",
    "mounts",
    "spdk-watch",
    "thaw",
)
"""Names of the daemon's background work."""


def exit_record_name(pid: int, start_time: int | str) -> str:
    """Return the file name of an exit record; a reused PID has another start time (in ticks since boot)."""
    return f"{pid}.{start_time}"


def format_exit(code: int, signal: str) -> str:
    """Return the content of an exit record; `signal` is the name or number of a signal, empty for none."""
    return f"signal {signal}" if signal else f"code {code}"


def parse_exit(text: str) -> tuple[int, str] | None:
    """Return the exit code and the signal in an exit record, None if it is not whole."""
    kind, _, value = text.strip().partition(" ")
    if kind == "signal" and value:
        return 0, value
    return (int(value), "") if kind == "code" and value.isdecimal() else None


def format_on_stop(grace: float | None) -> str:
    """Return the content of the file ON_STOP; `grace` is None if instances are to be left alone.

    Else it is how many seconds they get to end before they are killed.
    """
    return "leave\n" if grace is None else f"terminate {grace:g}\n"


def parse_on_stop(text: str) -> float | None:
    """Return the grace period in the content of that file, None if instances are to be left alone.

    Raises:
        ValueError: if it is something else.
    """
    kind, _, value = text.strip().partition(" ")
    if kind == "leave" and not value:
        return None
    if kind != "terminate":
        raise ValueError(f"{text!r} is neither leave nor terminate SECONDS")
    return float(value)
