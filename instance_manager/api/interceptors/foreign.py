"""Methods that come with gRPC, such as health and reflection, behind checks of ours."""

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import grpc

from instance_manager.api.service import Context

if TYPE_CHECKING:
    GrpcHandler = grpc.RpcMethodHandler[Any, Any]
else:
    GrpcHandler = grpc.RpcMethodHandler  # has no type parameters when the program runs

Receive = Callable[[Context], Awaitable[Any]]
"""Receives the request of a call."""
Guarding = Callable[[Context], AbstractAsyncContextManager[None]]
"""Returns what surrounds a call; it aborts the call if it is not to be served."""


def guard(handler: GrpcHandler, receive: Receive, guarding: Guarding) -> GrpcHandler:
    """Return the handler of a method of any kind, with each call surrounded.

    A single request is received with `receive`: to gRPC, it is a stream of requests.
    """
    requests, responses = ("stream" if each else "unary" for each in _streaming(handler))
    function = getattr(handler, f"{requests}_{responses}")
    if not handler.request_streaming:
        function = _received(function, receive)
    make = getattr(grpc, f"stream_{responses}_rpc_method_handler")
    made: GrpcHandler = make(
        _guarded(function, guarding), handler.request_deserializer, handler.response_serializer
    )
    return made


def _streaming(handler: GrpcHandler) -> tuple[bool, bool]:
    return handler.request_streaming, handler.response_streaming


def _received(function: Any, receive: Receive) -> Any:
    """Return a function that receives the request itself."""
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def generating(_: Any, context: Context) -> AsyncIterator[Any]:
            request = await receive(context)
            async with contextlib.aclosing(function(request, context)) as answers:
                async for answer in answers:
                    yield answer

        return generating

    @functools.wraps(function)
    async def answering(_: Any, context: Context) -> Any:
        answer = function(await receive(context), context)
        # gRPC's placeholder for a method that a servicer lacks is not asynchronous.
        return await answer if inspect.isawaitable(answer) else answer

    return answering


def _guarded(function: Any, guarding: Guarding) -> Any:
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def generating(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with guarding(context), contextlib.aclosing(function(requests, context)) as answers:
                async for answer in answers:
                    yield answer

        return generating

    @functools.wraps(function)
    async def answering(requests: Any, context: Context) -> Any:
        async with guarding(context):
            answer = function(requests, context)
            return await answer if inspect.isawaitable(answer) else answer

    return answering
