"""Prometheus' own tool has nothing against the metrics and the alerts, and each alert can fire."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.support.daemon import Daemon, Watch, sleeper
from tests.support.patience import patience

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
FIRING = Path(__file__).with_name("alerts.yaml")


async def promtool(*arguments: str, given: str = "") -> tuple[int, str]:
    """Run promtool and return its exit status and all it says."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("needs promtool, of Debian's package prometheus: .ci/promtool DIRECTORY fetches it alone")
    process = await asyncio.create_subprocess_exec(
        *(found, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(patience(30)):
        out, _ = await process.communicate(given.encode())
    return process.returncode or 0, out.decode()


async def test_promtool_has_nothing_against_the_metrics(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("vol-e-0"))
        await watch.state("vol-e-0", "running")
        status, metrics = await daemon.http("/metrics")
        assert status == 200
        assert await promtool("check", "metrics", given=metrics) == (0, "")


async def test_promtool_finds_a_metric_without_help() -> None:
    status, told = await promtool("check", "metrics", given="# TYPE a_total counter\na_total 1\n")
    assert (status, "no help text" in told) == (3, True)


async def test_promtool_has_nothing_against_the_alerts() -> None:
    status, told = await promtool("check", "rules", str(ALERTS))
    assert status == 0, told


async def test_each_alert_fires_when_it_should_and_none_when_all_is_well(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(FIRING, tmp_path / "test.yaml")
    status, told = await promtool("test", "rules", str(tmp_path / "test.yaml"))
    assert status == 0, told


def test_alerts_are_about_metrics_that_there_are_and_each_is_tested() -> None:
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    documented = (ROOT / "docs" / "metrics.md").read_text()
    assert len(re.findall(r"instance_manager_\w+", " ".join(rule["expr"] for rule in rules))) >= 5
    for rule in rules:
        for metric in re.findall(r"instance_manager_\w+", rule["expr"]):
            assert f"| `{metric}` |" in documented
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"]
        assert f'alertname="{rule["alert"]}"' in FIRING.read_text()
