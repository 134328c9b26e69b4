"""Who is calling."""

from typing import Any

import grpc.aio


def caller(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """Return in a few words who is calling."""
    return str(context.peer())
