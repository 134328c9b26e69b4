"""The arguments in answers are those that the program has got, as clients of the Go daemon know them."""

import shutil
from pathlib import Path
from typing import Any

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.daemon import BIN, Daemon, Watch, stub

SCRIPT = '#!/bin/sh\nexec {} "$@"\n'


def resolved(port: int) -> list[str]:
    return ["stub", "replica", "--listen", f"127.0.0.1:{port}"]


def arguments(answer: Any) -> list[str]:
    spec = answer.spec
    return list(spec.args if isinstance(spec, pb.ProcessSpec) else spec.process_instance_spec.args)


async def answers(client: Client, name: str) -> list[Any]:
    return [
        await client.process_get(name),
        (await client.process_list())[name],
        await client.instance_get(name),
        (await client.instance_list())[name],
    ]


async def check(client: Client, name: str) -> int:
    """Check what is told about an instance, and return its port."""
    found = await answers(client, name)
    for answer in found:
        assert arguments(answer) == resolved(answer.status.port_start)
        assert list(answer.spec.port_args) == ["--listen,127.0.0.1:"]
        assert answer.spec.port_count == 1
    return int(found[0].status.port_start)


async def test_every_answer_has_the_ports_in_the_arguments(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        created = await client.process_create(stub("r1"))
        running = await watch.state("r1", "running")
        port = await check(client, "r1")
        deleting = await client.process_delete("r1")
        gone = await watch.state("r1", "deleted")
        for answer in (created, running, deleting, gone):
            assert arguments(answer) == resolved(port)


async def test_arguments_with_ports_are_told_of_adopted_and_replaced_instances(tmp_path: Path) -> None:
    """Each time the ports are appended to what was asked for, and not to what has been told."""
    other = tmp_path / "other"
    other.write_text(SCRIPT.format(BIN))
    other.chmod(0o755)
    old = Daemon(tmp_path, "--on-stop", "leave")
    try:
        await old.start()
        async with old.client() as client, Watch(client) as watch:
            await client.process_create(stub("r1"))
            await watch.state("r1", "running")
            port = await check(client, "r1")
        assert await old.stop() == 0
        shutil.rmtree(tmp_path / "state")
        for _ in ("from the process itself", "from the journal"):
            new = Daemon(tmp_path, "--on-stop", "leave")
            new.marker = old.marker
            await new.start()
            async with new.client() as client:
                assert await check(client, "r1") == port
            assert await new.stop() == 0
    finally:
        if old.process.returncode is None:
            await old.stop()
    last = Daemon(tmp_path)
    last.marker = old.marker
    try:
        await last.start()
        async with last.client() as client:
            spec = stub("r1")
            spec.binary = str(other)
            replaced = await client.process_replace(spec)
            assert arguments(replaced) == resolved(replaced.status.port_start)
            assert replaced.status.port_start != port
            assert await check(client, "r1") == replaced.status.port_start
    finally:
        assert await last.clean_up() == []


async def test_what_has_no_ports_is_told_as_it_was_asked_for(daemon: Daemon) -> None:
    async with daemon.client() as client:
        spec = stub("r1", ports=0)
        assert arguments(await client.process_create(spec)) == ["stub", "replica"]
