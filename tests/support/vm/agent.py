"""The program inside the machine that does what it is asked to: `agent.py PORT`.

It needs only the standard library. PORT is a character device. A request is a line of JSON
with an `id`, which each line of the answer repeats:

- `{"run": COMMAND, "seconds": LIMIT}`: a shell runs it. `{"output": TEXT}` as it comes, then
  `{"status": NUMBER}`: 124 if it was killed at the limit, 128 plus its number if another signal has ended it.
- `{"put": PATH, "size": BYTES}`, and so many bytes after the line: they become an executable file. The answer
  is `{"status": 0}`.

What cannot be done is answered with `{"error": TEXT}`.
"""

import codecs
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_LOOK = 0.1
"""Seconds between two looks at what a command has written, and at whether somebody is there to ask."""
_CHUNK = 1 << 16

Part = dict[str, str | int]


def run(command: str, seconds: float) -> Iterator[Part]:
    """Run a command in a session of its own, which is killed at the limit.

    Its output goes to a file, not through a pipe: what it leaves running must not hold up the answer.
    """
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        limit = time.monotonic() + seconds
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        status: int | None = None
        told = 0
        while status is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = child.wait(_LOOK)
            if status is None and time.monotonic() > limit:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                status = 124
            while data := os.pread(output.fileno(), _CHUNK, told):
                told += len(data)
                yield {"output": decoder.decode(data)}
        yield {"status": status if status >= 0 else 128 - status}


def put(path: Path, data: bytes) -> Iterator[Part]:
    """Write an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755)
    yield {"status": 0}


def answer(request: dict[str, Any], port: BinaryIO) -> Iterator[Part]:
    """Do what is asked; what cannot be done is an answer, too."""
    try:
        if "put" in request:
            yield from put(Path(request["put"]), port.read(request["size"]))
        else:
            yield from run(request["run"], request["seconds"])
    except OSError as error:
        yield {"error": str(error)}


def serve(port: BinaryIO) -> None:
    """Answer one request after the other. While nobody is connected outside, the port is at its end."""
    while True:
        line = port.readline()
        if not line.endswith(b"\n"):
            time.sleep(_LOOK)
            continue
        request = json.loads(line)
        for part in answer(request, port):
            data = json.dumps({"id": request["id"]} | part).encode() + b"\n"
            while data:
                data = data[os.write(port.fileno(), data) :]


if __name__ == "__main__":
    serve(os.fdopen(os.open(sys.argv[1], os.O_RDWR), "rb", _CHUNK))
