"""What is decided about v2 engines."""

import pytest

from instance_manager.core.engine_v2 import backup_labels, is_rebuilding, with_scheme, without_scheme


def test_the_parameters_of_a_backup_are_labels_but_only_those_that_are_known() -> None:
    parameters = {"backup-mode": "full", "backup-block-size": "2", "other": "x"}
    assert backup_labels({"k": "v"}, parameters) == {
        "k": "v",
        "longhorn.io/backup-parameter.backup-mode": "full",
        "longhorn.io/backup-parameter.backup-block-size": "2",
    }
    assert backup_labels({"k": "v"}, {}) == {"k": "v"}


@pytest.mark.parametrize("bare", ["10.0.0.1:20001", "[::1]:20001", ""])
def test_an_address_has_its_scheme_once(bare: str) -> None:
    told = with_scheme(bare)
    assert told == (f"tcp://{bare}" if bare else "")
    assert with_scheme(told) == told
    assert without_scheme(told) == without_scheme(bare) == bare


@pytest.mark.parametrize(
    ("state", "goes_on"),
    [("", False), ("starting", True), ("in_progress", True), ("complete", False), ("error", False)],
)
def test_a_rebuild_goes_on_until_it_has_ended(state: str, goes_on: bool) -> None:
    assert is_rebuilding(state) is goes_on
