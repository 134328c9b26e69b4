"""`instance-manager instance` and `log-level`: against a daemon, and for v2 against one that writes down."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from instance_manager.cli.watch import differences
from instance_manager.client import Client
from instance_manager.pb.imrpc import instance_pb2 as pb
from tests.support.cli import Result, ok, on_terminal, run, started
from tests.support.daemon import Daemon, Watch
from tests.support.fake_daemon import FakeDaemon, fake_daemon
from tests.support.fake_instances import FakeInstances, instance
from tests.support.patience import patience

CREATE = ("instance", "create", "--type", "replica", "--binary", "/bin/sleep", "--name")
CREATE_V2 = ("create", "--name", "r1", "--type", "replica", "--data-engine", "v2")


@pytest.fixture
def instances() -> FakeInstances:
    return FakeInstances()


@pytest.fixture
async def fake(instances: FakeInstances, tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    async with fake_daemon(f"unix:{tmp_path}/fake.sock", instances.handler) as running:
        yield running


# --- against a daemon ---


async def test_in_a_pipe_an_instance_is_json_with_every_field_under_its_proto_name(daemon: Daemon) -> None:
    created = (await ok(daemon, *CREATE, "vol-r-1", "--", "1000")).json
    fields = {field.name: field for field in pb.InstanceResponse.DESCRIPTOR.fields}
    assert set(created) == set(fields)
    assert set(created["spec"]) == {
        field.name for field in pb.InstanceSpec.DESCRIPTOR.fields if field.name != "spdk_instance_spec"
    }
    assert set(created["status"]) == {field.name for field in pb.InstanceStatus.DESCRIPTOR.fields}
    assert created["spec"]["process_instance_spec"] == {"binary": "/bin/sleep", "args": ["1000"]}
    uuid = created["status"]["uuid"]
    assert (await ok(daemon, "process", "get", "vol-r-1")).json["status"]["uuid"] == uuid

    assert (await ok(daemon, "instance", "get", "vol-r-1")).json["spec"] == created["spec"]
    wrong = await run("--url", daemon.url, "instance", "delete", "vol-r-1", "--uuid", "x")
    assert (wrong.code, wrong.error.startswith("cannot ")) == (3, True)
    deleting = (await ok(daemon, "instance", "delete", "--name", "vol-r-1", "--uuid", uuid)).json
    assert (deleting["status"]["uuid"], deleting["deleted"]) == (uuid, True)


async def test_every_form_shows_the_same_instances(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        uuids = {}
        for name, kind in (("vol-r-1", "replica"), ("vol-e-0", "engine")):
            uuids[name] = (await client.instance_create(spec(name, kind))).status.uuid
            await watch.state(name, "running")
    as_json = (await ok(daemon, "instance", "list", "-o", "json")).json
    assert list(as_json) == ["vol-e-0", "vol-r-1"]
    assert yaml.safe_load((await ok(daemon, "instance", "ls", "-o", "yaml")).out) == as_json
    assert (await ok(daemon, "instance", "ls", "-o", "name")).out == "vol-e-0\nvol-r-1\n"
    table = (await ok(daemon, "instance", "list", "-o", "table")).out.splitlines()
    assert [line.split() for line in table] == [
        ["NAME", "TYPE", "ENGINE", "STATE", "PORTS", "UUID"],
        ["vol-e-0", "engine", "v1", "running", "-", uuids["vol-e-0"]],
        ["vol-r-1", "replica", "v1", "running", "-", uuids["vol-r-1"]],
    ]
    wide = (await ok(daemon, "instance", "list", "-o", "wide")).out.splitlines()
    assert wide[0].split()[6:] == ["VOLUME", "ENDPOINT", "PROGRAM", "ERROR", "CONDITIONS"]
    assert "/bin/sleep 1000" in wide[1]


def spec(name: str, kind: str) -> pb.InstanceSpec:
    program = pb.ProcessInstanceSpec(binary="/bin/sleep", args=["1000"])
    return pb.InstanceSpec(name=name, type=kind, process_instance_spec=program)


async def test_replace_and_log_are_those_of_processes(daemon: Daemon) -> None:
    script = ("--", "-c", "echo one; echo two; exec sleep 1000")
    await ok(
        daemon, "instance", "create", "--name", "r1", "--type", "replica", "--binary", "/bin/sh", *script
    )
    await ok(daemon, "process", "wait", "r1", "--for", "running")
    async with started("--url", daemon.url, "instance", "log", "r1", "-f", "--tail", "1") as log:
        assert log.stdout is not None
        async with asyncio.timeout(patience(20)):
            assert await log.stdout.readline() in {b"one\n", b"two\n"}
    replace = ("instance", "replace", "--name", "r1", "--type", "replica", "--binary", "/usr/bin/env")
    replaced = (await ok(daemon, *replace, "--", "sleep", "1000")).json
    assert replaced["spec"]["process_instance_spec"]["binary"] == "/usr/bin/env"


async def test_a_watch_shows_what_is_different_after_each_ping(daemon: Daemon) -> None:
    watching = on_terminal("--url", daemon.url, "instance", "watch", columns=200)
    async with watching as (_, terminal), daemon.client() as client:
        await terminal.shows(f"Watching {daemon.url}, Ctrl-C ends it")
        uuid = (await client.instance_create(spec("vol-r-1", "replica"))).status.uuid
        await terminal.shows(rf"\d\d:\d\d:\d\d\.\d{{3}}Z  vol-r-1 +v1 replica +running +{uuid}\n")
        await client.instance_delete("vol-r-1")
        await terminal.shows(rf"vol-r-1 +v1 replica +deleted +{uuid}\n")


async def test_a_watch_in_a_pipe_is_json_and_ends_with_the_daemon(daemon: Daemon) -> None:
    watching = on_terminal("--url", daemon.url, "instance", "watch", stdout=asyncio.subprocess.PIPE)
    async with watching as (watch, terminal), daemon.client() as client:
        await terminal.shows("Watching")
        await client.instance_create(spec("r1", "replica"))
        assert watch.stdout is not None
        async with asyncio.timeout(patience(20)):
            change = json.loads(await watch.stdout.readline())
            assert (change["spec"]["name"], change["deleted"]) == ("r1", False)
            await daemon.stop()
            assert await watch.wait() == 5
        await terminal.shows("Error: cannot .*")


async def test_the_log_level_is_shown_and_set(daemon: Daemon) -> None:
    assert (await ok(daemon, "log-level", "get")).out == "info\n"
    assert await ok(daemon, "log-level", "set", "debug") == Result(0, "", "")
    assert (await ok(daemon, "log-level", "get")).out == "debug\n"
    refused = await run("--url", daemon.url, "log-level", "set", "loud")
    assert (refused.code, refused.out) == (2, "")
    assert "cannot use the log level 'loud'" in refused.error


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["create", "--name", "r1", "--type", "replica"], 2, "without a program: give --binary"),
        (["create", "--name", "r1", "--type", "disk"], 2, "'disk' is not one of"),
        (
            [
                "create",
                "--name",
                "r1",
                "--type",
                "replica",
                "--binary",
                "x",
                "--size",
                "1",
                "--frontend",
                "f",
            ],
            2,
            "cannot use --size, --frontend for v1: give --data-engine v2",
        ),
        (
            ["create", "--name", "r1", "--type", "replica", "--data-engine", "v2", "--binary", "x"],
            2,
            "cannot run a program as an instance of v2",
        ),
        (
            ["create", "--name", "r1", "--type", "replica", "--binary", "x", "--replica-address", "a:1"],
            2,
            "cannot use 'a:1': write NAME=HOST:PORT",
        ),
        (["create", "--name", "r1", "--type", "replica", "--size", "1G"], 2, "cannot use the size '1G'"),
        ([*CREATE_V2, "--shard", "a=h:1"], 2, "cannot use 'a=h:1': write NAME=HOST:PORT,SLOT"),
        ([*CREATE_V2, "--shard", "a=h:1,0", "--shard", "a=h:1,1"], 2, "cannot use the shard 'a' twice"),
        ([*CREATE_V2, "--data-chunks", "2"], 2, "cannot lay the shards of a replica out"),
        (["get"], 2, "no instance name given"),
        (["suspend", "e1"], 2, "Missing option '--type'"),
        (["suspend", "e1", "--type", "engine", "--data-engine", "v1"], 2, "cannot suspend a v1 instance"),
    ],
)
async def test_what_cannot_be_done_is_told(
    arguments: list[str], code: int, complaint: str, daemon: Daemon
) -> None:
    refused = await run("--url", daemon.url, "instance", *arguments)
    assert (refused.code, refused.out) == (code, "")
    assert complaint in refused.err


# --- v2, against one that writes down what it is asked ---

V2 = {"data_engine": "DATA_ENGINE_V2"}
TYPED = {"name": "i1", "type": "engine"}
OF_V2 = {
    "create --name i1 --type engine --data-engine v2 --volume-name v --size 2Gi --port-count 1 "
    "--disk-name d --disk-uuid du --lvs-name l --lvs-uuid lu --frontend f --replica-address a=1.2.3.4:5 "
    "--replica-address b=h:6 --backing-image-name bi --slot-index 3 --salvage-requested --ublk-queue-depth 4 "
    "--ublk-number-of-queue 5 --nvme-tcp-nr-io-queues 6 --snapshot-max-count 7 "
    "--target-address t:1 --initiator-address i --engine-name e --upgrade-required --sharded": (
        "InstanceCreate",
        {
            "spec": {
                **TYPED,
                **V2,
                "volume_name": "v",
                "port_count": 1,
                "spdk_instance_spec": {
                    "replica_address_map": {"a": "1.2.3.4:5", "b": "h:6"},
                    "disk_name": "d",
                    "disk_uuid": "du",
                    "size": str(2 << 30),
                    "frontend": "f",
                    "salvage_requested": True,
                    "backing_image_name": "bi",
                    "slot_index": 3,
                    "lvs_name": "l",
                    "lvs_uuid": "lu",
                    "ublk_queue_depth": 4,
                    "ublk_number_of_queue": 5,
                    "nvme_tcp_nr_io_queues": 6,
                    "snapshot_max_count": 7,
                },
                "upgrade_required": True,
                "initiator_address": "i",
                "target_address": "t:1",
                "engine_name": "e",
            },
            "data_layout_type": "DATA_LAYOUT_TYPE_SHARDED",
        },
    ),
    "create --name g1 --type shardgroup --data-engine v2 --volume-name v --data-chunks 1 --parity-chunks 1 "
    "--strip-size-kb 64 --shard v-0=h:1,0 --shard v-1=[::1]:2,1 --salvage-requested": (
        "InstanceCreate",
        {
            "spec": {
                "name": "g1",
                "type": "shardgroup",
                **V2,
                "volume_name": "v",
                "spdk_instance_spec": {
                    "salvage_requested": True,
                    "shard_group_spec": {
                        "data_chunks": 1,
                        "parity_chunks": 1,
                        "strip_size_kb": 64,
                        "shards": {"v-0": {"address": "h:1"}, "v-1": {"address": "[::1]:2", "slot_index": 1}},
                        "salvage_requested": True,
                    },
                },
            }
        },
    ),
    "delete i1 --type engine --data-engine v2 --uuid u1 --disk-uuid d --cleanup-required": (
        "InstanceDelete",
        {**TYPED, **V2, "uuid": "u1", "disk_uuid": "d", "cleanup_required": True},
    ),
    "get i1 --type engine --data-engine v2": ("InstanceGet", {**TYPED, **V2}),
    "suspend i1 --type engine": ("InstanceSuspend", {**TYPED, **V2}),
    "resume i1 --type engine": ("InstanceResume", {**TYPED, **V2}),
    "delete-target --name i1 --type engine": ("InstanceDeleteTarget", {**TYPED, **V2}),
    "switch-over i1 --type engine --target-address t:1 --engine-name e --phase p": (
        "InstanceSwitchOverTarget",
        {**TYPED, **V2, "target_address": "t:1", "engine_name": "e", "switchover_phase": "p"},
    ),
}


@pytest.mark.parametrize("command", OF_V2, ids=lambda command: command.split()[0])
async def test_every_option_reaches_the_daemon(
    command: str, fake: FakeDaemon, instances: FakeInstances
) -> None:
    result = await run("--url", fake.url, "instance", *command.split())
    assert (result.code, result.err) == (0, "")
    assert instances.asked == [OF_V2[command]]


async def test_the_log_of_v2_is_asked_for_with_tail_and_follow(
    fake: FakeDaemon, instances: FakeInstances
) -> None:
    options = ("--type", "engine", "--data-engine", "v2", "--tail", "3", "-f")
    result = await run("--url", fake.url, "instance", "log", "i1", *options)
    assert result == Result(0, "a line\n", "")
    assert instances.asked == [("InstanceLog", {**TYPED, **V2})]
    assert instances.metadata["instance-manager-tail"] == "3"
    assert instances.metadata["instance-manager-follow"] == "true"


async def test_the_log_level_of_v2_is_that_of_the_spdk_service(
    fake: FakeDaemon, instances: FakeInstances
) -> None:
    v2 = ("--data-engine", "v2")
    assert (await run("--url", fake.url, "log-level", "get", *v2)).out == "warning\n"
    assert (await run("--url", fake.url, "log-level", "set", "debug", *v2)).code == 0
    async with Client(fake.url) as client:
        assert await client.log_flags("v2") == "bdev,nvmf"
        await client.set_log_flags("nvmf", "v2")
    assert instances.asked == [
        ("LogGetLevel", V2),
        ("LogSetLevel", {**V2, "level": "debug"}),
        ("LogGetFlags", V2),
        ("LogSetFlags", {**V2, "flags": "nvmf"}),
    ]


async def test_instances_of_both_engines_stand_in_one_table(
    fake: FakeDaemon, instances: FakeInstances
) -> None:
    instances.listed = {"e1": instance("e1", "suspended", "u2", "engine-frontend", volume_name="v")}
    table = (await run("--url", fake.url, "instance", "ls", "-o", "wide")).out.splitlines()
    assert table[1].split() == ["e1", "engine-frontend", "v2", "suspended", "-", "u2", "v", *["-"] * 4]


def told(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str, bool]]:
    return [(each.spec.name, each.status.uuid, each.deleted) for each in differences(before, after)]


def test_a_name_with_another_uuid_is_one_instance_gone_and_another_new() -> None:
    old, new = instance("i1", "running", "u1"), instance("i1", "running", "u2")
    same = {"i2": instance("i2", "running")}
    assert told({"i1": old, **same}, {"i1": new, **same}) == [("i1", "u1", True), ("i1", "u2", False)]
    assert told({"i1": new}, {"i1": instance("i1", "error", "u2")}) == [("i1", "u2", False)]
    assert told({}, {}) == []
