"""Mutual TLS of the installed daemon: who is refused, where and when; certificates renewed as it serves."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from grpc.experimental import session_cache
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from instance_manager.client import Client
from instance_manager.core.certificates import PEER_NAME, CertificateSet
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.certificates import Authority, expired, fill, not_yet_valid, today, with_mark
from tests.support.daemon import (
    BIN,
    Daemon,
    Watch,
    port_span,
    running_daemon,
    sleeper,
)
from tests.support.patience import patience

OURS = Authority()
FOREIGN = Authority()
REFLECTION = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")


def replaced(**parts: bytes) -> CertificateSet:
    return dataclasses.replace(OURS.signed(), **parts)


@contextlib.asynccontextmanager
async def secured(folder: Path, certificates: CertificateSet | None = None) -> AsyncIterator[Daemon]:
    """Run a daemon with certificates on two ports, and a client that fits."""
    tls = fill(folder / "tls", certificates or OURS.signed())
    options = ("--listen", "127.0.0.1:0", "--tls-dir", str(tls), "--stop-timeout", "2")
    async with running_daemon(folder, *options) as daemon:
        daemon.tls = OURS.signed()
        yield daemon


@pytest.fixture
async def tls_daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with secured(tmp_path) as daemon:
        yield daemon


def addresses(daemon: Daemon) -> list[str]:
    found = list(daemon.serving[-1]["addresses"])
    assert len(found) == 4
    return found


def managing(daemon: Daemon) -> list[str]:
    """Return the addresses at which processes and instances are managed."""
    return [addresses(daemon)[0], addresses(daemon)[3]]


# --- who is refused ---


BAD_CLIENTS: dict[str, Callable[[], CertificateSet | None]] = {
    "plain text": lambda: None,
    "no certificate": lambda: replaced(certificate=b"", key=b""),
    "expired": lambda: OURS.signed(**expired()),
    "not yet valid": lambda: OURS.signed(**not_yet_valid()),
    "foreign CA": lambda: dataclasses.replace(FOREIGN.signed(), ca=OURS.pem),
}


def channel(address: str, shown: CertificateSet | None) -> grpc.aio.Channel:
    if shown is None:
        return grpc.aio.insecure_channel(address)
    credentials = grpc.ssl_channel_credentials(shown.ca, shown.key or None, shown.certificate or None)
    return grpc.aio.secure_channel(
        address, credentials, options=[("grpc.ssl_target_name_override", PEER_NAME)]
    )


async def every_method(address: str) -> dict[str, Any]:
    """Return every method that a server tells of by reflection, with its descriptor."""
    methods: dict[str, Any] = {}
    async with channel(address, OURS.signed()) as connection:
        call: Any = connection.stream_stream(
            f"/{REFLECTION[0]}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        stream = call(timeout=patience(20))
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        services = [each.name for each in (await stream.read()).list_services_response.service]
        for service in services:
            await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
            answer = await stream.read()
            for raw in answer.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(raw)
                for each in file.service:
                    full_name = f"{file.package}.{each.name}".lstrip(".")
                    if full_name in services:  # a file that another one imports may have more
                        methods |= {f"/{full_name}/{method.name}": method for method in each.method}
        await stream.done_writing()
    v1 = methods[f"/{REFLECTION[0]}/ServerReflectionInfo"]
    return methods | {f"/{REFLECTION[1]}/ServerReflectionInfo": v1}


async def silence() -> AsyncIterator[bytes]:
    """Requests that never come: a client that writes while it is refused would fail on its side first."""
    await asyncio.Event().wait()
    yield b""


async def called(connection: grpc.aio.Channel, path: str, method: Any) -> None:
    """Call a method with the empty message."""
    call: Any
    if method.client_streaming:
        call = connection.stream_stream(path)
        answers = call(silence(), timeout=patience(20))
    elif method.server_streaming:
        call = connection.unary_stream(path)
        answers = call(b"", timeout=patience(20))
    else:
        call = connection.unary_unary(path)
        await call(b"", timeout=patience(20))
        return
    async for _ in answers:
        pass


async def test_a_client_with_the_wrong_name_is_refused_by_every_method_on_every_port(
    tls_daemon: Daemon,
) -> None:
    wrong = OURS.signed("other.example", common_name="somebody")
    for address in addresses(tls_daemon):
        methods = await every_method(address)
        assert {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"} <= set(methods)
        if address in managing(tls_daemon):
            assert {"/ProcessManagerService/ProcessCreate", "/imrpc.InstanceService/InstanceCreate"} <= set(
                methods
            )
            assert len(methods) > 20
        async with channel(address, wrong) as connection:
            for path, method in methods.items():
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await called(connection, path, method)
                error = caught.value
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED, path
                assert "names other.example, somebody and not" in (error.details() or "")
                assert "--tls-peer-name" in (error.details() or "")
    line = await tls_daemon.logged(lambda line: line["event"].startswith("call refused"))
    assert line["names"] == ["other.example", "somebody"]
    assert line["caller"].startswith("other.example at 127.0.0.1:")
    metrics = (await tls_daemon.http("/metrics"))[1]
    of_create = 'code="PERMISSION_DENIED",method="ProcessCreate",service="ProcessManagerService"'
    # Once on each port that has it.
    assert f"\ninstance_manager_grpc_handled_total{{{of_create}}} 2.0\n" in metrics
    assert "grpc.health" not in metrics


async def test_a_change_that_is_refused_for_the_certificate_is_audited(tls_daemon: Daemon) -> None:
    async with channel(addresses(tls_daemon)[0], OURS.signed("other.example")) as connection:
        call: Any = connection.unary_unary("/ProcessManagerService/ProcessDelete")
        with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
            await call(b"", timeout=patience(20))
    async with tls_daemon.client() as client:
        (entry,) = (await client.audit()).entries
    assert (entry.method, entry.code) == ("ProcessManagerService/ProcessDelete", "PERMISSION_DENIED")
    assert entry.caller.startswith("other.example at 127.0.0.1:")


async def test_a_refusal_names_only_the_names_there_are(tls_daemon: Daemon) -> None:
    for wrong, told in (
        (OURS.signed("other.example"), "names other.example and"),
        (OURS.special(), "nobody"),
    ):
        async with channel(addresses(tls_daemon)[0], wrong) as connection:
            call: Any = connection.unary_unary("/ProcessManagerService/ProcessList")
            with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED") as caught:
                await call(b"", timeout=patience(20))
            assert told in (caught.value.details() or "")


@pytest.mark.parametrize("odd", ["\0", "\n"])
@pytest.mark.parametrize("where", ["SAN", "CN"])
async def test_a_name_that_begins_like_the_right_one_is_refused(
    tls_daemon: Daemon, where: str, odd: str
) -> None:
    """gRPC tells names as C strings: what follows the NUL is not in them."""
    name = f"{PEER_NAME}{odd}.evil.example"
    shown = OURS.special(dns=(name,)) if where == "SAN" else OURS.special(common_name=name)
    for address in addresses(tls_daemon):
        others = ["/ProcessManagerService/ProcessList"] if address in managing(tls_daemon) else []
        async with channel(address, shown) as connection:
            for path in ("/grpc.health.v1.Health/Check", *others):
                call: Any = connection.unary_unary(path)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(b"", timeout=patience(20))
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert f"names {PEER_NAME}{repr(odd)[1:-1]}.evil.example" in (caught.value.details() or "")


async def test_a_certificate_that_has_expired_is_not_resumed(tls_daemon: Daemon) -> None:
    """The session was begun while it was valid; what is open then stays open."""
    end = today().replace(microsecond=0) + dt.timedelta(seconds=4)
    shown = OURS.special(common_name=PEER_NAME, until=end)
    credentials = grpc.ssl_channel_credentials(shown.ca, shown.key, shown.certificate)
    sessions: Any = session_cache.ssl_session_cache_lru(8)  # type: ignore[no-untyped-call]
    options = (
        ("grpc.ssl_target_name_override", PEER_NAME),
        ("grpc.ssl_session_cache", sessions),
        ("grpc.use_local_subchannel_pool", 1),
    )

    def connect() -> grpc.Channel:
        return grpc.secure_channel(addresses(tls_daemon)[0], credentials, options)

    def ask(connection: grpc.Channel) -> bytes:
        call: Any = connection.unary_unary("/ProcessManagerService/ProcessList")
        return bytes(call(b"", timeout=patience(20)))

    with connect() as before:
        await asyncio.to_thread(ask, before)
        await asyncio.sleep((end - today()).total_seconds() + 1.1)  # until it has expired
        await asyncio.to_thread(ask, before)
        with connect() as after, pytest.raises(grpc.RpcError, match=r"PERMISSION_DENIED(.|\n)*expired on"):
            await asyncio.to_thread(ask, after)


@pytest.mark.parametrize("kind", BAD_CLIENTS)
async def test_a_client_without_a_good_certificate_is_refused_on_every_port(
    tls_daemon: Daemon, kind: str
) -> None:
    for address in addresses(tls_daemon):
        async with channel(address, BAD_CLIENTS[kind]()) as connection:
            for path in ("/ProcessManagerService/ProcessCreate", "/grpc.health.v1.Health/Check"):
                call: Any = connection.unary_unary(path)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(b"", timeout=patience(20))
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_no_handler_runs_for_a_client_that_is_refused(tls_daemon: Daemon) -> None:
    wrong = [OURS.signed("other.example"), *(make() for make in BAD_CLIENTS.values())]
    for address in addresses(tls_daemon):
        for shown in wrong:
            async with channel(address, shown) as connection:
                call: Any = connection.unary_unary("/ProcessManagerService/ProcessCreate")
                request = pb.ProcessCreateRequest(spec=sleeper("intruder"))
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(request.SerializeToString(), timeout=patience(20))
    async with tls_daemon.client() as client:
        assert await client.process_list() == {}
    assert tls_daemon.descendants() == []


@pytest.mark.parametrize("where", ["SAN", "CN", "SAN in capitals"])
async def test_the_name_counts_in_the_alternative_names_and_in_the_common_name(
    tls_daemon: Daemon, where: str
) -> None:
    tls_daemon.tls = {
        "SAN": lambda: OURS.signed("x.example", PEER_NAME, common_name="y"),
        "CN": lambda: OURS.special(common_name=PEER_NAME),
        "SAN in capitals": lambda: OURS.signed(PEER_NAME.upper()),
    }[where]()
    for address in addresses(tls_daemon):
        async with Client(f"tcp://{address}", tls_daemon.tls) as client:
            assert await client.health() == "SERVING"
            if address in managing(tls_daemon):
                assert await client.process_list() == {}


async def test_another_peer_name_is_asked_of_clients_instead(tmp_path: Path) -> None:
    tls = fill(tmp_path / "tls", OURS.signed("storage.example"))
    options = ("--listen", "127.0.0.1:0", "--tls-dir", str(tls), "--tls-peer-name", "storage.example")
    async with running_daemon(tmp_path, *options) as daemon:
        async with Client(daemon.url, OURS.signed("storage.example"), peer_name="storage.example") as client:
            assert await client.health() == "SERVING"
        async with Client(daemon.url, OURS.signed(), peer_name="storage.example") as client:
            with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
                await client.health()


async def test_a_unix_socket_is_no_way_around(tmp_path: Path) -> None:
    tls = fill(tmp_path / "tls", OURS.signed())
    async with running_daemon(tmp_path, "--tls-dir", str(tls)) as daemon:
        async with daemon.client() as client:
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await client.process_list()
        async with Client(daemon.url, OURS.signed()) as client:
            assert await client.process_list() == {}


async def handshakes_that_fail(host: str, port: int, count: int) -> None:
    """Connect, and say something else than TLS."""
    for _ in range(count):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(patience(30)):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()


@pytest.mark.timeout(180)
async def test_failed_handshakes_do_not_stop_a_daemon_whose_stderr_nobody_reads(tmp_path: Path) -> None:
    tls = fill(tmp_path / "tls", OURS.signed())
    port = port_span()[1] - 30
    folders = ("--state-dir", str(tmp_path / "state"), "--logs-dir", str(tmp_path / "logs"))
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, b"x" * 4096)
    os.set_blocking(full, True)
    process = await asyncio.create_subprocess_exec(
        *(str(BIN), "daemon", "--listen", f"127.0.0.1:{port}", "--tls-dir", str(tls), *folders),
        *("--metrics-listen", ""),
        stderr=full,
    )
    try:
        async with Client(f"tcp://127.0.0.1:{port}", OURS.signed()) as client:
            check: Any = client._channel.unary_unary("/grpc.health.v1.Health/Check")
            await check(b"", timeout=patience(30), wait_for_ready=True)
            await handshakes_that_fail("127.0.0.1", port, 2000)
            await client.process_create(sleeper("a"))
            await client.process_delete("a")
        process.terminate()
        async with asyncio.timeout(patience(30)):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(unread)
        os.close(full)


# --- renewal ---


async def until_health(client: Client, wanted: str, within: float = 60) -> None:
    """Follow the health of the certificates until it is as wanted."""
    watching = client._stream(
        "grpc.health.v1.Health/Watch",
        health_pb2.HealthCheckRequest(service="certificates"),
        health_pb2.HealthCheckResponse,
    )
    async with asyncio.timeout(patience(within)):
        async for answer in watching:
            if answer.status == health_pb2.HealthCheckResponse.ServingStatus.Value(wanted):
                break
    watching.cancel()


@pytest.mark.timeout(180)
async def test_renewed_certificates_are_used_within_a_minute_and_streams_stay_up(tls_daemon: Daemon) -> None:
    newer = Authority()
    async with tls_daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("before"))
        await watch.state("before", "running")

        fill(tls_daemon.folder / "tls", newer.signed())
        await tls_daemon.logged(lambda line: line["event"] == "certificates renewed", within=60)

        for address in addresses(tls_daemon):
            async with Client(f"tcp://{address}", newer.signed()) as renewed:
                assert await renewed.health() == "SERVING"
            async with Client(f"tcp://{address}", OURS.signed()) as former:
                with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                    await former.health()
        for address in managing(tls_daemon):
            async with Client(f"tcp://{address}", newer.signed()) as renewed:
                await renewed.process_create(sleeper(f"after-{address.rpartition(':')[2]}"))
            # The CA that was replaced is not trusted any more, on no port.
            for old in (OURS.signed(), dataclasses.replace(OURS.signed(), ca=newer.pem)):
                async with Client(f"tcp://{address}", old) as former:
                    with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                        await former.process_list()
            # What was open before is open still.
            await watch.state(f"after-{address.rpartition(':')[2]}", "running")
        assert len(await client.process_list()) == 3


@pytest.mark.timeout(180)
@pytest.mark.parametrize("marked", ["tls.crt", "ca.crt", "tls.key"])
async def test_a_renewal_with_a_byte_order_mark_is_served(tls_daemon: Daemon, marked: str) -> None:
    newer = Authority()
    made = newer.signed()
    files = {"ca.crt": made.ca, "tls.crt": made.certificate, "tls.key": made.key}
    files[marked] = with_mark(files[marked])
    fill(tls_daemon.folder / "tls", CertificateSet(*files.values()))
    await tls_daemon.logged(lambda line: line["event"] == "certificates renewed", within=60)
    for address in addresses(tls_daemon):
        async with Client(f"tcp://{address}", newer.signed()) as client:
            assert await client.health() == "SERVING"
        async with Client(f"tcp://{address}", OURS.signed()) as client:
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await client.health()


async def test_files_with_a_byte_order_mark_are_served_from_the_start(tmp_path: Path) -> None:
    made = OURS.signed()
    marked = CertificateSet(*map(with_mark, (made.ca, made.certificate, made.key)))
    async with secured(tmp_path, marked) as daemon, daemon.client() as client:
        assert await client.health() == "SERVING"
        async with Client(daemon.url, marked) as another:
            assert await another.health() == "SERVING"


@pytest.mark.timeout(180)
async def test_a_broken_renewal_keeps_what_was_good_and_is_shown_until_it_is_mended(
    tls_daemon: Daemon,
) -> None:
    folder = tls_daemon.folder / "tls"
    async with tls_daemon.client() as client:
        await until_health(client, "SERVING")
        (folder / "tls.key").write_bytes(b"noise")
        await until_health(client, "NOT_SERVING")
        line = await tls_daemon.logged(lambda line: "renewed certificates are not used" in line["event"])
        assert "tls.key: it holds no private key" in line["reason"]
        for address in addresses(tls_daemon):
            async with Client(f"tcp://{address}", OURS.signed()) as another:
                assert await another.health() == "SERVING"
        fill(folder, OURS.signed())
        await until_health(client, "SERVING")
