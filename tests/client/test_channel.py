"""The connection: where it leads, and how its loss is noticed."""

import asyncio

import pytest

from instance_manager.client import Client, address_of, channel
from tests.support.fake_daemon import fake_daemon
from tests.support.fake_events import FakeEvents
from tests.support.patience import patience


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("tcp://localhost:8500", "localhost:8500"),
        ("[::1]:8500", "[::1]:8500"),
        ("unix:///run/im.sock", "unix:/run/im.sock"),
        ("unix:im.sock", "unix:im.sock"),
    ],
)
def test_a_url_is_a_target(url: str, target: str) -> None:
    assert address_of(url).target == target


@pytest.mark.parametrize("url", ["", "localhost", "http://localhost:8500", "tcp://:8500", "unix://", "a:b"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"cannot use the URL .*: write tcp://HOST:PORT or unix://PATH"):
        address_of(url)


class Cable:
    """A way to a Unix socket that can be cut: both ends stay open and nothing passes any more."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pumps: list[asyncio.Task[None]] = []
        self._ends: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server
        self.url = ""

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = "tcp://{}:{}".format(*self._server.sockets[0].getsockname())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._path)
        self._ends += [writer, far_writer]
        self._pumps += [
            asyncio.create_task(self._pump(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        ]

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()

    def cut(self) -> None:
        for pump in self._pumps:
            pump.cancel()

    async def close(self) -> None:
        self._server.close()
        self.cut()
        for end in self._ends:
            end.close()
        await asyncio.gather(*self._pumps, return_exceptions=True)


async def test_a_peer_that_is_gone_without_a_word_is_noticed(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"grpc.keepalive_time_ms": 500, "grpc.http2.ping_timeout_ms": 500}
    options = [(name, quick.get(name, value)) for name, value in channel._OPTIONS]
    assert quick.keys() <= dict(options).keys()
    monkeypatch.setattr(channel, "_OPTIONS", options)
    events, lost = FakeEvents(), asyncio.Event()
    async with fake_daemon(f"unix:{tmp_path}/fake.sock", events.handler):
        cable = Cable(f"{tmp_path}/fake.sock")
        await cable.open()
        async with Client(cable.url) as client:
            stream = client.events(on_lost=lambda _: lost.set())
            changes = aiter(stream)
            following = asyncio.ensure_future(anext(changes))
            await events.watched.acquire()
            events.happen("r1", "running")
            await following
            cable.cut()
            following = asyncio.ensure_future(anext(changes))
            await asyncio.wait_for(lost.wait(), patience(20))
            following.cancel()
        await cable.close()
