"""What is explored, every day and in full, and what has to come out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from instance_manager.orphans.verification import INSTANCE_THEN_OWNER
from tests.orphans.explorer.agents import OwnerFirstAgent, RealAgent
from tests.orphans.explorer.explore import Explorer, Findings, Scenario
from tests.orphans.explorer.world import Script

A = Script("a", starts=False)
B = Script("b", starts=False)
ABANDONED = Script("a", starts=False, abandoned=True)

THREE_READS: Sequence[Scenario] = (
    Scenario("two created and deleted at once", (A, B), RealAgent),
    Scenario("one with every detail", (Script("a", fails=True, status=True),), RealAgent, rewinds=2),
    Scenario("a name that is used again", (Script("a", starts=False, reused=True),), RealAgent),
    Scenario(
        "one abandoned, one deleted", (Script("a", starts=False, abandoned=True), B), RealAgent, rewinds=0
    ),
    Scenario("two abandoned", (ABANDONED, Script("b", starts=False, abandoned=True)), RealAgent, rewinds=0),
)
"""No false orphan may come out of these, and no true one may be missed."""

TWO_READS: Sequence[Scenario] = (
    Scenario("process, then owner", (Script("a"),), partial(RealAgent, INSTANCE_THEN_OWNER)),
    Scenario("owner, then process", (A, B), partial(OwnerFirstAgent, ("a", "b")), rewinds=0, crashes=0),
    Scenario(
        "three reads, the deletion of a failed one not reported",
        (Script("a", fails=True, shows_deletes=False),),
        RealAgent,
    ),
)
"""False orphans have to come out of these: else the check could not find any."""

FULL: Sequence[Scenario] = (
    Scenario("two, with every state", (Script("a"), Script("b")), RealAgent),
    Scenario("two, caches rewound twice", (A, B), RealAgent, rewinds=2),
    Scenario("two, two crashes", (A, B), RealAgent, crashes=2),
    Scenario(
        "two that may fail",
        (Script("a", starts=False, fails=True), Script("b", starts=False, fails=True)),
        RealAgent,
        rewinds=0,
    ),
    Scenario("a name used again, with every state", (Script("a", fails=True, reused=True),), RealAgent),
    Scenario("one abandoned, one deleted, rewound", (ABANDONED, B), RealAgent),
)
"""As `THREE_READS`, and larger."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scenario, what came out of it, and whether it is what has to."""

    scenario: Scenario
    findings: Findings
    expected: bool


def run(scenario: Scenario) -> Outcome:
    """Explore one scenario."""
    findings = Explorer(scenario).run()
    clean = not findings.false_orphans and not findings.missed
    expected = findings.false_orphans > 0 if scenario in TWO_READS else clean
    return Outcome(scenario, findings, expected)
