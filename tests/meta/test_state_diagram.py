"""The diagram of the lifecycle is drawn from the table, and a stale one is noticed."""

import importlib.machinery
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from instance_manager.core.events import Exited, Ready, Spawned
from instance_manager.core.lifecycle import TABLE
from instance_manager.core.process import State
from tests.support.patience import patience

SCRIPT = Path(__file__).parents[2] / "scripts" / "state-diagram"
DOCUMENT = "# Title\n\nbefore\n\n<!-- state-diagram -->\nstale\n<!-- /state-diagram -->\n\nafter\n"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("state_diagram", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        loader.exec_module(module)
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
    return module


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "architecture.md"
    path.write_text(DOCUMENT)
    return path


def test_the_diagram_shows_every_way_of_a_process_from_its_start_to_its_end(script: ModuleType) -> None:
    assert script.draw(TABLE) == (
        "stateDiagram-v2\n"
        "    [*] --> starting\n"
        "    starting --> error: SpawnFailed, NotReady, Exited\n"
        "    starting --> running: Ready\n"
        "    starting --> stopping: StopRequested\n"
        "    starting --> stopped: Exited\n"
        "    running --> stopping: StopRequested\n"
        "    running --> stopped: Exited\n"
        "    running --> error: Exited\n"
        "    stopping --> error: SpawnFailed\n"
        "    stopping --> stopped: TreeGone\n"
        "    stopped --> [*]: deleted\n"
        "    error --> [*]: deleted\n"
    )


def test_the_diagram_has_exactly_the_arrows_of_the_table(script: ModuleType) -> None:
    drawn = {
        (source, target, event)
        for source, target, events in re.findall(
            r"^ +(\w+) --> (\w+): (.+)$", script.draw(TABLE), re.MULTILINE
        )
        for event in events.split(", ")
    }
    assert drawn == {
        (state, target, event.__name__)
        for state, rules in TABLE.items()
        for event, rule in rules.items()
        for target in rule.targets
        if target is not state
    }


def test_another_table_makes_another_diagram(script: ModuleType) -> None:
    starting = TABLE[State.STARTING]
    table = {
        State.STARTING: {Spawned: starting[Spawned], Ready: starting[Ready]},
        State.RUNNING: {Exited: TABLE[State.RUNNING][Exited]},
        State.STOPPED: {},
    }
    assert script.draw(table) == (
        "stateDiagram-v2\n"
        "    [*] --> starting\n"
        "    starting --> running: Ready\n"
        "    running --> stopped: Exited\n"
        "    running --> error: Exited\n"
        "    stopped --> [*]: deleted\n"
    )


def test_writing_replaces_what_is_between_the_markers_and_nothing_else(
    script: ModuleType, document: Path
) -> None:
    assert script.main(["--write", str(document)]) == 0
    text = document.read_text()
    head, tail = "# Title\n\nbefore\n\n<!-- state-diagram -->\n", "<!-- /state-diagram -->\n\nafter\n"
    assert text == f"{head}\n```mermaid\n{script.draw(TABLE)}```\n\n{tail}"
    assert script.main(["--write", str(document)]) == 0
    assert document.read_text() == text


def test_a_stale_diagram_is_noticed_and_left_as_it_is(
    script: ModuleType, document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--check", str(document)]) == 1
    assert "is stale: run scripts/state-diagram --write" in capsys.readouterr().err
    assert document.read_text() == DOCUMENT
    script.main(["--write", str(document)])
    assert script.main(["--check", str(document)]) == 0
    document.write_text(document.read_text().replace("running --> error: Exited", "running --> error: Ready"))
    assert script.main(["--check", str(document)]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- state-diagram -->",
        "<!-- /state-diagram --><!-- state-diagram -->",
        DOCUMENT + DOCUMENT,
        DOCUMENT + "<!-- /state-diagram -->",
        None,
    ],
)
@pytest.mark.parametrize("option", ["--write", "--check"])
def test_a_document_without_a_place_for_the_diagram_is_an_error(
    script: ModuleType, document: Path, option: str, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is None:
        document.unlink()
    else:
        document.write_text(text)
    assert script.main([option, str(document)]) == 1
    assert str(document) in capsys.readouterr().err
    assert text is None or document.read_text() == text


def test_the_script_prints_the_diagram(script: ModuleType, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=patience(30),
    )
    assert done.stdout == script.draw(TABLE)
    assert SCRIPT.stat().st_mode & 0o111
    assert SCRIPT.read_text().startswith("#!/usr/bin/env python3\n")
