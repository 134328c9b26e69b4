"""Explores every scenario and prints what came out: python -m tests.orphans.explorer [--full]."""

import argparse
import sys
import time

from tests.orphans.explorer.scenarios import FULL, THREE_READS, TWO_READS, run


def main() -> int:
    """Print a line for each scenario; 1 if one of them came out wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.orphans.explorer", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the larger scenarios too (minutes)")
    parser.add_argument(
        "--example", action="store_true", help="the steps that lead to the first false orphan"
    )
    arguments = parser.parse_args()
    wrong = 0
    print(
        f"{'scenario':58}{'schedules':>12}{'states':>10}{'steps':>11}{'false':>7}{'missed':>8}{'seconds':>9}"
    )
    for scenario in (*THREE_READS, *TWO_READS, *(FULL if arguments.full else ())):
        begun = time.perf_counter()
        outcome = run(scenario)
        found = outcome.findings
        print(
            f"{scenario.name:58}{found.schedules:12.2e}{found.states:10}{found.steps:11}"
            f"{found.false_orphans:7}{found.missed:8}{time.perf_counter() - begun:9.1f}"
            f"{'' if outcome.expected else '  <- not as it has to be'}",
            flush=True,
        )
        wrong += not outcome.expected
        if found.example and (arguments.example or not outcome.expected):
            print("\n".join(f"    {step}" for step in found.example))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
