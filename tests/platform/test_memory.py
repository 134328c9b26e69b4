"""What was used for a while goes back to the system."""

import subprocess
import sys

from tests.support.patience import patience

PROGRAM = """
import asyncio
from instance_manager.platform.memory import FreeMemory, resident_bytes

async def main():
    memory = FreeMemory()
    before = resident_bytes()
    blocks = [bytes(1000) for _ in range(200_000)]
    last = bytes(1000)
    full = resident_bytes() - before
    del blocks
    await memory.give_back()
    memory.close()
    assert full > 150 << 20, full
    assert resident_bytes() - before < full / 2, (resident_bytes() - before, full)

asyncio.run(main())
"""


def test_free_memory_is_given_back() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=patience(120))
