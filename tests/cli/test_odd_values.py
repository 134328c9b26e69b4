"""Whatever a person or a file hands to the program ends in one clear line and an exit code."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import grpc
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import instance_manager.daemon
import instance_manager.orphans.run
from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.root import root
from instance_manager.guard.options import parse as parse_guard
from instance_manager.platform import logging, signals
from instance_manager.stub.options import parse as parse_stub
from tests.support.daemon import BIN
from tests.support.patience import patience

WORDS = """
- -- -1 0 1 1e309 nan inf -inf 0x10 1_0 ٣ ½ ² é 🦆 %s {} '"`$( / . .. ~ : :: [::] [::1]:0 [::1 host: :99999
a:b:c /dev/null /dev/full /dev/zero /proc/self/mem /no/such localhost:-1 1-2-3 2-1 0-0 1-99999999 unix: unix://
unix:///no/such tcp:// tcp://[ tcp://localhost:٣ http://x a= =b a=tcp:// 0d 1w 1h-1 99999999999999d
1Ki1 7Pi a,b ,
"""
CHARACTERS = ["", " ", "\n", "a\nb", "\t", "\r\x1b[31m", "\u202eabc", "\udcff\udc80", "tcp://\udcff:1"]
NASTY = [*WORDS.split(), *CHARACTERS, "9" * 5000, "x" * 5000, "unix://" + "/x" * 200]
DEVNULL = Path(os.devnull)
odd = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    st.text(st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF), min_size=1, max_size=3),
)
SLOW = {"watch", "follow"}
"""Options with which a command goes on until it is interrupted."""


def commands(
    command: click.Command = root, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that ends by itself, and its path."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            if name not in {"guard", "stub", "watch"}:
                yield from commands(below, (*path, name))
    else:
        yield path, command


COMMANDS = dict(commands())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon that starts no program whatever it is asked for."""
    folder = tmp_path_factory.mktemp("odd")
    empty = folder / "empty"
    empty.mkdir()
    address = f"unix://{folder}/im.sock"
    process = subprocess.Popen(
        [BIN, "daemon", "--listen", address, "--logs-dir", folder / "logs", "--state-dir", folder / "state",
         "--metrics-listen", "", "--binary-root", empty],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with grpc.insecure_channel(address, [("grpc.max_reconnect_backoff_ms", 100)]) as channel:
            grpc.channel_ready_future(channel).result(timeout=patience(60))
        yield address
    finally:
        process.terminate()
        assert process.wait(timeout=patience(60)) == 0


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services only read their settings, and everything is done in this process."""
    monkeypatch.setattr(instance_manager.daemon, "run", lambda _: 0)
    monkeypatch.setattr(instance_manager.orphans.run, "run", lambda *_: None)
    monkeypatch.setattr(logging, "configure", lambda **_: None)
    monkeypatch.setattr(signals, "hold", lambda: None)
    monkeypatch.setattr(signals, "release", lambda: None)


def run(*words: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(root, list(words), env=env)


def check(result: Result) -> None:
    """Check that a command has ended as a command may."""
    error = result.exception
    if isinstance(error, Failure):
        code, said = int(error.code), str(error)
    else:
        assert error is None or isinstance(error, SystemExit), (error, result.exc_info)
        code, said = result.exit_code, result.output.rpartition("Error: ")[2].strip()
    assert code in set(ExitCode)
    if code not in {0, 1}:
        assert said
        assert "Traceback" not in said
        assert len(said) < 12_000


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Return a command line with odd values for some of its parameters."""
    path = draw(st.sampled_from(sorted(COMMANDS)))
    words = [*path]
    for param in COMMANDS[path].params:
        if param.name in SLOW or not (param.required or draw(st.integers(0, 3)) == 0):
            continue
        if isinstance(param, click.Argument):
            words.append(draw(odd))
        elif param.is_flag:
            words.append(param.opts[-1])
        else:
            words += [param.opts[-1], draw(odd)]
    return [*words, "--timeout", "0.1"] if path[-1] == "wait" else words


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=command_lines())
def test_odd_parameters(url: str, words: list[str]) -> None:
    check(run("--url", url, *words))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=odd, option=st.sampled_from(["--url", "--tls-dir", "--tls-peer-name", "--config", "--nonsense"]))
def test_odd_global_options(value: str, option: str) -> None:
    check(run(option, value, "process", "list"))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=odd, path=st.sampled_from(sorted(COMMANDS)), data=st.data())
def test_odd_environment(url: str, value: str, path: tuple[str, ...], data: st.DataObject) -> None:
    options = [p for p in COMMANDS[path].params if isinstance(p, click.Option) and p.name not in SLOW]
    if not options:
        return
    name = data.draw(st.sampled_from([str(option.name) for option in options]))
    variable = "_".join(["INSTANCE_MANAGER", *path, name]).upper().replace("-", "_")
    check(run("--url", url, *path, env={variable: value}))


def yaml_like() -> st.SearchStrategy[bytes]:
    keys = st.sampled_from(
        ["url", "daemon", "process", "list", "output", "listen", "port-range", "tls-dir", "x", "1"]
    )
    value = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), odd),
        lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(keys, inner, max_size=3)),
        max_leaves=5,
    )
    return st.one_of(
        st.binary(max_size=60),
        value.map(lambda data: yaml.safe_dump(data).encode(errors="surrogatepass")),
        st.sampled_from(
            [b"a: &a [*a]", b"&a {url: *a}", b"? [1]\n: 2", b"- " * 3000, b"{" * 3000, b"\xef\xbb\xbfurl: x"]
        ),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=yaml_like(), words=st.sampled_from([["process", "list"], ["daemon"], ["orphans", "list"]]))
def test_odd_configuration_files(tmp_path: Path, content: bytes, words: list[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    check(run("--config", str(file), *words))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), name=st.sampled_from(["ca.crt", "tls.crt", "tls.key"]))
@example(content=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", name="tls.crt")
@example(content=b"\xef\xbb\xbf", name="ca.crt")
def test_odd_certificates(tmp_path: Path, content: bytes, name: str) -> None:
    for each in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / each).write_bytes(content if each == name else b"")
    for words in (["process", "list"], ["daemon"]):
        check(run("--tls-dir", str(tmp_path), "--url", "tcp://localhost:1", *words))


def json_like() -> st.SearchStrategy[bytes]:
    keys = st.sampled_from(
        [
            "kind",
            "items",
            "metadata",
            "name",
            "spec",
            "status",
            "nodeID",
            "currentState",
            "instanceManagerName",
        ]
    )
    value = st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(), odd, st.sampled_from(["Engine", "Replica", "List"])
        ),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
        max_leaves=12,
    )
    return st.one_of(
        st.binary(max_size=40),
        value.map(lambda data: json.dumps(data).encode()),
        st.sampled_from(
            [b"[" * 100_000, b'{"items":' * 100_000, b"\xef\xbb\xbf{}", b"1" * 10_000, b"NaN", b"\xff\xfe{}"]
        ),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=json_like())
def test_odd_owner_files(url: str, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "owners.json"
    file.write_bytes(content)
    check(
        run(
            "orphans",
            "explain",
            "r1",
            "--owners",
            str(file),
            "--target",
            f"a={url}",
            "--records",
            str(tmp_path / "r"),
        )
    )


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(
        st.one_of(st.sampled_from(["--", "--state-dir", "--restarts", "--within", "daemon", "-h"]), odd),
        max_size=5,
    )
)
def test_odd_arguments_of_the_guard(words: list[str]) -> None:
    with (
        contextlib.suppress(SystemExit),
        DEVNULL.open("w", errors="backslashreplace") as null,
        contextlib.redirect_stdout(null),
    ):
        assert parse_guard(words).command


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(
        st.one_of(
            st.sampled_from(["replica", "--listen", "--exit", "--helpers", "--ignore", "--log-rate"]), odd
        ),
        max_size=6,
    )
)
def test_odd_arguments_of_the_stub(words: list[str]) -> None:
    with (
        contextlib.suppress(SystemExit),
        DEVNULL.open("w", errors="backslashreplace") as null,
        contextlib.redirect_stderr(null),
    ):
        parse_stub(words)


@pytest.mark.parametrize("locale", ["C", "POSIX", "no_SUCH", "tr_TR.UTF-8", "de_DE.ISO-8859-1", "\udcff"])
@pytest.mark.parametrize(
    "words", [("process", "get", "grün"), ("process", "list"), ("version",)], ids=" ".join
)
def test_odd_locales(words: tuple[str, ...], locale: str) -> None:
    env = {**os.environ, "LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [BIN, "--url", "unix:///no/such", *words],
        env=env,
        capture_output=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == ExitCode.UNREACHABLE
    assert done.stderr.startswith(b"Error: cannot reach the instance manager at unix:///no/such")
    assert done.stderr.count(b"\n") == 1
