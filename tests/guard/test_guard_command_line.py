import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import BIN, refusal
from tests.support.guard import STUB, Guard, guarding, strings
from tests.support.patience import patience


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the guard to its end."""
    return subprocess.run(
        [BIN, "guard", *arguments],
        capture_output=True,
        text=True,
        timeout=patience(20),
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no command to guard; it stands after --, as in instance-manager guard -- daemon"),
        (["--"], "there is no command to guard"),
        (["daemon"], "unknown argument daemon; the command to guard stands after --"),
        (["--nonsense", "--", "daemon"], "unknown argument --nonsense"),
        (["--restarts=-1", "--", "daemon"], "argument --restarts: '-1' is not a whole number from 0 up"),
        (["--restarts", "1.5", "--", "daemon"], "'1.5' is not a whole number"),
        (["--within", "0", "--", "daemon"], "argument --within: '0' is not a number of minutes above 0"),
        (["--within", "nan", "--", "daemon"], "'nan' is not a number of minutes above 0"),
        (["--within", "soon", "--", "daemon"], "'soon' is not a number of minutes above 0"),
        (["--state-dir", "", "--", "daemon"], "argument --state-dir: it is empty"),
        (["--state-dir"], "argument --state-dir: expected one argument"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in refusal(done.stderr)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_tells_the_options_and_exit_codes(option: str) -> None:
    done = run(option)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("--state-dir DIR", "--restarts N", "--within MINUTES", "default: 100", "Exit code"):
        assert words in done.stdout


def test_the_environment_sets_options_too_and_is_checked_alike() -> None:
    done = run("--", "daemon", INSTANCE_MANAGER_GUARD_RESTARTS="many")
    assert done.returncode == 2
    assert "argument --restarts: 'many' is not a whole number" in done.stderr


async def test_the_state_folder_of_the_daemon_is_the_guards_unless_told_otherwise(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    environment = {"INSTANCE_MANAGER_DAEMON_STATE_DIR": str(tmp_path)}
    command = (str(BIN), "guard", "--", *STUB, "--exit", "0")
    await guard.start(command, environment=environment)
    assert await guard.ended() == 0
    assert (tmp_path / "exits" / "boot_id").exists()
    assert await guard.clean_up() == []


@pytest.mark.parametrize(
    ("program", "before"),
    [
        ((str(BIN),), [str(BIN)]),
        ((sys.executable, "-P", "-m", "instance_manager"), ["-P", "-m", "instance_manager"]),
        ((str(BIN), "--debug"), [str(BIN), "--debug"]),
    ],
)
async def test_the_command_is_started_as_the_guard_was(
    tmp_path: Path, program: tuple[str, ...], before: list[str]
) -> None:
    async with guarding(tmp_path, *STUB, program=program) as guard:
        pid = await guard.started()
        await guard.printed("listening")
        started = strings(pid, "cmdline")
        assert started == [sys.executable, *before, *STUB]
        assert await guard.stop() == 0


def test_as_a_module_it_guards_the_installed_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "instance_manager.guard", "--state-dir", tmp_path, "--", *STUB, "--exit", "0"],
        capture_output=True,
        text=True,
        timeout=patience(20),
        check=False,
    )
    assert done.returncode == 0
    assert "exiting with code 0" in done.stdout


def test_it_loads_nothing_of_weight() -> None:
    heavy = {
        "asyncio",
        "click",
        "ctypes",
        "dataclasses",
        "logging",
        "pathlib",
        "subprocess",
        "threading",
        "typing",
    }
    code = (
        "import sys; from instance_manager.cli import main; sys.argv = ['x', 'guard', '--help']\n"
        f"try: main()\nfinally: sys.exit(str(sorted({heavy} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=patience(20), check=False
    )
    assert done.stderr == "[]\n"
