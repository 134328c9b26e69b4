"""What the daemon waits for while instances are starting, for tables; lists have no field for it."""

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from instance_manager.cli.render import on_terminal

if TYPE_CHECKING:
    from instance_manager.client import Client


async def waits(client: "Client", answer: Any, output: str | None) -> Mapping[str, str]:
    """Return how long, and for what, the daemon waits for each process or instance that is starting.

    Args:
        client: the daemon.
        answer: one of what `render.show` prints, or several by name.
        output: its form; only tables show it.

    Returns:
        Words by name; empty if nothing is waited for, or the daemon does not tell.
    """
    listed: Iterable[Any] = answer.values() if isinstance(answer, Mapping) else [answer]
    names = [each.spec.name for each in listed if each.status.state == "starting"]
    if not names or (output or ("table" if on_terminal() else "json")) not in {"table", "wide"}:
        return {}
    from grpc.aio import AioRpcError

    from instance_manager.pb.instance_manager.v1 import events_pb2

    found: dict[str, str] = {}
    stream = client.events(names=names, snapshot=True)
    try:
        async for item in stream:
            if not isinstance(item, events_pb2.Instance):
                break
            if item.waiting_for:
                seconds = max(time.time() - item.waiting_since.ToNanoseconds() / 1e9, 0)
                found[item.name] = f"{seconds:.0f} s for {item.waiting_for}"
    except AioRpcError:
        return {}  # such as the Go daemon
    finally:
        stream.cancel()
    return found
