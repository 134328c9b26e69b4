"""Clients that are not ours, unchanged: grpcurl and buf curl, by reflection."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, running_daemon
from tests.support.patience import patience

PROBE = "grpc.health.v1.Health"
CREATE = {"spec": {"name": "r1", "binary": "/bin/sleep", "args": ["1000"]}}


class ForeignClient:
    """A program that calls methods by reflection."""

    def __init__(self, program: str, address: str) -> None:
        self.program = program
        self.address = address

    def command(self, method: str, request: dict[str, Any]) -> list[str]:
        """Return the command line of a call."""
        data = json.dumps(request)
        if self.program.endswith("grpcurl"):
            return [self.program, "-plaintext", "-d", data, self.address, method]
        url = f"http://{self.address}/{method}"
        return [self.program, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", data, url]

    async def call(self, method: str, request: dict[str, Any] | None = None) -> tuple[int, str, str]:
        """Call a method; return exit status, stdout and stderr."""
        return await run(*self.command(method, request or {}))

    async def answer(self, method: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call a method that succeeds and return its answer."""
        status, out, err = await self.call(method, request)
        assert status == 0, err
        answer: dict[str, Any] = json.loads(out)
        return answer


async def run(*command: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(patience(30)):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def grpcurl() -> str:
    found = shutil.which("grpcurl")
    if found is None:
        pytest.skip("needs grpcurl: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3")
    return found


@pytest.fixture
async def tcp_daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "2") as running:
        yield running


@pytest.fixture(params=["grpcurl", "buf"])
def client(request: pytest.FixtureRequest, tcp_daemon: Daemon) -> ForeignClient:
    program = grpcurl() if request.param == "grpcurl" else str(Path(sys.executable).parent / "buf")
    return ForeignClient(program, tcp_daemon.url.removeprefix("tcp://"))


async def test_a_foreign_client_creates_lists_and_deletes_only_with_the_right_uuid(
    client: ForeignClient,
) -> None:
    created = await client.answer("ProcessManagerService/ProcessCreate", CREATE)
    assert created["status"]["state"] == "starting"
    uuid = created["status"]["uuid"]

    listed = await client.answer("ProcessManagerService/ProcessList")
    assert listed["processes"]["r1"]["status"]["uuid"] == uuid

    wrong = {"name": "r1", "uuid": "00000000-0000-0000-0000-000000000000"}
    status, out, err = await client.call("ProcessManagerService/ProcessDelete", wrong)
    assert status != 0
    assert "not_found" in (out + err).lower().replace("notfound", "not_found")

    deleted = await client.answer("ProcessManagerService/ProcessDelete", {"name": "r1", "uuid": uuid})
    assert deleted["deleted"] is True


async def test_a_foreign_client_watches_a_process_from_stopping_to_stopped(client: ForeignClient) -> None:
    watching = await asyncio.create_subprocess_exec(
        *client.command("ProcessManagerService/ProcessWatch", {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert watching.stdout is not None
    try:
        # The client tells nobody when its watch has begun: create until it sees something.
        states = States(watching.stdout)
        for number in range(1000):
            spec = {"name": f"p{number}", "binary": "/bin/sleep", "args": ["1000"]}
            await client.answer("ProcessManagerService/ProcessCreate", {"spec": spec})
            await client.answer("ProcessManagerService/ProcessDelete", {"name": f"p{number}"})
            if await states.seen("stopping", "stopped", "deleted"):
                return
        raise AssertionError("the watch never saw anything")
    finally:
        watching.terminate()
        await watching.wait()


class States:
    """The states that appear in a stream of JSON texts, one behind the other."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._text = ""

    async def seen(self, *wanted: str) -> bool:
        """Read for half a second at most; tell whether the states have appeared in this order."""
        try:
            async with asyncio.timeout(0.5):
                while not self._in_order(wanted):
                    self._text += (await self._stream.read(4096)).decode()
        except TimeoutError:
            return False
        return True

    def _in_order(self, wanted: tuple[str, ...]) -> bool:
        position = 0
        for word in wanted:
            position = self._text.find(f'"{word}"', position) + 1
            if position == 0:
                return False
        return True


async def test_grpcurl_lists_and_describes_what_the_daemon_serves_on_each_port(tcp_daemon: Daemon) -> None:
    for line in tcp_daemon.lines:
        if line["event"] == "serving":
            addresses = line["addresses"]
    for address in addresses:
        status, out, err = await run(grpcurl(), "-plaintext", address, "list")
        assert (status, err) == (0, "")
        assert PROBE in out.split()
    for address in (addresses[0], addresses[3]):
        status, out, err = await run(grpcurl(), "-plaintext", address, "list")
        assert "ProcessManagerService" in out.split()
        status, out, err = await run(grpcurl(), "-plaintext", address, "describe", ".ProcessStatus")
        assert (status, err) == (0, "")
        assert "string uuid = 6;" in out


async def test_health_answers_for_the_daemon_and_for_each_service(client: ForeignClient) -> None:
    for service in ("", "ProcessManagerService"):
        assert await client.answer(f"{PROBE}/Check", {"service": service}) == {"status": "SERVING"}
    status, out, err = await client.call(f"{PROBE}/Check", {"service": "Unknown"})
    assert status != 0
    assert "not_found" in (out + err).lower().replace("notfound", "not_found")


async def test_version_get_tells_the_versions_of_what_is_served(
    client: ForeignClient,
) -> None:
    answer = await client.answer("ProcessManagerService/VersionGet")
    versions = {key: value for key, value in answer.items() if key.startswith("instanceManager")}
    assert versions == {
        "instanceManagerAPIVersion": "7",
        "instanceManagerAPIMinVersion": "1",
        "instanceManagerProxyAPIVersion": "7",
        "instanceManagerProxyAPIMinVersion": "1",
    }
