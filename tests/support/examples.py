"""The examples of a document: commands, and what they print."""

import re
from dataclasses import dataclass
from pathlib import Path

CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    command: str
    shown: str
    """What it prints; `...` stands for anything."""

    def matches(self, output: str) -> bool:
        pattern = ".*".join(map(re.escape, self.shown.split("...")))
        return re.fullmatch(pattern, output, re.DOTALL) is not None


def examples(text: str) -> list[Example]:
    """Return each `$ COMMAND` of the console blocks with the lines that follow it."""
    found = []
    for block in CONSOLE.findall(text):
        assert block.startswith("$ "), block
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            found.append(Example(command, shown))
    return found


def examples_in(document: str) -> list[Example]:
    """Return the examples of a file in docs."""
    return examples((Path(__file__).parents[2] / "docs" / document).read_text())
