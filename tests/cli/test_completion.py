"""Completion in a shell, down to the names of live processes."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.support.cli import Result, executed, run
from tests.support.daemon import BIN, Daemon, sleeper
from tests.support.fake_daemon import fake_daemon, process
from tests.support.patience import patience

VARIABLE = "_INSTANCE_MANAGER_COMPLETE"


async def completed(words: str, shell: str = "bash", **env: str) -> list[str]:
    """Return what is offered for the last of some words."""
    at = str(len(words.split(" ")) - 1)
    variables = {VARIABLE: f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": at, **env}
    result = await run(env=variables)
    assert (result.code, result.err) == (0, "")
    return result.out.splitlines()


async def offered(words: str, shell: str = "bash", **env: str) -> list[str]:
    """Return what is offered in the end: a completion gives up when its daemon takes seconds to answer."""
    async with asyncio.timeout(patience(30)):
        while (found := await completed(words, shell, **env)) in ([], [""]):
            pass
    return found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_script_is_for_the_name_it_was_asked_by(shell: str) -> None:
    script = await run("completion", shell)
    assert (script.code, script.err) == (0, "")
    assert f"{VARIABLE}={shell}_complete" in script.out


async def test_the_other_name_has_a_script_of_its_own() -> None:
    script = await executed(str(BIN.with_name("longhorn-instance-manager")), "completion", "zsh")
    assert "_LONGHORN_INSTANCE_MANAGER_COMPLETE=zsh_complete" in script.out


async def test_names_of_live_processes_are_offered(daemon: Daemon) -> None:
    async with daemon.client() as client:
        for name in ("r1", "r2", "e1"):
            await client.process_create(sleeper(name))
    url = {"INSTANCE_MANAGER_URL": daemon.url}
    assert await offered("instance-manager process delete r", **url) == ["plain,r1", "plain,r2"]
    by_option = f"instance-manager --url {daemon.url} process wait --name "
    assert await offered(by_option) == ["plain,e1", "plain,r1", "plain,r2"]
    file = Path(daemon.folder) / "config.yaml"
    file.write_text(f"url: {daemon.url}\n")
    of_file = f"instance-manager --config {file} process get e"
    assert await offered(of_file) == ["plain,e1"]
    in_zsh = await offered("instance-manager process log e", "zsh", **url)
    assert in_zsh[:2] == ["plain", "e1"]


async def test_a_daemon_out_of_reach_completes_nothing_and_says_nothing(tmp_path: Path) -> None:
    url = {"INSTANCE_MANAGER_URL": f"unix://{tmp_path}/none"}
    assert await completed("instance-manager process delete r", **url) == [""]
    assert await completed("instance-manager --url nonsense process delete r") == [""]
    assert await completed("instance-manager process get --n", **url) == ["plain,--name"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
async def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    script = """
        eval "$(instance-manager completion bash)"
        COMP_WORDS=(instance-manager process get rep) COMP_CWORD=3
        function=$(complete -p instance-manager | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        "$function" instance-manager rep get
        echo "offered: ${COMPREPLY[*]}"
    """
    async with fake_daemon(f"unix:{tmp_path}/fake.sock") as fake:
        fake.list = [process("running", name="replica-1")]
        result = await executed("bash", "--norc", "-c", script, env={"INSTANCE_MANAGER_URL": fake.url})
    assert result == Result(0, "offered: replica-1\n", "")
