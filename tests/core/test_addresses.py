"""Addresses as people write them, and as gRPC does."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.addresses import Address, parse_address
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.ports import MAX_PORT

NAMES = st.text(st.characters(exclude_characters="[]:/"))
IPV6 = st.ip_addresses(v=6).map(str) | st.just("fe80::1%eth0")
TCP = st.builds(Address, host=NAMES | IPV6, port=st.integers(0, MAX_PORT))
UNIX = st.builds(Address, path=st.text(min_size=1))


@given(address=TCP | UNIX)
def test_what_is_written_is_read_as_the_same_address(address: Address) -> None:
    assert parse_address(str(address)) == address


@given(address=TCP)
def test_a_scheme_changes_nothing(address: Address) -> None:
    assert parse_address(f"tcp://{address}") == address


@given(text=st.text("[]:/.0123456789aunixtcp") | st.text())
def test_any_text_is_refused_or_an_address_that_can_be_written_again(text: str) -> None:
    with suppress(InvalidArgumentError):
        address = parse_address(text)
        assert parse_address(str(address)) == address
        assert (address.path == "") == (not text.startswith("unix:"))
        assert 0 <= address.port <= MAX_PORT


@pytest.mark.parametrize(
    ("text", "address", "target"),
    [
        ("localhost:8500", Address("localhost", 8500), "localhost:8500"),
        ("tcp://10.0.0.1:8500", Address("10.0.0.1", 8500), "10.0.0.1:8500"),
        ("[::1]:0", Address("::1", 0), "[::1]:0"),
        (":8500", Address("", 8500), "[::]:8500"),
        ("unix:///run/im.sock", Address(path="/run/im.sock"), "unix:/run/im.sock"),
        ("unix:im.sock", Address(path="im.sock"), "unix:im.sock"),
    ],
)
def test_an_address_is_what_grpc_calls_a_target(text: str, address: Address, target: str) -> None:
    assert (parse_address(text), parse_address(text).target) == (address, target)


@pytest.mark.parametrize(
    "text",
    [
        *("", "8500", "localhost", "localhost:", "localhost:http", "localhost:-1", "localhost:65536"),
        *("::1:8500", "[::1]", "[::1:8500", "[localhost]:1", "localhost:٩٥٠٠", f"localhost:{'9' * 5000}"),
        *("unix:", "unix://", "http://localhost:8500", "tcp://unix:/run/im.sock", "localhost/x:1"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"write HOST:PORT, \[IPV6\]:PORT or unix://PATH$"):
        parse_address(text)


def test_a_port_is_shifted_unless_it_is_any_that_is_free_or_there_is_none() -> None:
    assert parse_address("h:8500").shifted(3) == Address("h", 8503)
    for text in ("h:0", "unix:///run/im.sock"):
        assert parse_address(text).shifted(3) == parse_address(text)
