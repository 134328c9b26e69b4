"""Where the daemon looks for the SPDK service."""

import pytest

from instance_manager.cli.spdk import spdk_target
from instance_manager.core.errors import InvalidArgumentError

RANGE = "20001-30000"


@pytest.mark.parametrize(
    ("listen_port", "address", "target"),
    [
        (8500, None, "localhost:8504"),
        (9000, None, "localhost:9004"),
        (0, None, "localhost:8504"),
        (8500, "10.0.0.1:1234", "10.0.0.1:1234"),
        (8500, "tcp://spdk:1234", "spdk:1234"),
        (8500, "unix:///run/spdk.sock", "unix:/run/spdk.sock"),
    ],
)
def test_the_service_is_four_ports_further_on_or_where_it_is_said_to_be(
    listen_port: int, address: str | None, target: str
) -> None:
    assert spdk_target(listen_port, address, RANGE, enabled=True) == target
    assert spdk_target(listen_port, address, RANGE, enabled=False) is None


@pytest.mark.parametrize(
    ("address", "ports"), [("nowhere", RANGE), ("unix:", RANGE), (None, "9-1"), (None, "x")]
)
def test_an_address_or_range_that_is_none_is_refused_also_when_v2_is_off(
    address: str | None, ports: str
) -> None:
    for enabled in (True, False):
        with pytest.raises(InvalidArgumentError):
            spdk_target(8500, address, ports, enabled=enabled)


def test_without_v2_the_ports_further_on_need_not_exist() -> None:
    assert spdk_target(65532, None, RANGE, enabled=False) is None
