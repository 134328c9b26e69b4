"""What the documents say is so."""

import re
from pathlib import Path

import click
import pytest

from instance_manager.cli.daemon import cli as daemon_command
from instance_manager.cli.root import root

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def links(document: Path) -> list[str]:
    """Return the files that a document links to."""
    found: list[str] = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    return [target for target in found if "://" not in target]


def files(document: Path) -> list[str]:
    """Return the files of this repository that a document names."""
    pattern = r"`((?:instance_manager|scripts|tests|protos|docs|benchmarks|\.ci)/[\w./-]*)"
    found: list[str] = re.findall(pattern, document.read_text())
    return found


def test_documents_link_to_files_and_name_some() -> None:
    assert sum(map(len, map(links, DOCUMENTS))) > 20
    assert sum(map(len, map(files, DOCUMENTS))) > 20


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for target in links(document):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_exists(document: Path) -> None:
    for name in files(document):
        assert (ROOT / name).exists(), name


def options() -> dict[str, click.Option]:
    found = [option for option in daemon_command.params if isinstance(option, click.Option)]
    return {option.opts[0]: option for option in found}


def documented() -> dict[str, str]:
    section = (ROOT / "docs" / "cli.md").read_text().partition("\n## The daemon\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(--[\w-]+)` \| (.*?) \|", section, re.MULTILINE))


def test_the_page_names_every_option_of_the_daemon_and_no_other() -> None:
    assert set(documented()) == set(options())


@pytest.mark.parametrize("name", sorted(documented()))
def test_the_page_tells_the_default_of_each_option(name: str) -> None:
    option, told = options()[name], documented()[name]
    if option.default is None:  # it is that of all commands
        option = next(each for each in root.params if isinstance(each, click.Option) and each.opts[0] == name)
    if isinstance(option.show_default, str):
        assert told == option.show_default
    elif option.is_flag:
        assert told.startswith("on" if option.default else "off")
    else:
        default = option.default
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert told == f"`{shown}`"
