"""What the documents say is so."""

import re
from pathlib import Path

import click
import pytest

from instance_manager.cli.daemon import cli as daemon_command
from instance_manager.cli.root import root

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_exists(document: Path) -> None:
    named = re.findall(
        r"`((?:instance_manager|scripts|tests|protos|docs|benchmarks|\.ci)/[\w./-]*)", document.read_text()
    )
    for name in named:
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
