""".ci/steps: steps alone and side by side, and what is told of them."""

import asyncio
import os
import subprocess
from pathlib import Path

from tests.support.daemon import MARKER, marked
from tests.support.patience import patience
from tests.support.processes import eventually

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, marker: str = "") -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f". .ci/steps\n{script}"],
        cwd=ROOT,
        env=os.environ | {MARKER: marker},
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def table(told: str) -> list[list[str]]:
    _, _, rows = told.partition("==== seconds, exit status, step\n")
    return [row.split("\t")[1:] for row in rows.splitlines()]


def test_what_a_step_beside_others_prints_stays_together() -> None:
    status, told = run(
        """mkfifo "$STEPS/go"
beside "a b" bash -c 'echo one; read -r _ <"$0/go"; echo two' "$STEPS"
step alone echo three
echo >"$STEPS/go"
join "a b"
"""
    )
    assert status == 0
    assert told.startswith("\n==== alone\nthree\n\n==== a b\none\ntwo\n")
    assert table(told) == [["0", "alone"], ["0", "a b (beside others)"], ["0", "all"]]


async def test_a_step_that_fails_ends_the_run_and_those_beside_it() -> None:
    marker = f"steps-{os.getpid()}"
    status, told = await asyncio.to_thread(
        run,
        """mkfifo "$STEPS/begun"
beside forever bash -c 'echo begun; echo >"$0/begun"; sleep 1000; true' "$STEPS"
read -r _ <"$STEPS/begun"
step broken bash -c 'exit 7'
echo not reached""",
        marker,
    )
    assert status == 7
    assert "not reached" not in told
    assert "==== forever (not ended)\nbegun\n" in told
    assert table(told) == [["7", "broken"], ["7", "all"]]
    # They are killed all at once, and waited for is only the first of them.
    await eventually(lambda: not marked(marker))


def test_a_step_that_has_failed_beside_others_fails_when_it_is_waited_for() -> None:
    status, told = run("beside bad bash -c 'echo why; exit 3'\nstep good true\njoin bad\necho not reached")
    assert status == 3
    assert "==== bad\nwhy\n" in told
    assert "not reached" not in told
