"""Instances of the v2 data engine: what is told of one that cannot be asked."""

from instance_manager.core.instance import InstanceType
from instance_manager.core.spdk import SpdkInstance, last_known


def test_an_instance_as_known_last_keeps_its_state_and_its_own_error() -> None:
    known = SpdkInstance(InstanceType.ENGINE, "v-e-0", "running", uuid="u")
    told = last_known(known, "the service is away")
    assert (told.state, told.uuid) == ("running", "u")
    assert told.error_msg == "last known state: the service is away"
    failed = SpdkInstance(InstanceType.ENGINE, "v-e-0", "error", error_msg="disk full")
    assert last_known(failed, "the service is away").error_msg == (
        "last known state: the service is away; reported by it: disk full"
    )
