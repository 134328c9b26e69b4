"""Any message of any service, made up from its descriptor; what it starts is harmless."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

import instance_manager.pb

Strategy = st.SearchStrategy[Any]

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
STRANGE = st.sampled_from(
    [
        "",
        ".",
        "..",
        "/",
        "../../tmp/x",
        "/etc/passwd",
        "a/b",
        "a\0b",
        "A",
        "-",
        "a" * 252,
        "a\n",
        "ä",
        "%s",
        "{}",
    ]
)
NAMES = st.one_of(st.sampled_from(["a", "b", "vol-e-0", "vol-r-1"]), STRANGE, TEXT)
ADDRESSES = st.sampled_from(
    ["", "127.0.0.1:1", "tcp://127.0.0.1:1/v1", "127.0.0.1:65535", ":1", "unix:/x", "%s"]
)
"""Nobody is there."""
BY_NAME: dict[str, Strategy] = {
    "address": ADDRESSES,
    "replica_address": ADDRESSES,
    "from_engine_address": ADDRESSES,
    "name": NAMES,
    "names": NAMES,
    # Nothing else is ever executed, and neither does anything.
    "binary": st.sampled_from(
        ["/bin/true", "/bin/false", "true", "/no/such/program", "/", "/etc/passwd", "", "\0"]
    ),
    "port_count": st.one_of(st.integers(0, 4), st.sampled_from([-1, 65_535, 65_536, 2**31 - 1, -(2**31)])),
    "terminate_signal": st.one_of(st.sampled_from(["SIGHUP", "SIGKILL", ""]), TEXT),
    "type": st.one_of(st.sampled_from(["engine", "replica", ""]), TEXT),
    "types": st.one_of(st.sampled_from(["engine", "replica"]), TEXT),
    "port_args": st.one_of(st.sampled_from(["--listen,127.0.0.1:", ",", ""]), TEXT),
    "level": st.one_of(st.sampled_from(["debug", "info", "warning", ""]), TEXT),
    # Of google.protobuf.Timestamp: more than any calendar knows.
    "seconds": st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 4 * 10**9)),
}
"""Values of the fields of these names, in whatever message."""

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.one_of(st.integers(-1, 10), st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.CPPTYPE_INT64: st.one_of(st.integers(-1, 10), st.integers(-(2**63), 2**63 - 1)),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
}
_DEEPEST = 4


def methods(services: Iterable[str]) -> list[MethodDescriptor]:
    """Return every method of these services, by their full names."""
    for module in pkgutil.walk_packages(instance_manager.pb.__path__, "instance_manager.pb."):
        importlib.import_module(module.name)
    pool = descriptor_pool.Default()
    return [method for service in sorted(services) for method in pool.FindServiceByName(service).methods]


def messages(kind: Descriptor, depth: int = 0) -> Strategy:
    """Return a strategy for the messages of a kind; any field may be missing."""
    fields = {field.name: _field(field, depth) for field in kind.fields if _fits(field, depth)}
    build: Callable[[dict[str, Any]], Message] = lambda values: _build(kind, values)  # noqa: E731
    return st.fixed_dictionaries({}, optional=fields).map(build)


def _build(kind: Descriptor, values: dict[str, Any]) -> Message:
    taken: set[str] = set()
    kept = {}
    for name, value in values.items():
        choice = kind.fields_by_name[name].containing_oneof
        if choice is not None and choice.name in taken:
            continue
        if choice is not None:
            taken.add(choice.name)
        kept[name] = value
    return GetMessageClass(kind)(**kept)


def _fits(field: FieldDescriptor, depth: int) -> bool:
    return field.message_type is None or depth < _DEEPEST


def _field(field: FieldDescriptor, depth: int) -> Strategy:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        return st.dictionaries(_value(entry["key"], depth), _value(entry["value"], depth), max_size=3)
    value = _value(field, depth)
    return st.lists(value, max_size=4) if field.is_repeated else value


def _value(field: FieldDescriptor, depth: int) -> Strategy:
    if field.message_type is not None:
        return messages(field.message_type, depth + 1)
    if field.name in BY_NAME:
        return BY_NAME[field.name]
    if field.enum_type is not None:
        # An enumeration of proto3 takes any number.
        return st.one_of(st.sampled_from([v.number for v in field.enum_type.values]), st.integers(-1, 99))
    if field.cpp_type in _INTEGERS:
        return _INTEGERS[field.cpp_type]
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return st.floats(width=32)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=40)
    return st.one_of(STRANGE, TEXT)
