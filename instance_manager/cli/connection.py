"""How a command talks to the daemon: one connection, one event loop, and errors as exit codes."""

import functools
import os
import socket
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from instance_manager.cli.exit_codes import ExitCode, Failure, of_status
from instance_manager.cli.root import Globals
from instance_manager.cli.tls import TlsChoice, client_certificates, explain, is_required

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from grpc.aio import AioRpcError

    from instance_manager.client import Client
    from instance_manager.core.addresses import Address
    from instance_manager.pb.imrpc.imrpc_pb2 import ProcessResponse
    from instance_manager.pb.imrpc.instance_pb2 import InstanceResponse

CONNECT_TIMEOUT = 3.0
"""Seconds until an address that does not answer counts as unreachable."""
COMPLETION_TIMEOUT = 2.0
"""Seconds that a completion may take."""

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]

P = ParamSpec("P")
T = TypeVar("T")


class UnreachableError(Exception):
    """Nothing listens at the URL; the message says why."""


class RefusedError(Exception):
    """The daemon is there, but one side rejects the certificate of the other; the message says why."""


def connected(command: Callable[Concatenate["Client", P], Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Turn a coroutine function that takes a client and the command's parameters into a command."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        call(lambda client: command(client, *args, **kwargs))

    return run


def call(work: Callable[["Client"], Awaitable[T]]) -> T:
    """Connect to the daemon of the global options and call `work` with the client.

    Raises:
        click.UsageError: if the URL is malformed.
        Failure: if the daemon cannot be reached or a call fails.
    """
    options: Globals = click.get_current_context().obj
    if not options.debug:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import asyncio

    from grpc.aio import AioRpcError

    try:
        return asyncio.run(_connect(options.url, options.tls, CONNECT_TIMEOUT, work))
    except (AioRpcError, TimeoutError, UnreachableError, RefusedError) as error:
        if options.debug:
            traceback.print_exception(error)
        raise _failure(error, options.url) from error


def _completing(
    list_all: "Callable[[Client], Awaitable[Mapping[str, ProcessResponse | InstanceResponse]]]",
) -> Complete:
    """Return a completion of names that asks the daemon; it offers none if the daemon does not answer."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import asyncio

        from click.shell_completion import CompletionItem

        root = ctx.find_root()
        url = str(root.params["url"])
        tls = TlsChoice(root.params["tls_dir"], root.params["tls_peer_name"], required=is_required(root))

        async def ask() -> list[CompletionItem]:
            async with asyncio.timeout(COMPLETION_TIMEOUT):
                found = await _connect(url, tls, COMPLETION_TIMEOUT, list_all)
            return [
                CompletionItem(name, help=each.status.state)
                for name, each in sorted(found.items())
                if name.startswith(incomplete)
            ]

        try:
            return asyncio.run(ask())
        except Exception:  # noqa: BLE001 - no error may disturb somebody who is typing
            return []

    return complete


complete_names = _completing(lambda client: client.process_list())
"""Completes the name of a process."""
complete_instances = _completing(lambda client: client.instance_list())
"""Completes the name of an instance of either data engine."""


async def _connect(url: str, tls: TlsChoice, within: float, work: Callable[["Client"], Awaitable[T]]) -> T:
    from grpc import StatusCode
    from grpc.aio import AioRpcError

    from instance_manager.client import Client, address_of

    try:
        address = address_of(url)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    shown = client_certificates(tls, address)
    _reach(address, within)
    try:
        async with Client(url, shown, peer_name=tls.peer_name) as client:
            return await work(client)
    except AioRpcError as error:
        by_grpc = not (error.details() or "").startswith("cannot ")
        if (
            error.code() is StatusCode.UNAVAILABLE
            and by_grpc
            and (why := explain(address, shown, tls, within))
        ):
            raise RefusedError(why) from error
        raise


def _reach(address: "Address", within: float) -> None:
    """Check whether something listens on an address; gRPC would try for 20 s and give a less clear reason.

    Raises:
        UnreachableError: if not.
    """
    try:
        if address.path:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(within)
                probe.connect(address.path)
        else:
            socket.create_connection((address.host, address.port), timeout=within).close()
    except (OSError, OverflowError, ValueError) as error:
        raise UnreachableError((isinstance(error, OSError) and error.strerror) or str(error)) from error


def _failure(error: "AioRpcError | TimeoutError | UnreachableError | RefusedError", url: str) -> Failure:
    """Return the one-line message and the exit code for a failed call."""
    if isinstance(error, RefusedError):
        return Failure(f"cannot talk to the instance manager at {url}: {error}", ExitCode.UNREACHABLE)
    if isinstance(error, UnreachableError):
        return _unreachable(str(error), url)
    if isinstance(error, TimeoutError):
        return _no_answer(url)
    status = error.code().name
    details = " ".join((error.details() or "").split())
    # What the daemon says about these begins with what cannot be done; the rest is gRPC's.
    if not details.startswith("cannot "):
        if status == "UNAVAILABLE":
            return _unreachable(details, url)
        if status == "CANCELLED":
            return Failure(
                f"cannot get an answer from the instance manager at {url}: it has dropped the call, as "
                "there are too many or it is ending; ask again",
                ExitCode.UNREACHABLE,
            )
        if status == "DEADLINE_EXCEEDED":
            return _no_answer(url)
    return Failure(f"{details or 'the call failed for an unknown reason'} ({status})", of_status(status))


def _unreachable(reason: str, url: str) -> Failure:
    if not reason[1:2].isupper():  # "TLS handshake" stays as it is
        reason = reason[:1].lower() + reason[1:]
    return Failure(
        f"cannot reach the instance manager at {url}: {reason}; is it running? Use --url to name another",
        ExitCode.UNREACHABLE,
    )


def _no_answer(url: str) -> Failure:
    return Failure(f"cannot get an answer from the instance manager at {url} in time", ExitCode.TIMEOUT)
