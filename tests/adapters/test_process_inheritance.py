"""What an instance has from the daemon: the list in `spawner`, told by a child, also after adoption."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.daemon import Watch
from tests.support.node import on_node, until
from tests.support.processes import open_workshop

REPORT = """
import json, os, resource, signal, sys

def fds():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try: found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError: pass
    return found

def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"): return int(line.split()[1], 16)

def tty():
    try: os.close(os.open("/dev/tty", os.O_RDWR)); return True
    except OSError: return False

mask = os.umask(0); os.umask(mask)
BEFORE = dict(blocked=status("SigBlk"), ignored=status("SigIgn"))

def report():
    return dict(
        BEFORE, descriptors=fds(), umask=mask, nice=os.nice(0), cwd=os.getcwd(), tty=tty(),
        oom=int(open("/proc/self/oom_score_adj").read()),
        leader=[os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        limits={name: resource.getrlimit(getattr(resource, name)) for name in
                ("RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_NPROC", "RLIMIT_FSIZE")},
        environment=dict(os.environ), words=sys.argv[1:],
    )
"""
TO_STDOUT = REPORT + "print(json.dumps(report()), flush=True)"
TO_FILES = (
    REPORT
    + """
import time
def write(*_):
    write.count += 1
    path, text = f"{sys.argv[1]}/report{write.count}", json.dumps(report())
    with open(path + ".new", "w") as file: file.write(text)
    os.rename(path + ".new", path)
write.count = 0
signal.signal(signal.SIGUSR1, write)
write()
while True: time.sleep(1000)
"""
)
_GLIBC = (1 << 31) | (1 << 32)
"""Signals 32 and 33, which glibc keeps for itself."""


def as_this_process(found: dict[str, Any]) -> dict[str, Any]:
    """Return what is to be as in this process."""
    return {key: found[key] for key in ("umask", "nice", "cwd", "oom")}


def expected_here() -> dict[str, Any]:
    mask = os.umask(0)
    os.umask(mask)
    oom = int(Path("/proc/self/oom_score_adj").read_text())
    return {"umask": mask, "nice": os.nice(0), "cwd": str(Path.cwd()), "oom": oom}


def check(found: dict[str, Any]) -> None:
    """Check each line of the list that does not depend on who starts the daemon."""
    assert sorted(found["descriptors"])[:3] == ["0", "1", "2"]
    assert found["descriptors"]["0"] == os.devnull
    assert found["descriptors"]["1"] == found["descriptors"]["2"]
    assert not [fd for fd, target in found["descriptors"].items() if int(fd) > 2 and "/proc/" not in target]
    assert found["blocked"] == 0
    # Python ignores SIGPIPE and SIGXFSZ itself.
    assert found["ignored"] & ~_GLIBC == (1 << signal.SIGPIPE - 1) | (1 << signal.SIGXFSZ - 1)
    assert found["leader"] == [True, True]
    assert not found["tty"]
    assert not [key for key in found["environment"] if key.startswith("LD_")]
    assert "INSTANCE_MANAGER_GUARD" not in found["environment"]
    named = {key for key in found["environment"] if key.startswith("INSTANCE_MANAGER_")}
    assert {"INSTANCE_MANAGER_NAME", "INSTANCE_MANAGER_UUID", "INSTANCE_MANAGER_OWNER"} <= named


@pytest.fixture
def odd_process() -> Iterator[None]:
    """Let this process have settings that are not usual."""
    mask, handler = os.umask(0o027), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    core = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, core[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, core)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    signal.signal(signal.SIGHUP, handler)
    os.umask(mask)


@pytest.mark.usefixtures("odd_process")
async def test_a_child_has_from_this_process_what_the_list_says() -> None:
    environment = {"PATH": os.environ["PATH"], "LD_PRELOAD": "", "INSTANCE_MANAGER_GUARD": "1", "KEPT": "1"}
    async with open_workshop(environment) as workshop:
        started = workshop.spawn(sys.executable, "-I", "-S", "-c", TO_STDOUT, "a", "grün")
        await started.exited()
        found = json.loads(await workshop.output.ended())
    check(found)
    assert as_this_process(found) == expected_here()
    assert found["environment"]["KEPT"] == "1"
    assert found["environment"]["INSTANCE_MANAGER_UUID"] == started.uuid
    for name, limit in found["limits"].items():
        assert tuple(limit) == resource.getrlimit(getattr(resource, name)), name


async def test_an_instance_has_the_same_after_it_was_adopted(tmp_path: Path) -> None:
    async with on_node(tmp_path) as node:
        async with node.client() as client, Watch(client) as watch:
            spec = pb.ProcessSpec(
                name="r", binary=sys.executable, args=["-I", "-S", "-c", TO_FILES, str(tmp_path)]
            )
            await client.process_create(spec)
            await watch.state("r", "running")
        first = await read(tmp_path / "report1")
        check(first)
        soft, hard = first["limits"]["RLIMIT_NOFILE"]
        assert soft == hard, "the daemon has raised it"
        (pid,) = node.daemon.descendants()
        await node.kill()
        await node.restart()
        os.kill(pid, signal.SIGUSR1)
        second = await read(tmp_path / "report2")
    check(second)
    assert second == first


async def read(path: Path) -> dict[str, Any]:
    await until(path.exists)
    found: dict[str, Any] = json.loads(path.read_text())  # noqa: ASYNC240 - a few bytes
    return found


SPAWN_IN_A_LOCALE = """
import asyncio, os, structlog, sys
structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
from instance_manager.adapters.process import ProcessSpawner, Reaper, SessionContainment
from instance_manager.app.interfaces import SpawnRequest

async def main():
    reaper = Reaper()
    containment = SessionContainment(reaper, "owner", None)
    spawner = ProcessSpawner(os.environ, "owner", containment=containment, reaper=reaper)
    reaper.open()
    spawner.open()
    done = asyncio.get_running_loop().create_future()
    word = "gr\\u00fcn"
    command = "/bin/" + sys.argv[1], word
    request = SpawnRequest(name="r", uuid="u", command=command, recovery_metadata=word, output=1)
    child = spawner.spawn(request, done.set_result)
    await done
    await child.end_tree()
    spawner.close()
    containment.close()
    reaper.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("variable", ["LANG", "LC_ALL"])
@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_words_and_variables_are_utf_8_whatever_the_locale_is(variable: str, locale: str) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))},
        variable: locale,
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    out = subprocess.run(
        [sys.executable, "-c", SPAWN_IN_A_LOCALE, "echo"], env=environment, check=True, capture_output=True
    )
    assert out.stdout == "grün\n".encode()
