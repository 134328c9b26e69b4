"""What can be observed about an engine's volume."""

import pytest

from instance_manager.core.conditions import FILESYSTEM_READ_ONLY, observe, volume_key


def test_the_key_of_a_volume_is_the_hash_that_the_csi_driver_mounts_it_under() -> None:
    # printf vol | sha256sum
    assert volume_key("vol") == "b9f6da279ec59af95d121d1e1e502ecf056504e267f2f7dfc747ebd0f3f74298"


@pytest.mark.parametrize("name", ["vol-r-0", "vol", "share-manager"])
def test_nothing_is_observed_about_other_processes(name: str) -> None:
    assert observe(name, {volume_key("vol"), volume_key(name)}) == {}


def test_an_engine_tells_whether_its_own_volume_is_read_only() -> None:
    assert FILESYSTEM_READ_ONLY == "FilesystemReadOnly"
    assert observe("vol-e-0", set()) == {FILESYSTEM_READ_ONLY: False}
    assert observe("vol-e-0", {volume_key("other")}) == {FILESYSTEM_READ_ONLY: False}
    assert observe("vol-e-0", {volume_key("vol")}) == {FILESYSTEM_READ_ONLY: True}
    assert observe("vol-1-e-0", {volume_key("vol")}) == {FILESYSTEM_READ_ONLY: False}
    assert observe("vol-1-e-0", {volume_key("vol-1")}) == {FILESYSTEM_READ_ONLY: True}
