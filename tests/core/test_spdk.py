"""Instances of the v2 data engine: what is told of one that cannot be asked, and where others are."""

import pytest

from instance_manager.core.instance import InstanceType
from instance_manager.core.spdk import SpdkInstance, last_known, port_elsewhere


def test_an_instance_as_known_last_keeps_its_state_and_its_own_error() -> None:
    known = SpdkInstance(InstanceType.ENGINE, "v-e-0", "running", uuid="u")
    told = last_known(known, "the service is away")
    assert (told.state, told.uuid) == ("running", "u")
    assert told.error_msg == "last known state: the service is away"
    failed = SpdkInstance(InstanceType.ENGINE, "v-e-0", "error", error_msg="disk full")
    assert last_known(failed, "the service is away").error_msg == (
        "last known state: the service is away; reported by it: disk full"
    )


@pytest.mark.parametrize(
    ("local", "port"),
    [("localhost:8504", 8504), ("[::1]:9004", 9004), ("unix:/run/spdk.sock", 8504), ("unix:spdk.sock", 8504)],
)
def test_services_of_other_nodes_listen_where_the_one_here_does(local: str, port: int) -> None:
    assert port_elsewhere(local) == port
