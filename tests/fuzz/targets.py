"""What is fed with noise: each target takes bytes and fails if something happens that nobody has foreseen."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from instance_manager.adapters.journal import SqliteJournal, codec
from instance_manager.app.interfaces import JournalRecord
from instance_manager.core.adoption import parse_recovery_metadata
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.names import validate_name
from instance_manager.core.ports import MAX_PORT, PortRange, parse_port_range
from instance_manager.core.process import Body, Identity, Process, State
from instance_manager.core.spec import MAX_COMMAND_BYTES, ProcessSpec, command_line, validate_spec

BOOT_ID = "this-boot"
IDENTITY = Identity(pid=4711, start_time=1)
_SEPARATOR = "\x1f"
_PORT_DIGITS = 5


def validation(data: bytes) -> None:
    """A spec that is accepted can be turned into a file name and a command line."""
    name, binary, count, port_args, *args = [*_words(data), "", "", "", ""]
    with contextlib.suppress(ValueError):
        spec = ProcessSpec(name, binary, tuple(args), int(count or 0), tuple(port_args.split(";")))
        try:
            validate_spec(spec)
        except InvalidArgumentError:
            return
        assert Path("/logs", f"{name}.log").parent == Path("/logs")
        assert len(f"{name}.log".encode()) <= 255
        ports = PortRange(1, spec.port_count) if spec.port_count else None
        words = command_line(spec, ports)
        assert "\0" not in "".join(words)
        allowed = MAX_COMMAND_BYTES + _PORT_DIGITS * len(spec.port_args)
        assert sum(len(word.encode(errors="surrogatepass")) for word in words) <= allowed


def port_range(data: bytes) -> None:
    """A port range that is accepted is one."""
    try:
        ports = parse_port_range(_text(data))
    except InvalidArgumentError:
        return
    assert 1 <= ports.start <= ports.end <= MAX_PORT
    assert parse_port_range(str(ports)) == ports


def process_text(data: bytes) -> None:
    """A process that is read from the journal's text can be written and read again, and be supervised."""
    try:
        process = codec.decode(_text(data))
    except ValueError:
        return
    assert codec.decode(codec.encode(process)) == process
    _sane(process)


def recovery_metadata(data: bytes) -> None:
    """What a process carries in its environment is a process or refused."""
    text, *words = _words(data)
    with contextlib.suppress(ValueError):
        process = parse_recovery_metadata("a", "u", text, words, IDENTITY).process
        _sane(process)


def journal(data: bytes) -> None:
    """Whatever is in the journal's file, the daemon starts, and what it writes then is read by the next."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder, "journal.db")
        path.write_bytes(data)
        for expected in ((), ("u",)):
            opened = SqliteJournal(path, BOOT_ID)
            try:
                records = opened.open()
                assert set(expected) <= {record.process.uuid for record in records}
                for record in records:
                    _sane(record.process)
                opened.record(RECORD)
            finally:
                opened.close()


def _sane(process: Process) -> None:
    """Hold what taking a process over relies on."""
    validate_name(process.name)
    if process.ports is not None:
        assert 1 <= process.ports.start <= process.ports.end <= MAX_PORT
    if process.identity is not None:
        assert 1 <= process.identity.pid < 2**31
        assert 0 <= process.identity.start_time < 2**63


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _words(data: bytes) -> list[str]:
    return _text(data).split(_SEPARATOR)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


SPEC = ProcessSpec("a", "/bin/a", ("-v",), 2, ("--listen,:",), "engine")
RECORD = JournalRecord(
    Process(SPEC, "u", PortRange(1, 2), State.RUNNING, body=Body.ALIVE, identity=IDENTITY), listed=True
)
TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "validation": validation,
    "port_range": port_range,
    "process_text": process_text,
    "envelope": recovery_metadata,
    "journal": journal,
}


def seeds() -> dict[str, list[bytes]]:
    """Return inputs to begin with: what the daemon itself writes."""
    words = ["--listen", ":1"]
    carried = json.dumps(
        {
            "binary": "/bin/a",
            "args": 1,
            "port_count": 2,
            "port_args": ["--listen,:"],
            "ports": [1, 2],
            "replaces": "",
        }
    )
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder, "journal.db")
        opened = SqliteJournal(path, BOOT_ID)
        opened.open()
        opened.record(RECORD)
        opened.close()
        written = path.read_bytes()
    return {
        "validation": [_SEPARATOR.join(["vol-e-0", "/bin/a", "2", "--listen,:;-p", "-v"]).encode()],
        "port_range": [b"10000-30000", b" 1 - 65535 "],
        "process_text": [codec.encode(RECORD.process).encode()],
        "envelope": [_SEPARATOR.join([carried, "/bin/a", "-v", *words]).encode()],
        "journal": [written],
    }
