#!/usr/bin/env python3
"""Stands in for qemu: no machine, but the agent on a terminal behind the socket."""

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tty
from pathlib import Path

AGENT = Path(__file__).resolve().with_name("agent.py")


def main() -> None:
    if complaint := os.environ.get("FAKE_QEMU_COMPLAINT"):
        Path("console.log").write_text("Linux boots\n\nKernel panic\n")
        sys.exit(complaint)
    outside, inside = pty.openpty()
    tty.setraw(inside)
    with subprocess.Popen([sys.executable, AGENT, os.ttyname(inside)]) as agent:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        try:
            serve(outside)
        finally:
            agent.kill()


def serve(outside: int) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("agent.sock")
    listener.listen()
    while True:
        with listener.accept()[0] as client:
            pump(client, outside)


def pump(client: socket.socket, outside: int) -> None:
    while True:
        ready, _, _ = select.select([client.fileno(), outside], [], [])
        if outside in ready:
            client.sendall(os.read(outside, 4096))
        if client.fileno() in ready:
            data = client.recv(4096)
            if not data:
                return
            while data:
                data = data[os.write(outside, data) :]


if __name__ == "__main__":
    main()
