"""`instance-manager process` against a daemon, its output in pipes."""

import asyncio
import json

import yaml

from tests.support.cli import Result, executed, ok, on_terminal, run, started
from tests.support.daemon import BIN, Daemon, Watch, shell, sleeper
from tests.support.patience import patience

EVERY_FIELD = {
    "spec": {"name", "binary", "args", "port_count", "port_args"},
    "status": {"state", "error_msg", "port_start", "port_end", "conditions", "uuid"},
}

FAILING = ": \x1b[31m\n'two  words'; exit 3"
"""A script with what a terminal would obey, which is shown and not sent."""


async def test_in_a_pipe_a_process_is_json_with_every_field_under_its_proto_name(daemon: Daemon) -> None:
    created = (
        await ok(daemon, "process", "create", "--name", "r1", "--binary", "/bin/sleep", "--", "1000")
    ).json
    assert {name: set(created[name]) for name in EVERY_FIELD} == EVERY_FIELD
    assert set(created) == {*EVERY_FIELD, "deleted"}
    assert created["spec"] == {
        "name": "r1",
        "binary": "/bin/sleep",
        "args": ["1000"],
        "port_count": 0,
        "port_args": [],
    }
    assert (created["status"]["state"], created["deleted"]) == ("starting", False)

    got = (await ok(daemon, "process", "get", "--name", "r1")).json
    assert got["status"]["uuid"] == created["status"]["uuid"]
    listed = (await ok(daemon, "process", "list")).json
    assert list(listed) == ["r1"]
    assert listed["r1"]["spec"] == created["spec"]
    assert (await ok(daemon, "process", "ls")).json.keys() == listed.keys()

    uuid = created["status"]["uuid"]
    deleting = (await ok(daemon, "process", "delete", "--name", "r1", "--uuid", uuid)).json
    assert (deleting["status"]["uuid"], deleting["deleted"]) == (uuid, True)


async def test_an_empty_list_is_an_empty_object_under_both_names_of_the_program(daemon: Daemon) -> None:
    assert (await ok(daemon, "process", "list")).out == "{}\n"
    assert (await ok(daemon, "process", "list", "-o", "name")).out == ""
    of_go = str(BIN.with_name("longhorn-instance-manager"))
    assert await executed(of_go, "--url", daemon.url, "process", "ls") == Result(0, "{}\n", "")


async def test_all_after_the_dashes_goes_to_the_program_and_port_args_are_not_split_here(
    daemon: Daemon,
) -> None:
    script = 'printf "%s\\n" "$@"; exec sleep 1000'
    created = (
        await ok(
            daemon,
            *("process", "create", "--name", "r1", "--binary", "/bin/sh", "--port-count", "2"),
            *("--port-args", "--listen,0.0.0.0:", "--port-args", "--sync,"),
            *("--", "-c", script, "sh", "-o", "--name", "x", "--", "a b", ""),
        )
    ).json
    assert created["spec"]["port_args"] == ["--listen,0.0.0.0:", "--sync,"]
    first = created["status"]["port_start"]
    ports = ["--listen", f"0.0.0.0:{first}", "--sync", f"{first + 1}"]
    assert created["spec"]["args"] == ["-c", script, "sh", "-o", "--name", "x", "--", "a b", "", *ports]

    async with started("--url", daemon.url, "process", "log", "r1", "--follow") as log:
        assert log.stdout is not None
        async with asyncio.timeout(patience(20)):
            lines = [(await log.stdout.readline()).decode().rstrip("\n") for _ in range(10)]
    assert lines == ["-o", "--name", "x", "--", "a b", "", *ports]


async def test_the_first_argument_ends_the_options_also_without_dashes(daemon: Daemon) -> None:
    create = ("process", "create", "-o", "json", "--name", "r1", "--binary", "/bin/sleep")
    created = (await ok(daemon, *create, "1000", "-o", "name")).json
    assert created["spec"]["args"] == ["1000", "-o", "name"]


async def test_a_name_is_an_argument_or_an_option_but_one_name(daemon: Daemon) -> None:
    async with daemon.client() as client:
        await client.process_create(sleeper("r1"))
    for way in (["r1"], ["--name", "r1"], ["--name", "r1", "r1"]):
        assert (await ok(daemon, "process", "get", *way, "-o", "name")).out == "r1\n"
    for way in ([], ["--name", "r1", "r2"]):
        refused = await run("--url", daemon.url, "process", "get", *way)
        assert (refused.code, refused.out) == (2, "")
        assert "process name given: give one NAME" in refused.err


async def test_every_form_shows_the_same_processes(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("vol-e-1"))
        await client.process_create(shell("b" * 100, FAILING))
        await watch.state("vol-e-1", "running")
        await watch.state("b" * 100, "error")
        processes = await client.process_list()
    uuids = [processes[name].status.uuid for name in sorted(processes)]
    names = ["b" * 100, "vol-e-1"]

    as_json = (await ok(daemon, "process", "list", "-o", "json")).json
    assert yaml.safe_load((await ok(daemon, "process", "list", "-o", "yaml")).out) == as_json
    assert list(as_json) == names
    assert (await ok(daemon, "process", "list", "-o", "name")).out.split() == names

    table = (await ok(daemon, "process", "list", "-o", "table", env={"COLUMNS": "20"})).out.splitlines()
    assert table[0].split() == ["NAME", "STATE", "PORTS", "UUID"]
    assert [line.split() for line in table[1:]] == [
        [names[0], "error", "-", uuids[0]],
        [names[1], "running", "-", uuids[1]],
    ]
    wide = (await ok(daemon, "process", "list", "-o", "wide", env={"FORCE_COLOR": "1"})).out.splitlines()
    assert wide[0].split()[4:] == ["BINARY", "ARGS", "ERROR", "CONDITIONS"]
    assert "exit status 3" in wide[1]
    assert r"""-c ': \x1b[31m\n'"'"'two  words'"'"'; exit 3'""" in wide[1]
    assert wide[2].endswith("FilesystemReadOnly=false")
    assert "\x1b" not in "".join(table + wide)


async def test_replace_puts_another_program_in_its_place(daemon: Daemon) -> None:
    await ok(daemon, "process", "create", "--name", "r1", "--binary", "/bin/sleep", "--", "1000")
    await ok(daemon, "process", "wait", "--name", "r1", "--for", "running")
    replace = (
        "process",
        "replace",
        "--name",
        "r1",
        "--binary",
        "/usr/bin/env",
        "--terminate-signal",
        "SIGHUP",
    )
    replaced = (await ok(daemon, *replace, "--", "sleep", "1000")).json
    assert (replaced["spec"]["binary"], replaced["status"]["state"]) == ("/usr/bin/env", "running")
    assert (await ok(daemon, "process", "get", "r1")).json["status"] == replaced["status"]


async def test_log_shows_all_or_the_tail_and_also_of_one_that_is_gone(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("r1", "printf 'one\\ntwo\\nthr\\303\\244\\377e'"))
        await watch.state("r1", "stopped")
        await client.process_delete("r1")
        await watch.state("r1", "deleted")
    assert (await ok(daemon, "process", "log", "r1")).out == "one\ntwo\nthrä\ufffde\n"
    assert (await ok(daemon, "process", "log", "--name", "r1", "--tail", "1")).out == "thrä\ufffde\n"
    assert (await ok(daemon, "process", "log", "r1", "--tail", "0")).out == ""


async def test_a_followed_log_comes_line_by_line_and_ends_with_the_process(daemon: Daemon) -> None:
    async with daemon.client() as client:
        await client.process_create(shell("r1", "trap 'echo last; exit' INT; echo first; sleep 1000 & wait"))
        async with started("--url", daemon.url, "process", "log", "r1", "-f") as log:
            assert log.stdout is not None
            async with asyncio.timeout(patience(20)):
                assert await log.stdout.readline() == b"first\n"
                await client.process_delete("r1")
                out, err = await log.communicate()
        assert (log.returncode, out, err) == (0, b"last\n", b"")


async def test_one_who_reads_no_more_ends_the_program_without_a_word(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("r1", "seq 100000"))
        await watch.state("r1", "stopped")
    async with started("--url", daemon.url, "process", "log", "r1") as log:
        assert log.stdout is not None
        assert log.stderr is not None
        async with asyncio.timeout(patience(20)):
            assert await log.stdout.readline() == b"1\n"
            log.stdout._transport.close()  # type: ignore[attr-defined]
            assert await log.stderr.read() == b""
            assert await log.wait() == 1


async def test_in_a_pipe_every_change_is_a_line_of_json_at_once(daemon: Daemon) -> None:
    # On a terminal stderr tells from when on it watches; in a pipe there is nothing but the changes.
    watching = on_terminal("--url", daemon.url, "process", "watch", stdout=asyncio.subprocess.PIPE)
    async with watching as (watch, terminal), daemon.client() as client:
        assert watch.stdout is not None
        await terminal.shows(f"Watching {daemon.url}")
        created = await client.process_create(sleeper("r1"))
        async with asyncio.timeout(patience(20)):
            changes = [json.loads(await watch.stdout.readline()) for _ in range(2)]
            await client.process_delete("r1")
            changes += [json.loads(await watch.stdout.readline()) for _ in range(3)]
    assert {change["status"]["uuid"] for change in changes} == {created.status.uuid}
    assert [change["status"]["state"] for change in changes] == [
        *("starting", "running", "stopping", "stopped", "stopped")
    ]
    assert [change["deleted"] for change in changes] == [False] * 4 + [True]
