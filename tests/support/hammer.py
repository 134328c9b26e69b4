"""Greedy clients in a process of their own, beside what a test or benchmark does."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))


class Hammer:
    """What the greedy clients have got."""

    answered = 0
    """Number of lists, when it is over."""
    seconds = 0.0

    @property
    def per_second(self) -> float:
        """Lists per second."""
        return self.answered / self.seconds


@asynccontextmanager
async def hammer(url: str, connections: int, depth: int) -> AsyncIterator[Hammer]:
    """Let `connections` clients list processes during the block, each with `depth` calls under way."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, url, str(connections), str(depth)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    result = Hammer()
    try:
        assert await process.stdout.readline(), "the greedy clients have failed"
        begin = time.perf_counter()
        yield result
        process.stdin.close()
        result.answered = int(await process.stdout.readline())
        result.seconds = time.perf_counter() - begin
    finally:
        process.stdin.close()
        await process.wait()


async def main(url: str, connections: int, depth: int) -> None:
    """List without pause, print a line when it has begun, and how often when stdin ends."""
    answered = 0
    begun = asyncio.Event()

    async def one(channel: grpc.aio.Channel) -> None:
        nonlocal answered
        call: Any = channel.unary_unary("/ProcessManagerService/ProcessList")
        while True:
            await call(b"", wait_for_ready=True)
            answered += 1
            if answered >= connections * depth:
                begun.set()

    target = url.replace("unix://", "unix:").removeprefix("tcp://")
    channels = [grpc.aio.insecure_channel(target, options=_OWN_CONNECTION) for _ in range(connections)]
    loops = [asyncio.create_task(one(channel)) for channel in channels for _ in range(depth)]
    await begun.wait()
    answered = 0
    print("hammering", flush=True)  # noqa: T201 - read by `hammer`
    await asyncio.to_thread(sys.stdin.read)
    print(answered, flush=True)  # noqa: T201 - read by `hammer`
    for loop in loops:
        loop.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
