"""An SPDK service for tests: it listens, keeps state, and can be told to fail or to hang.

    python -m tests.support.spdk.service --listen 127.0.0.1:0 [--state FILE] [--tls DIR]

A line of JSON on stdout tells where it listens. Each line of JSON on stdin is an order, answered by one on
stdout ("*" is every method):

    {"fail": "ReplicaCreate", "code": "INTERNAL", "message": "told to"}   every call until told otherwise
    {"hang": "EngineGet"}                                                   it is never answered
    {"work": "EngineGet"}                                                   as before
    {"set": "Replica", "name": "r1", "fields": {"state": "error"}}         it is there then
    {"drop": "Replica", "code": "CANCELLED"}                                       cuts its watches off
    {"put": "Rebuild", "name": "r1", "fields": {"total_state": "error"}}  an entry of a table, see state.py
    {"finish": true}                            completes rebuilds, clones, checksums, backups and restores
    {"pending": true}                           methods of the calls that hang and have not been given up
    {"calls": true}                                                         every call since the last time
    {"reset": true}                                                         as if it were new
    {"watches": true}                                                       how many watch each type

It ends at the end of stdin.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2, json_format
from google.protobuf.message_factory import GetMessageClass

from instance_manager.pb.spdkrpc import spdk_pb2 as pb
from tests.support.spdk.backups import Backups
from tests.support.spdk.disks import Disks
from tests.support.spdk.engines import Engines
from tests.support.spdk.state import TABLES, TYPES, WATCHED, RefusedError, State

SERVICE = pb.DESCRIPTOR.services_by_name["SPDKService"]
EMPTY = empty_pb2.Empty()


class Service:
    """The methods of SPDKService over a `State`, and what it was told to do wrong."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._failing: dict[str, tuple[str, str]] = {}
        self._hanging: set[str] = set()
        self._dropped: dict[str, str] = {}
        self._pending: list[str] = []
        self._engines, self._backups = Engines(state), Backups(state)
        self._parts = (self, Disks(state), self._engines, self._backups)

    def handler(self) -> grpc.GenericRpcHandler:
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for name, method in SERVICE.methods_by_name.items():
            request = GetMessageClass(method.input_type)
            response = GetMessageClass(method.output_type)
            make, call = (
                (grpc.unary_stream_rpc_method_handler, self._stream)
                if method.server_streaming
                else (grpc.unary_unary_rpc_method_handler, self._unary)
            )
            handlers[name] = make(call(name), request.FromString, response.SerializeToString)
        return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)

    def _unary(self, name: str) -> Any:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            self.calls.append((name, json_format.MessageToDict(request, preserving_proto_field_name=True)))
            await self._misbehave(name, context)
            try:
                return self._answer(name, request)
            except RefusedError as error:
                await context.abort(grpc.StatusCode[error.code], str(error))

        return call

    async def _misbehave(self, name: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if self._hanging & {name, "*"}:
            self._pending.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                self._pending.remove(name)
        code, message = self._failing.get(name) or self._failing.get("*") or ("", "")
        if code:
            await context.abort(grpc.StatusCode[code], message)

    def _answer(self, name: str, request: Any) -> Any:
        for verb, answer in (
            ("Create", self.state.create),
            ("Delete", self._delete),
            ("Get", self._get),
            ("List", self._list),
            ("Suspend", self._suspend),
            ("Resume", self._resume),
        ):
            prefix = name.removesuffix(verb)
            if prefix != name and prefix in TYPES:
                return answer(prefix, request)
        part = next(each for each in self._parts if hasattr(each, f"_{name}"))
        return getattr(part, f"_{name}")(request)

    def _delete(self, prefix: str, request: Any) -> Any:
        self.state.delete(prefix, request.name)
        return EMPTY

    def _get(self, prefix: str, request: Any) -> Any:
        return self.state.find(prefix, request.name)

    def _list(self, prefix: str, _: Any) -> Any:
        return self.state.held[prefix]

    def _suspend(self, prefix: str, request: Any) -> Any:
        return self._set(prefix, request.name, {"state": "suspended"})

    def _resume(self, prefix: str, request: Any) -> Any:
        return self._set(prefix, request.name, {"state": "running"})

    def _set(self, prefix: str, name: str, fields: dict[str, Any]) -> Any:
        json_format.ParseDict(fields, self.state.find(prefix, name))
        self.state.changed(prefix)
        return EMPTY

    def _EngineDeleteTarget(self, request: Any) -> Any:  # noqa: N802 - the method's own name
        return self._set("Engine", request.name, {"target_port": 0})

    def _EngineFrontendSwitchOver(self, request: Any) -> Any:  # noqa: N802
        fields = {"active_path": request.target_address, "engine_name": request.engine_name}
        return self._set("EngineFrontend", request.name, fields)

    def _LogSetLevel(self, request: Any) -> Any:  # noqa: N802
        self.state.log_level = request.level
        return EMPTY

    def _LogGetLevel(self, _: Any) -> Any:  # noqa: N802
        return pb.LogGetLevelResponse(level=self.state.log_level)

    def _LogSetFlags(self, request: Any) -> Any:  # noqa: N802
        self.state.log_flags = request.flags
        return EMPTY

    def _LogGetFlags(self, _: Any) -> Any:  # noqa: N802
        return pb.LogGetFlagsResponse(flags=self.state.log_flags)

    def _VersionDetailGet(self, _: Any) -> Any:  # noqa: N802
        return pb.VersionDetailGetReply(version=pb.VersionOutput(version="test"))

    def _stream(self, name: str) -> Any:
        prefix = name.removesuffix("Watch")

        async def watch(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            self.calls.append((name, {}))
            await self._misbehave(name, context)
            changed, watchers = asyncio.Event(), self.state.watchers(prefix)
            watchers.add(changed)
            try:
                while prefix not in self._dropped:
                    await changed.wait()
                    changed.clear()
                    yield EMPTY
                if self._dropped[prefix] != "OK":
                    await context.abort(grpc.StatusCode[self._dropped[prefix]], "told to drop the watch")
            finally:
                watchers.discard(changed)
                if not watchers:
                    self._dropped.pop(prefix, None)

        return watch

    def obey(self, order: dict[str, Any]) -> Any:
        """Do what a line on stdin says and return what to answer."""
        told = getattr(self, f"_on_{next(iter(order))}")(*order.values())
        return "done" if told is None else told

    def _on_fail(self, name: str, code: str, message: str = "told to fail") -> None:
        self._failing[name] = (code, message)

    def _on_hang(self, name: str) -> None:
        self._hanging.add(name)

    def _on_work(self, name: str) -> None:
        if name == "*":
            self._failing.clear()
            self._hanging.clear()
        self._failing.pop(name, None)
        self._hanging.discard(name)

    def _on_set(self, prefix: str, name: str, fields: dict[str, Any]) -> None:
        if name not in self.state.all_of(prefix):
            self.state.all_of(prefix)[name].name = name
        self._set(prefix, name, fields)

    def _on_put(self, table: str, name: str, fields: dict[str, Any]) -> None:
        entry = self.state.tables[table].setdefault(name, TABLES[table]())
        json_format.ParseDict(fields, entry)
        self.state.changed(table)

    def _on_finish(self, _: bool) -> None:
        self._engines.finish()
        self._backups.finish()

    def _on_pending(self, _: bool) -> Any:
        return self._pending

    def _on_drop(self, prefix: str, code: str) -> None:
        self._dropped[prefix] = code
        for watcher in self.state.watchers(prefix):
            watcher.set()

    def _on_reset(self, _: bool) -> None:
        self._on_work("*")
        self._dropped.clear()
        self.calls.clear()
        self.state.reset()

    def _on_calls(self, _: bool) -> Any:
        calls, self.calls = self.calls, []
        return calls

    def _on_watches(self, _: bool) -> Any:
        return {prefix: len(self.state.watchers(prefix)) for prefix in WATCHED}


def answer(told: Any) -> None:
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()


def add_port(server: grpc.aio.Server, listen: str, tls: Path | None) -> int:
    """Listen, with the certificates of a directory if there is one; return the port."""
    if tls is None:
        return server.add_insecure_port(listen)
    ca, certificate, key = ((tls / name).read_bytes() for name in ("ca.crt", "tls.crt", "tls.key"))
    return server.add_secure_port(
        listen, grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    )


async def serve(listen: str, state: Path | None, tls: Path | None) -> None:
    """Serve until stdin ends."""
    service = Service(State(state))
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([service.handler()])
    port = add_port(server, listen, tls)
    await server.start()
    answer({"listening": listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"})
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer(service.obey(json.loads(line)))
    await server.stop(None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--listen", default="127.0.0.1:8504")
    parser.add_argument("--state", type=Path)
    parser.add_argument("--tls", type=Path)
    options = parser.parse_args()
    asyncio.run(serve(options.listen, options.state, options.tls))


if __name__ == "__main__":
    main()
