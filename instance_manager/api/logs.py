"""Streaming the log of a process line by line, for both services."""

from contextlib import aclosing

from instance_manager.api.service import Context
from instance_manager.app.interfaces import Logs
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.names import validate_name
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from instance_manager.platform.contract import FOLLOW_METADATA, TAIL_METADATA

_MOST_DIGITS = 18
"""Longest number of lines: more than any file has, and short enough for Python to parse."""


async def stream_log(logs: Logs, name: str, context: Context) -> None:
    """Stream a log; call metadata selects its last lines, and whether to follow it.

    Raises:
        InvalidArgumentError: if the name or the metadata is wrong.
        NotFoundError: if there is no log of this name.
    """
    validate_name(name)
    metadata = dict(context.invocation_metadata() or ())
    follow = metadata.get(FOLLOW_METADATA) == "true"
    lines = logs.read(name, follow=follow, tail=_tail(str(metadata.get(TAIL_METADATA, ""))))
    async with aclosing(lines):
        async for line in lines:
            await context.write(pb.LogResponse(line=line).SerializeToString())


def _tail(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise InvalidArgumentError(
            f"cannot use {TAIL_METADATA} {text[:_MOST_DIGITS]!r}: it is a number of lines, of at most "
            f"{_MOST_DIGITS} digits"
        )
    return int(text)
