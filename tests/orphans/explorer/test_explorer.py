"""Every order in which instances come and go and an agent reads them: no false orphan, no missed one."""

import pytest

from tests.orphans.explorer.explore import Scenario
from tests.orphans.explorer.scenarios import FULL, THREE_READS, TWO_READS, run

TIMEOUT = 600  # seconds; the machine may be busy with something else


def name_of(scenario: Scenario) -> str:
    return scenario.name


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize("scenario", THREE_READS, ids=name_of)
def test_three_reads_find_every_orphan_and_no_other_in_any_order_of_things(scenario: Scenario) -> None:
    outcome = run(scenario)
    assert outcome.findings.schedules > 1_000_000
    assert outcome.expected, outcome.findings


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize("scenario", TWO_READS, ids=name_of)
def test_with_less_than_that_there_are_false_orphans(scenario: Scenario) -> None:
    outcome = run(scenario)
    assert outcome.findings.false_orphans > 0
    assert "an orphan" in outcome.findings.example[-1]


@pytest.mark.full
@pytest.mark.timeout(3 * TIMEOUT)
@pytest.mark.parametrize("scenario", FULL, ids=name_of)
def test_three_reads_are_enough_in_larger_worlds_too(scenario: Scenario) -> None:
    outcome = run(scenario)
    assert outcome.expected, outcome.findings
