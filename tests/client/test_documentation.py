"""docs/client.md: its examples run, one after the other, against a daemon."""

import ast
import inspect
import re
import types
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon

DOCS = Path(__file__).parents[2] / "docs" / "client.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def run(block: str, names: dict[str, Any]) -> None:
    """Run a block of code that may await at its top level."""
    code = compile(block, str(DOCS), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = types.FunctionType(code, names)()
    if inspect.isawaitable(result):
        await result


async def test_every_example_runs(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = BLOCK.findall(DOCS.read_text())
    assert len(blocks) == 8
    for block in blocks:
        await run(block, {"url": daemon.url})
    out = capsys.readouterr().out
    for pattern in (
        r"^starting [0-9a-f-]{36}$",
        r"^cannot .*00000000-",
        r"^hello$",
        r"^\d+ r2 starting running ",
        r"^\d{4}-.*Z vol-r-1 starting$",
    ):
        assert re.search(pattern, out, re.MULTILINE), (pattern, out)


async def test_an_example_that_fails_is_noticed() -> None:
    with pytest.raises(AssertionError):
        await run("import asyncio\nasync with asyncio.timeout(9):\n    assert 1 == 2\n", {})
