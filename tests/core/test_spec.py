"""What a caller may ask for, and the command line that comes of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.ports import PortRange
from instance_manager.core.spec import ProcessSpec, command_line, validate_spec

SPEC = ProcessSpec(name="r", binary="/bin/r", args=("-v",), port_count=2, port_args=("--listen,0.0.0.0:",))


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        ProcessSpec(name="r", binary="sleep"),
        replace(SPEC, port_count=0, port_args=()),
        replace(SPEC, port_count=65535),
        replace(SPEC, port_args=("--a", "--b")),
        replace(SPEC, args=("", "ä", " ", "a,b")),
    ],
    ids=str,
)
def test_a_spec_that_can_be_met_is_accepted_and_unchanged(spec: ProcessSpec) -> None:
    before = replace(spec)
    validate_spec(spec)
    assert spec == before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SPEC, name=""), "empty name"),
        (replace(SPEC, binary="/" + "b" * 4095), "binary of 4096 bytes: 4095 is the most"),
        (replace(SPEC, args=("",) * 1022), "command line of 1025 words: 1024 is the most"),
        (replace(SPEC, port_args=("," * 1022,)), "command line of 1025 words"),
        (replace(SPEC, args=("ä" * 65_536,)), "command line of 131095 bytes: 131071 is the most"),
        (replace(SPEC, name="../r"), "DNS-1123"),
        (replace(SPEC, binary=""), "set spec.binary"),
        (replace(SPEC, binary="/bin/\0r"), "NUL character"),
        (replace(SPEC, args=("a", "b\0")), "NUL character"),
        (replace(SPEC, port_args=("\0",)), "NUL character"),
        (replace(SPEC, port_count=-1), "port_count of -1: it is 0 to 65535"),
        (replace(SPEC, port_count=65536), "port_count of 65536"),
        (replace(SPEC, port_count=0), "1 port_args with a port_count of 0"),
        (replace(SPEC, port_count=1, port_args=("a", "b")), "2 port_args with a port_count of 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_spec_that_cannot_be_met_is_refused_by_field(spec: ProcessSpec, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        validate_spec(spec)


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, binary="/" + "b" * 4094),
        replace(SPEC, args=("",) * 1021),
        replace(SPEC, args=("x" * (131_071 - len("/bin/r--listen,0.0.0.0:")),)),
    ],
    ids=["binary", "words", "bytes"],
)
def test_a_spec_that_is_as_big_as_may_be_is_accepted(spec: ProcessSpec) -> None:
    validate_spec(spec)


@pytest.mark.parametrize(
    ("port_args", "words"),
    [
        ((), ()),
        (("--listen,0.0.0.0:",), ("--listen", "0.0.0.0:10000")),
        (("--listen,:", "--data-port,"), ("--listen", ":10000", "--data-port", "10001")),
        (("--port=",), ("--port=10000",)),
        (("", ""), ("10000", "10001")),
        (("a,b,c",), ("a", "b", "c10000")),
    ],
)
def test_each_port_argument_gets_the_next_port(port_args: tuple[str, ...], words: tuple[str, ...]) -> None:
    spec = replace(SPEC, port_args=port_args)
    assert command_line(spec, PortRange(10000, 10001)) == ("/bin/r", "-v", *words)


def test_commas_in_ordinary_arguments_stay() -> None:
    assert command_line(ProcessSpec(name="r", binary="/b,r", args=("a,b",)), None) == ("/b,r", "a,b")


@given(
    start=st.integers(1, 60000),
    spare=st.integers(0, 5),
    port_args=st.lists(st.text(alphabet="-a=:,", max_size=6), max_size=6),
)
def test_the_i_th_port_argument_ends_with_port_start_plus_i(
    start: int, spare: int, port_args: list[str]
) -> None:
    count = len(port_args) + spare
    spec = replace(SPEC, port_count=count, port_args=tuple(port_args))
    ports = PortRange(start, start + count - 1) if count else None
    line = command_line(spec, ports)
    assert line[:2] == ("/bin/r", "-v")
    joined = "".join(f"{arg}{start + i}," for i, arg in enumerate(port_args))
    assert "".join(f"{word}," for word in line[2:]) == joined
