"""`instance-manager orphans`: instances that nothing owns."""

from typing import TYPE_CHECKING

import click

from instance_manager.cli import render
from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.orphans.context import (
    OrphanContext,
    find_record,
    owners_option,
    records_option,
    target_option,
    with_context,
)
from instance_manager.cli.orphans.run import run
from instance_manager.cli.parameters import AliasGroup, examples

if TYPE_CHECKING:
    from instance_manager.cli.orphans.views import WithoutIdentity
    from instance_manager.orphans.manual import Deletion, Explanation
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
@with_context
async def list_(context: OrphanContext, everything: bool, history: bool, output: str | None) -> None:
    """Show the orphans that the agent has found; `ls` for short.

    A table abbreviates names, and every command understands that; -o wide shows them in full. What keeps the
    agent from finding orphans is reported on stderr.
    """
    from instance_manager.cli.orphans.views import show_all, show_records

    if everything and history:
        raise click.UsageError("cannot show --all and --history at once: --all lists the instances of now")
    records = context.records()
    if not history:
        for what, why in (await records.conditions()).items():
            click.echo(render.printable(f"The agent reports: {what}: {why}"), err=True)
        await _warn(context)
    if history:
        show_records(await records.history(), output, ended=True)
    elif everything:
        others, errors = await _without_identity(context)
        show_all(await records.list(), others, output)
        if errors:
            raise Failure("; ".join(errors), ExitCode.UNREACHABLE)
    else:
        show_records(await records.list(), output, ended=False)


async def _warn(context: OrphanContext) -> str:
    """Tell on stderr if no agent keeps the records up to date; returns that too."""
    if warning := await context.without_agent():
        click.echo(render.printable(f"Warning: {warning}"), err=True)
    return warning


async def _without_identity(context: OrphanContext) -> "tuple[list[WithoutIdentity], list[str]]":
    """Return the instances without a UUID, and why some instance managers could not be asked."""
    from instance_manager.cli.orphans.views import WithoutIdentity
    from instance_manager.orphans.interfaces import CannotReadError

    found, errors = [], []
    for target in (await context.targets()).values():
        manager = context.connect(target)
        try:
            instances = await manager.list_live()
        except CannotReadError as error:
            errors.append(str(error))
            continue
        found += [WithoutIdentity(each, target.name, target.url) for each in instances if not each.uuid]
    return sorted(found, key=lambda each: (each.manager, each.instance.name)), errors


@cli.command(epilog=examples("orphans get orphan-3f9a1b2c4d5e", "orphans get orphan-3f9a -o json"))
@click.argument("orphan")
@records_option
@render.output_option
@with_context
async def get(context: OrphanContext, orphan: str, output: str | None) -> None:
    """Show the record of one orphan; its name may be abbreviated."""
    from instance_manager.cli.orphans.views import show_record

    show_record(await find_record(context, orphan), output)
    await _warn(context)


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
@with_context
async def explain(context: OrphanContext, instance: str, output: str) -> None:
    """Show whether an instance is an orphan, and the reads that prove it.

    All reads are made now, in the agent's order: the instance, its owner, and the instance again. They end as
    soon as the verdict is clear.
    """
    from instance_manager.cli.orphans.views import explanation_as_dict, record_in_words, show_explanation
    from instance_manager.orphans import manual
    from instance_manager.orphans.model import Unreadable, Verdict

    owners = await context.owners()
    explanations: list[Explanation] = []
    for target in (await context.targets()).values():
        explanations += await manual.explain(instance, context.connect(target), owners)
    records = {explanation.manager: await _record_of(context, explanation) for explanation in explanations}
    if output == "text":
        for explanation in explanations:
            show_explanation(instance, explanation)
            click.echo(f"  record: {render.printable(record_in_words(records[explanation.manager]))}")
    else:
        shown = [explanation_as_dict(instance, each, records[each.manager]) for each in explanations]
        render.show_data({"findings": shown}, output)
    if not explanations:
        raise Failure(f"cannot find an instance named {instance!r}", ExitCode.NOT_FOUND)
    unknown = [each for each in explanations if each.judgement.verdict is Verdict.UNKNOWN]
    if unknown:
        away = any(isinstance(each.conclusion.instance, Unreadable) for each in unknown)
        reasons = "; ".join(each.judgement.reason for each in unknown)
        raise Failure(
            f"cannot judge {instance}: {reasons}", ExitCode.UNREACHABLE if away else ExitCode.FAILURE
        )


async def _record_of(context: OrphanContext, explanation: "Explanation") -> "Orphan | None":
    from instance_manager.orphans.interfaces import CannotReadError
    from instance_manager.orphans.model import ObservedInstance, record_name

    instance = explanation.conclusion.instance
    if not isinstance(instance, ObservedInstance):
        return None
    try:
        return await context.records().get(record_name(instance, explanation.manager))
    except CannotReadError:
        return None


@cli.command(epilog=examples("orphans delete orphan-3f9a1b2c4d5e", "orphans delete orphan-3f9a --dry-run"))
@click.argument("orphan")
@records_option
@owners_option(required=False)
@target_option(required=False)
@click.option("--dry-run", is_flag=True, help="Only show what would be done, and why.")
@render.output_option
@with_context
async def delete(context: OrphanContext, orphan: str, dry_run: bool, output: str | None) -> None:
    """Delete the instance of an orphan.

    The instance and its owner are read again first, and the UUID is sent along, so nothing else that has the
    name by now is hit. If the instance cannot be deleted now, the request is saved and the agent will retry.
    The record is closed when the instance is gone.
    """
    import time

    from instance_manager.cli.orphans.views import show_explanation, show_record
    from instance_manager.orphans import manual
    from instance_manager.orphans.model import Resolution

    record = await find_record(context, orphan)
    owners = await context.owners()
    target = (await context.targets()).get(record.manager)
    if target is None:
        raise click.UsageError(
            f"cannot reach {record.manager}, where the orphan is: give --target {record.manager}=URL"
        )
    manager = context.connect(target)
    if dry_run:
        explanation = await manual.verify_record(record, manager, owners)
        show_explanation(record.instance.name, explanation)
        would = "would be deleted" if explanation.judgement.is_orphan else "would not be deleted"
        click.echo(render.printable(f"  {would}: {record.instance.name}, UUID {record.instance.uuid}"))
        return
    done = await manual.delete(
        record, _person(), manager=manager, owners=owners, records=context.records(), now=time.time
    )
    if done is None:
        raise Failure(f"cannot find the orphan {orphan}: its record has just been closed", ExitCode.NOT_FOUND)
    _refuse(done, await context.without_agent())
    show_record(done.record, output)
    if done.record.resolution is Resolution.OPEN:
        await _warn(context)  # who closes the record?


def _person() -> str:
    """Return who asks for the deletion; in a container a user may have no name."""
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _refuse(done: "Deletion", without_agent: str) -> None:
    """Say why nothing was deleted, if so, and who will try again.

    Raises:
        Failure: if nothing was deleted.
    """
    from instance_manager.orphans.model import Resolution, Unreadable, Verdict

    if done.accepted:
        return
    name = done.record.instance.name
    if done.record.resolution is not Resolution.OPEN:
        raise Failure(
            f"cannot delete {name}: {done.record.outcome}; the record is closed", ExitCode.IMPOSSIBLE
        )
    if isinstance(done.explanation.conclusion.instance, Unreadable) or done.explanation.judgement.is_orphan:
        code = ExitCode.UNREACHABLE
    elif done.explanation.judgement.verdict is Verdict.UNKNOWN:
        code = ExitCode.FAILURE
    else:
        code = ExitCode.IMPOSSIBLE
    raise Failure(
        f"cannot delete {name} now: {done.record.last_error}; the request is saved; "
        + (f"nobody retries: {without_agent}" if without_agent else "the agent will retry"),
        code,
    )
