"""A host is listened on at every address it has, or not at all."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from structlog.testing import capture_logs

from instance_manager.core.addresses import Address
from instance_manager.platform import listening
from instance_manager.platform.listening import (
    AddressError,
    AddressInUseError,
    address_of,
    port_is_free,
    reserve,
)
from tests.support.patience import patience

OPTION = "--listen"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def listener(stack: ExitStack, host: str, port: int = 0) -> int:
    """Listen at an address as a foreign program does; return the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = stack.enter_context(socket.socket(family))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    held.bind((host, port))
    held.listen()
    return int(held.getsockname()[1])


class NoSuchFamily:
    """The sockets of a machine whose kernel refuses one family, or one address of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        made = socket.socket

        def create(family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(code, "refused by the kernel")
            return made(family, kind)

        monkeypatch.setattr(socket, "socket", create)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
def test_localhost_is_both_loopbacks_with_the_same_port(host: str) -> None:
    with reserve(Address(host, 0), OPTION) as sockets:
        found = [address_of(each) for each in sockets]
    assert [each.host for each in found] == ["127.0.0.1", "::1"]
    assert len({each.port for each in found}) == 1


@pytest.mark.parametrize("host", ["", "::"])
def test_every_address_is_that_of_both_families(host: str) -> None:
    with reserve(Address(host, 0), OPTION) as sockets:
        assert [address_of(each).host for each in sockets] == ["0.0.0.0", "::"]


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1", "0.0.0.0", "::"])
@pytest.mark.parametrize("host", ["localhost", "", "::"])
def test_half_of_a_host_that_another_program_has_refuses_the_whole(
    stack: ExitStack, taken: str, host: str
) -> None:
    port = listener(stack, taken)
    with (
        pytest.raises(AddressInUseError, match=rf"\S+:{port} is in use by another program; .* --listen$"),
        reserve(Address(host, port), OPTION),
    ):
        pytest.fail("it was reserved")


def test_any_port_is_one_that_is_free_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked for a port of IPv4, which others may have for IPv6."""
    asked = 0
    bind = listening._bind

    def crowded(address: Address, *rest: Any) -> list[socket.socket]:
        nonlocal asked
        asked += 1
        if asked < 5:
            raise AddressInUseError("taken")
        return bind(address, *rest)

    monkeypatch.setattr(listening, "_bind", crowded)
    with reserve(Address("localhost", 0), OPTION) as sockets:
        assert len(sockets) == 2
    assert asked == 5


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_what_the_machine_does_not_have_is_left_out_and_logged(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    NoSuchFamily(monkeypatch, code)
    with capture_logs() as lines, reserve(Address("localhost", 0), OPTION) as sockets:
        assert [address_of(each).host for each in sockets] == ["127.0.0.1"]
    (line,) = lines
    assert line["event"].startswith("address left out")
    assert line["address"].startswith("[::1]:")


def test_a_host_that_is_elsewhere_and_one_that_is_nowhere_are_refused() -> None:
    for host, reason in (("192.0.2.1", "not an address of this machine"), ("nowhere.invalid", "")):
        with (
            pytest.raises(
                AddressError, match=rf"^cannot listen on {host}:1: .*{reason}.*--listen$"
            ) as caught,
            reserve(Address(host, 1), OPTION),
        ):
            pytest.fail("it was reserved")
        assert not isinstance(caught.value, AddressInUseError)


@pytest.mark.parametrize("taken", ["127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::"])
def test_a_port_is_not_free_while_anybody_listens_on_any_address_of_it(taken: str) -> None:
    with ExitStack() as stack:
        port = listener(stack, taken)
        assert not port_is_free(port)
    assert port_is_free(port)


def test_a_port_that_was_just_closed_with_a_connection_on_it_is_free() -> None:
    """Its connection is in TIME_WAIT, which keeps no server from listening."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port), timeout=patience(20))
        accepted, _ = server.accept()
        accepted.close()
        assert client.recv(1) == b""
        client.close()
    assert port_is_free(port)
