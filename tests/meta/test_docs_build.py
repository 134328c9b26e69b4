"""The documentation is built, and a link that leads nowhere fails the build."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPHINX = Path(sys.executable).parent / "sphinx-build"


def build(docs: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [str(SPHINX), "-q", "-W", "--keep-going", str(docs), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", docs)
    for linked in ("protos", "deploy"):
        (tmp_path / linked).symlink_to(ROOT / linked)
    good = build(docs, tmp_path / "good")
    assert good.returncode == 0, good.stderr
    assert (tmp_path / "good" / "operations.html").exists()
    page = docs / "operations.md"
    page.write_text(f"{page.read_text()}\nSee [there](nowhere.md) and [here](security.md#no-such-heading).\n")
    bad = build(docs, tmp_path / "bad")
    assert bad.returncode == 1
    assert "nowhere" in bad.stderr
    assert "no-such-heading" in bad.stderr
