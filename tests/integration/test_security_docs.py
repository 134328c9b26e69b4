"""docs/security.md: its commands make certificates that work."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from instance_manager.client import Client
from instance_manager.core.certificates import CertificateSet
from tests.support.cli import run
from tests.support.daemon import running_daemon
from tests.support.patience import patience

DOCS = Path(__file__).parents[2] / "docs" / "security.md"


async def test_its_commands_make_certificates_with_which_both_sides_talk(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    (script,) = re.findall(r"^```sh\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    shell = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-e", "-c", script), cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(patience(40)):
        _, err = await shell.communicate()
    assert shell.returncode == 0, err

    tls = tmp_path / "tls"
    assert (tls / "tls.key").stat().st_mode & 0o077 == 0
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--tls-dir", str(tls)) as daemon:
        result = await run("--url", daemon.url, "--tls-dir", str(tls), "process", "list", "-o", "json")
        assert (result.code, result.json) == (0, {})
        read = [(tls / name).read_bytes() for name in ("ca.crt", "tls.crt", "tls.key")]
        async with Client(daemon.url, CertificateSet(*read)) as client:
            assert await client.health() == "SERVING"
