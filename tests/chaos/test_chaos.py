"""The daemon is killed while clients work, and nothing is lost."""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.storm import LIST_WITHIN, Storm
from tests.support.patience import patience


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "lose_journal",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["journal kept", "journal lost"],
)
async def test_no_process_is_lost_or_doubled_when_the_daemon_is_killed_again_and_again(
    tmp_path: Path, sized: Callable[[int, int], int], lose_journal: bool
) -> None:
    rounds = sized(3, 100)
    storm = Storm(tmp_path, stable=sized(15, 500), seed=20261123, lose_journal=lose_journal)
    summary = await storm.run(rounds)
    assert summary.clean, vars(summary)
    assert summary.calls["create"] > 0
    assert len(summary.list_seconds) == rounds
    # Other tests load the machine, and a Python starts slowly; docs/reliability.md has the figure itself.
    within = patience(sized(6, 1) * LIST_WITHIN)
    assert statistics.median(summary.list_seconds) < within
    assert max(summary.list_seconds) < 2 * within
