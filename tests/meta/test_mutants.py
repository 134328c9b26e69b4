"""The list of mutants is about the code as it is; scripts/mutants runs them, which takes some minutes."""

import ast
import json
import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import patience

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"name", "file", "old", "new", "tests", "equivalent"}
MUTANTS: list[dict[str, Any]] = [
    mutant
    for path in sorted((ROOT / "tests" / "mutants").glob("*.toml"))
    for mutant in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
]


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert len(MUTANTS) > 100
    assert [name for name, count in Counter(each["name"] for each in MUTANTS).items() if count > 1] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["name"])
def test_a_mutant_changes_one_place_and_names_tests_that_there_are(mutant: dict[str, Any]) -> None:
    assert set(mutant) <= FIELDS
    source = (ROOT / "instance_manager" / mutant["file"]).read_text(encoding="utf-8")
    assert source.count(mutant["old"]) == 1
    changed = source.replace(mutant["old"], mutant["new"])
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    assert mutant["tests"] or mutant["equivalent"]
    for test in mutant["tests"]:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists()
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_the_list_is_told_to_programs() -> None:
    command = [str(ROOT / "scripts" / "mutants"), "--list", "--only", "core/ports.py"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=patience(60)).stdout)
    assert [each["name"] for each in listed] == [
        each["name"] for each in MUTANTS if each["file"] == "core/ports.py"
    ]


@pytest.mark.skipif(shutil.which("git") is None, reason="scripts/mutants asks git for the files")
@pytest.mark.timeout(180)
def test_a_mutant_is_run_in_a_copy_and_the_outcome_told() -> None:
    name = "port 0 of a target is moved"
    source = (ROOT / "instance_manager" / "core" / "addresses.py").read_bytes()
    command = [str(ROOT / "scripts" / "mutants"), "--no-baseline", "--jobs", "1", "--only", name]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=patience(150)).stdout)
    assert told["summary"] == {"mutants": 1, "killed": 1}
    assert [(each["name"], each["outcome"]) for each in told["results"]] == [(name, "killed")]
    assert (ROOT / "instance_manager" / "core" / "addresses.py").read_bytes() == source
