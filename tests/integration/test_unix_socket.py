"""The Unix socket: its owner's alone, and never taken away from a daemon that uses it."""

import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from instance_manager.adapters.metrics import RpcMetrics
from instance_manager.api.interceptors import InterceptorChain
from instance_manager.api.server import GrpcServer
from instance_manager.app.audit import AuditTrail
from instance_manager.core.addresses import parse_address
from instance_manager.platform.listening import AddressError
from tests.support.daemon import Daemon


async def test_only_its_owner_may_use_it(daemon: Daemon) -> None:
    mode = os.stat(daemon.url.removeprefix("unix://")).st_mode  # noqa: PTH116 - at once
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_it_is_its_owners_from_its_first_moment_on(tmp_path: Path) -> None:
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                seen.add(stat.S_IMODE((tmp_path / "s").stat().st_mode))
            except FileNotFoundError:
                continue

    before = os.umask(0)
    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(20):
            server = GrpcServer([], InterceptorChain(AuditTrail(time.time), RpcMetrics()))
            server.bind(parse_address(f"unix://{tmp_path}/s"))
            await server.start()
            await server.stop(0)
        assert os.umask(0) == 0, "the mode of other files is left as it was"
    finally:
        done.set()
        watcher.join()
        os.umask(before)
    assert seen == {0o600}


def bind(path: Path) -> None:
    GrpcServer([], InterceptorChain(AuditTrail(time.time), RpcMetrics())).bind(
        parse_address(f"unix://{path}")
    )


async def test_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    bind(tmp_path / "s")


async def test_a_socket_on_which_somebody_answers_is_not(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(tmp_path / "s"))
        alive.listen()
        with pytest.raises(AddressError, match="another process answers on it"):
            bind(tmp_path / "s")


async def test_a_socket_of_a_process_that_hangs_is_not_either(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as hung, socket.socket(socket.AF_UNIX) as waiting:
        hung.bind(path)
        hung.listen(0)
        waiting.connect(path)  # fills the queue of those that wait to be accepted
        with pytest.raises(AddressError, match="does not answer"):
            bind(tmp_path / "s")


async def test_a_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(AddressError, match="something else than a socket is there; remove it"):
        bind(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"


async def test_a_path_at_which_none_can_be_made_is_refused_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(AddressError, match=f"there is no directory {tmp_path}/no; create it"):
        bind(tmp_path / "no" / "s")
    with pytest.raises(AddressError, match="too long"):
        bind(tmp_path / ("s" * 120))
