"""scripts/demo-orphans shows what it says, in a pipe and on a terminal, and cleans up."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.support.cli import ESCAPES, Terminal, environment
from tests.support.daemon import port_span
from tests.support.patience import patience

SCRIPT = Path(__file__).parents[2] / "scripts" / "demo-orphans"
WITHIN = 240
"""Seconds; it takes about twenty on a machine that has nothing else to do."""


def told(text: str) -> None:
    """Check what the demonstration has shown."""
    assert text.count(": no orphan\n") == 3, text
    assert re.search(r"^orphan-[0-9a-f]{12} +stray-r-1 +replica +im-1", text, re.MULTILINE), text
    assert "verdict: orphan: the instance has no owner" in text
    assert "(NOT_FOUND)\n   exit code 3\n" in text
    refused, deleted = text.index("exit code 3"), text.index("under way")
    assert text.index("stray-r-1   running", refused) < deleted
    assert re.search(r"^orphan-[0-9a-f]{12} .* deleted +\d+s +deleted by", text, re.MULTILINE), text


def leftovers(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def demonstrate(folder: Path, output: int) -> asyncio.subprocess.Process:
    first, _ = port_span()
    extra = {"TMPDIR": str(folder), "DEMO_PORT_RANGE": f"{first}-{first + 99}"}
    return await asyncio.create_subprocess_exec(
        str(SCRIPT), env=environment(extra), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
    )


@pytest.mark.timeout(WITHIN + 30)
async def test_the_demonstration_of_orphans_shows_the_whole_story_in_a_pipe(tmp_path: Path) -> None:
    process = await demonstrate(tmp_path, asyncio.subprocess.PIPE)
    async with asyncio.timeout(patience(WITHIN)):
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b""), out.decode() + err.decode()
    told(out.decode())
    assert leftovers(tmp_path) == []


@pytest.mark.full
@pytest.mark.timeout(WITHIN + 30)
async def test_the_demonstration_of_orphans_shows_the_same_on_a_terminal(tmp_path: Path) -> None:
    terminal = Terminal(120)
    try:
        process = await demonstrate(tmp_path, terminal.slave)
        async with asyncio.timeout(patience(WITHIN)):
            status = await process.wait()
        await terminal.shows("deleted by")
        assert status == 0, terminal.text
        assert terminal.text != ESCAPES.sub("", terminal.text)
        told(re.sub(r" +\n", "\n", terminal.plain))
    finally:
        terminal.close()
    assert leftovers(tmp_path) == []
