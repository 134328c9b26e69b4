"""What Python and libraries write on stderr by themselves is logged in the format of the log."""

import json
import subprocess
import sys

import pytest

from tests.support.patience import patience

CONFIGURED = """
import asyncio, sys, threading, warnings
from instance_manager.platform import logging
logging.configure(debug=False)
def fail():
    raise ValueError("on purpose")
"""

CASES = {
    "uncaught": "fail()",
    "thread": "thread = threading.Thread(target=fail, name='one'); thread.start(); thread.join()",
    "finalizer": "class Odd:\n    __del__ = lambda self: fail()\nodd = Odd()\ndel odd",
    "warning": "warnings.warn('on purpose', stacklevel=1)",
    "logging": "import logging as standard; standard.getLogger('library').error('on purpose')",
    "callback": "loop = asyncio.new_event_loop(); loop.call_soon(fail); loop.call_soon(loop.stop);"
    "loop.run_forever(); loop.close()",
    "future": "async def main():\n"
    "    asyncio.get_running_loop().create_future().set_exception(ValueError('on purpose'))\n"
    "asyncio.run(main())",
}


@pytest.mark.parametrize("case", CASES)
def test_every_line_is_json_and_says_what_happened(case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED + CASES[case]],
        capture_output=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == (case == "uncaught")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(lines) == 1
    assert lines[0]["level"] == ("warning" if case == "warning" else "error")
    assert "on purpose" in str(lines[0])
