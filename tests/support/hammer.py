"""Greedy clients in a process of their own, beside what a test or benchmark does."""

import asyncio
import mmap
import os
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

_COUNT = struct.Struct("q")
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))


class Hammer:
    """What the greedy clients have got."""

    seconds = 0.0

    def __init__(self, shared: mmap.mmap) -> None:
        self._shared = shared

    @property
    def answered(self) -> int:
        """Number of lists so far."""
        return int(_COUNT.unpack_from(self._shared)[0])

    @property
    def per_second(self) -> float:
        """Lists per second."""
        return self.answered / self.seconds


@asynccontextmanager
async def hammer(url: str, connections: int, depth: int) -> AsyncIterator[Hammer]:
    """Let `connections` clients list processes during the block, each with `depth` calls under way."""
    shared = os.memfd_create("answered")
    os.truncate(shared, mmap.PAGESIZE)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, url, str(connections), str(depth), str(shared)),
        pass_fds=[shared],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    result = Hammer(mmap.mmap(shared, 0))
    os.close(shared)
    try:
        assert await process.stdout.readline(), "the greedy clients have failed"
        begin = time.perf_counter()
        yield result
        process.stdin.close()
        await process.stdout.readline()
        result.seconds = time.perf_counter() - begin
    finally:
        process.stdin.close()
        await process.wait()


async def main(url: str, connections: int, depth: int, shared: mmap.mmap) -> None:
    """List without pause, counting in shared memory; print a line at the begin, and at the end of stdin."""
    answered = 0
    begun = asyncio.Event()

    async def one(channel: grpc.aio.Channel) -> None:
        nonlocal answered
        call: Any = channel.unary_unary("/ProcessManagerService/ProcessList")
        while True:
            await call(b"", wait_for_ready=True)
            answered += 1
            _COUNT.pack_into(shared, 0, answered)
            if answered >= connections * depth:
                begun.set()

    target = url.replace("unix://", "unix:").removeprefix("tcp://")
    channels = [grpc.aio.insecure_channel(target, options=_OWN_CONNECTION) for _ in range(connections)]
    loops = [asyncio.create_task(one(channel)) for channel in channels for _ in range(depth)]
    await begun.wait()
    answered = 0
    print("hammering", flush=True)  # noqa: T201 - read by `hammer`
    await asyncio.to_thread(sys.stdin.read)
    print("done", flush=True)  # noqa: T201 - read by `hammer`
    for loop in loops:
        loop.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), mmap.mmap(int(sys.argv[4]), 0)))
