"""`instance-manager orphans`: instances that nothing owns."""

from typing import TYPE_CHECKING

import click

from instance_manager.cli import render
from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.orphans.context import (
    Desk,
    find_record,
    owners_option,
    records_option,
    target_option,
    with_desk,
)
from instance_manager.cli.orphans.run import run
from instance_manager.cli.parameters import AliasGroup, examples

if TYPE_CHECKING:
    from instance_manager.cli.orphans.views import WithoutIdentity
    from instance_manager.orphans.manual import Deletion, Finding
    from instance_manager.orphans.model import Orphan

EXIT_CODES = """
\b
Exit codes:
  0    done
  1    records or owners cannot be read, or any other failure
  2    wrong usage
  3    there is no such orphan or instance
  5    an instance manager did not answer
  8    not deleted: it is no longer an orphan, or that cannot be decided now
"""


@click.group(
    cls=AliasGroup,
    epilog=examples(
        "orphans run --target node-1=tcp://localhost:8500 --owners /etc/owners/owners.json",
        "orphans list",
        "orphans explain r1",
        "orphans delete orphan-3f9a1b2c4d5e",
        before=EXIT_CODES,
    ),
)
def cli() -> None:
    """Find, explain and delete instances that nothing owns."""


cli.add_command(run)


@cli.command("list", epilog=examples("orphans list", "orphans ls --all -o wide", "orphans list --history"))
@records_option
@target_option(required=False)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also show instances without a UUID (from instance managers before 1.9), which are never judged.",
)
@click.option("--history", is_flag=True, help="Show closed records, and why each was closed.")
@render.output_option
@with_desk
async def list_(desk: Desk, everything: bool, history: bool, output: str | None) -> None:
    """Show the orphans that the agent has found; `ls` for short.

    A table abbreviates names, and every command understands that; -o wide shows them in full. What keeps the
    agent from finding orphans is told on stderr.
    """
    from instance_manager.cli.orphans.views import show_all, show_records

    if everything and history:
        raise click.UsageError("cannot show --all and --history at once: --all lists the instances of now")
    records = desk.records()
    if not history:
        for what, why in (await records.troubles()).items():
            click.echo(render.printable(f"The agent has trouble: {what}: {why}"), err=True)
    if history:
        show_records(await records.history(), output, ended=True)
    elif everything:
        others, troubles = await _without_identity(desk)
        show_all(await records.list(), others, output)
        if troubles:
            raise Failure("; ".join(troubles), ExitCode.UNREACHABLE)
    else:
        show_records(await records.list(), output, ended=False)


async def _without_identity(desk: Desk) -> "tuple[list[WithoutIdentity], list[str]]":
    """Return the instances without a UUID, and why some instance managers could not be asked."""
    from instance_manager.cli.orphans.views import WithoutIdentity
    from instance_manager.orphans.interfaces import CannotReadError

    found, troubles = [], []
    for target in (await desk.targets()).values():
        source = desk.connect(target)
        try:
            instances = await source.list_live()
        except CannotReadError as error:
            troubles.append(str(error))
            continue
        found += [WithoutIdentity(each, target.name, target.url) for each in instances if not each.uuid]
    return sorted(found, key=lambda each: (each.manager, each.instance.name)), troubles


@cli.command(epilog=examples("orphans get orphan-3f9a1b2c4d5e", "orphans get orphan-3f9a -o json"))
@click.argument("orphan")
@records_option
@render.output_option
@with_desk
async def get(desk: Desk, orphan: str, output: str | None) -> None:
    """Show the record of one orphan; its name may be abbreviated."""
    from instance_manager.cli.orphans.views import show_record

    show_record(await find_record(desk, orphan), output)


@cli.command(epilog=examples("orphans explain r1", "orphans explain r1 -o json"))
@click.argument("instance")
@records_option
@owners_option(required=False)
@target_option(required=False)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    show_default=True,
    help="How to show it.",
)
@with_desk
async def explain(desk: Desk, instance: str, output: str) -> None:
    """Show whether an instance is an orphan, and the reads that prove it.

    All reads are made now, in the agent's order: the instance, its owner, and the instance again. They end as
    soon as the verdict is clear.
    """
    from instance_manager.cli.orphans.views import finding_as_dict, record_in_words, show_finding
    from instance_manager.orphans import manual as by_hand
    from instance_manager.orphans.model import Unreadable, Verdict

    owners = await desk.owners()
    findings: list[Finding] = []
    for target in (await desk.targets()).values():
        findings += await by_hand.explain(instance, desk.connect(target), owners)
    records = {finding.manager: await _record_of(desk, finding) for finding in findings}
    if output == "text":
        for finding in findings:
            show_finding(instance, finding)
            click.echo(f"  record: {render.printable(record_in_words(records[finding.manager]))}")
    else:
        shown = [finding_as_dict(instance, each, records[each.manager]) for each in findings]
        render.show_data({"findings": shown}, output)
    if not findings:
        raise Failure(f"cannot find an instance named {instance!r}", ExitCode.NOT_FOUND)
    unknown = [each for each in findings if each.judgement.verdict is Verdict.UNKNOWN]
    if unknown:
        away = any(isinstance(each.conclusion.instance, Unreadable) for each in unknown)
        reasons = "; ".join(each.judgement.reason for each in unknown)
        raise Failure(
            f"cannot judge {instance}: {reasons}", ExitCode.UNREACHABLE if away else ExitCode.FAILURE
        )


async def _record_of(desk: Desk, finding: "Finding") -> "Orphan | None":
    from instance_manager.orphans.interfaces import CannotReadError
    from instance_manager.orphans.model import ObservedInstance, record_name

    instance = finding.conclusion.instance
    if not isinstance(instance, ObservedInstance):
        return None
    try:
        return await desk.records().get(record_name(instance, finding.manager))
    except CannotReadError:
        return None


@cli.command(epilog=examples("orphans delete orphan-3f9a1b2c4d5e", "orphans delete orphan-3f9a --dry-run"))
@click.argument("orphan")
@records_option
@owners_option(required=False)
@target_option(required=False)
@click.option("--dry-run", is_flag=True, help="Only show what would be done, and why.")
@render.output_option
@with_desk
async def delete(desk: Desk, orphan: str, dry_run: bool, output: str | None) -> None:
    """Delete the instance of an orphan.

    The instance and its owner are read again first, and the UUID is sent along, so nothing else that has the
    name by now is hit. If the instance cannot be deleted now, the request is kept and the agent tries again.
    The record is closed when the instance is gone.
    """
    import time

    from instance_manager.cli.orphans.views import show_finding, show_record
    from instance_manager.orphans import manual as by_hand

    record = await find_record(desk, orphan)
    owners = await desk.owners()
    target = (await desk.targets()).get(record.manager)
    if target is None:
        raise click.UsageError(
            f"cannot reach {record.manager}, where the orphan is: give --target {record.manager}=URL"
        )
    source = desk.connect(target)
    if dry_run:
        finding = await by_hand.look_again(record, source, owners)
        show_finding(record.instance.name, finding)
        would = "would be deleted" if finding.judgement.is_orphan else "would not be deleted"
        click.echo(render.printable(f"  {would}: {record.instance.name}, UUID {record.instance.uuid}"))
        return
    done = await by_hand.delete(
        record, _person(), source=source, owners=owners, records=desk.records(), now=time.time
    )
    if done is None:
        raise Failure(f"cannot find the orphan {orphan}: its record has just ended", ExitCode.NOT_FOUND)
    _refuse(done)
    show_record(done.record, output)


def _person() -> str:
    """Return who asks for the deletion; in a container a user may have no name."""
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _refuse(done: "Deletion") -> None:
    """Say why nothing was deleted, if so.

    Raises:
        Failure: if nothing was deleted.
    """
    from instance_manager.orphans.model import Resolution, Unreadable, Verdict

    if done.taken:
        return
    name = done.record.instance.name
    if done.record.fate is not Resolution.OPEN:
        raise Failure(
            f"cannot delete {name}: {done.record.outcome}; the record has ended", ExitCode.IMPOSSIBLE
        )
    if isinstance(done.finding.conclusion.instance, Unreadable) or done.finding.judgement.is_orphan:
        code = ExitCode.UNREACHABLE
    elif done.finding.judgement.verdict is Verdict.UNKNOWN:
        code = ExitCode.FAILURE
    else:
        code = ExitCode.IMPOSSIBLE
    raise Failure(
        f"cannot delete {name} now: {done.record.trouble}; the wish is kept, and the agent tries again", code
    )
