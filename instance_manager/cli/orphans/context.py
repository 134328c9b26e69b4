"""What the `orphans` commands work with: records, owners and instance managers, and errors about them."""

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instance_manager.cli.exit_codes import ExitCode, Failure
from instance_manager.cli.root import Globals
from instance_manager.cli.tls import TlsChoice, client_certificates
from instance_manager.cli.units import age
from instance_manager.platform import contract

if TYPE_CHECKING:
    from instance_manager.client import Client
    from instance_manager.orphans.interfaces import InstanceManager, Owners
    from instance_manager.orphans.model import Orphan
    from instance_manager.orphans.records import AgentInfo, SqliteRecords

PREFIX = "orphan-"
SHORT = len(PREFIX) + 12
"""Characters of a record's name in a table; any beginning that only one record has is understood."""

DEFAULT_RECORDS = Path(contract.STATE_DIR, "orphans.db")
_FROM_AGENT = "  [default: those of the agent that keeps these records]"

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Target:
    """An instance manager to ask."""

    name: str
    """The name that its owners use for it, `status.instanceManagerName`."""
    url: str


class TargetType(click.ParamType[Target]):
    """NAME=URL."""

    name = "target"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Target:
        """Read NAME=URL."""
        if isinstance(value, Target):
            return value
        name, equals, url = str(value).partition("=")
        if not (name and equals and url):
            self.fail(
                f"cannot use {value!r}: write NAME=URL, where NAME is what status.instanceManagerName "
                "of its owners says",
                param,
                ctx,
            )
        return Target(name, url)


records_option = click.option(
    "--records",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_RECORDS,
    show_default=True,
    envvar="INSTANCE_MANAGER_ORPHANS_RECORDS",
    help="File with the records of orphans.",
)


def target_option(*, required: bool) -> Callable[[Command], Command]:
    """Give a command the instance managers to ask; it takes them as `targets`."""
    return click.option(
        "--target",
        "targets",
        type=TargetType(),
        multiple=True,
        required=required,
        metavar="NAME=URL",
        envvar="INSTANCE_MANAGER_ORPHANS_TARGET",
        help="An instance manager: its name as in status.instanceManagerName of its owners, and "
        "tcp://HOST:PORT or unix://PATH; may be given several times." + ("" if required else _FROM_AGENT),
    )


def owners_option(*, required: bool) -> Callable[[Command], Command]:
    """Give a command the files of the owners; it takes the path as `owners`."""
    return click.option(
        "--owners",
        type=click.Path(path_type=Path),
        required=required,
        envvar="INSTANCE_MANAGER_ORPHANS_OWNERS",
        help="The owners: a file with the output of `kubectl get engines,replicas -o json`, or a directory "
        "of such files." + ("" if required else _FROM_AGENT),
    )


def check_targets(targets: Sequence[Target]) -> None:
    """Refuse targets that are ambiguous or cannot be reached.

    Raises:
        click.UsageError: if a URL is malformed, or a name or URL is given twice.
    """
    from instance_manager.client import address_of

    for target in targets:
        try:
            address_of(target.url)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    for given in ([target.name for target in targets], [target.url for target in targets]):
        twice = sorted({each for each in given if given.count(each) > 1})
        if twice:
            raise click.UsageError(f"cannot look at {twice[0]} twice: give each --target once")


def client_of(url: str, tls: TlsChoice) -> "Client":
    """Return a client of an instance manager, with the certificates of the global options.

    Raises:
        CannotReadError: if the certificates cannot be used.
    """
    from instance_manager.client import Client, address_of
    from instance_manager.orphans.interfaces import CannotReadError

    try:
        return Client(url, client_certificates(tls, address_of(url)), peer_name=tls.peer_name)
    except Failure as failure:
        raise CannotReadError(str(failure)) from failure


class OrphanContext(contextlib.AsyncExitStack):
    """What an `orphans` command works with; each part is opened when the command asks for it."""

    def __init__(self, records: Path, owners: Path | None, targets: Sequence[Target]) -> None:
        super().__init__()
        self._path = records
        self._owners = owners
        self._targets = targets
        self._records: SqliteRecords | None = None

    def records(self) -> "SqliteRecords":
        """Return the records.

        Raises:
            CannotReadError: if the file does not exist or cannot be used.
        """
        from instance_manager.orphans.records import SqliteRecords

        if self._records is None:
            self._records = SqliteRecords(self._path)
            self.callback(self._records.close)
            self._records.open()
        return self._records

    async def owners(self) -> "Owners":
        """Return the owners given on the command line, else those of the agent.

        Raises:
            click.UsageError: if neither are known.
            Failure: if the records cannot be read.
        """
        from instance_manager.orphans.owners import FileOwners

        if self._owners is not None:
            return FileOwners(self._owners)
        agent_info = await self._agent_info("--owners FILE")
        return FileOwners(Path(agent_info.owners))

    async def targets(self) -> Mapping[str, Target]:
        """Return the instance managers given on the command line, else those of the agent, by name.

        Raises:
            click.UsageError: if neither are known.
            Failure: if the records cannot be read.
        """
        targets: Sequence[Target] = self._targets
        if not targets:
            agent_info = await self._agent_info("--target NAME=URL")
            targets = [Target(name, url) for name, url in agent_info.targets.items()]
        check_targets(targets)
        return {target.name: target for target in targets}

    def connect(self, target: Target) -> "InstanceManager":
        """Return a client of an instance manager; it connects with the first call."""
        from instance_manager.orphans.instance_managers import GrpcInstanceManager

        options: Globals = click.get_current_context().obj
        manager = GrpcInstanceManager(target.name, lambda: client_of(target.url, options.tls))
        self.push_async_callback(manager.close)
        return manager

    async def without_agent(self) -> str:
        """Return that no agent keeps the records up to date, and since when; empty if one does."""
        from instance_manager.orphans.interfaces import CannotReadError

        try:
            if self.records().has_agent():
                return ""
            checked = await self.records().last_check()
        except CannotReadError as error:
            return str(error)
        when = "never" if checked is None else f"{age(time.time() - checked)} ago"
        return (
            "no agent runs on these records, so they are not up to date: the last check of everything was "
            f"{when}; start one with `orphans run`"
        )

    async def _agent_info(self, option: str) -> "AgentInfo":
        from instance_manager.orphans.interfaces import CannotReadError

        try:
            agent_info = await self.records().agent_info()
        except CannotReadError as error:
            raise Failure(f"{error}; or give {option}", ExitCode.FAILURE) from error
        if agent_info is None:
            raise click.UsageError(f"no agent has used the records: give {option}")
        return agent_info


def with_context(command: Callable[..., Coroutine[Any, Any, None]]) -> Command:
    """Turn a coroutine function into a command; a CannotReadError becomes an exit code."""

    @functools.wraps(command)
    def run(*args: Any, records: Path, **kwargs: Any) -> None:
        options: Globals = click.get_current_context().obj
        if not options.debug:
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        owners, targets = kwargs.pop("owners", None), kwargs.pop("targets", ())

        async def work() -> None:
            async with OrphanContext(records, owners, targets) as context:
                await command(context, *args, **kwargs)

        from instance_manager.orphans.interfaces import CannotReadError

        try:
            asyncio.run(work())
        except CannotReadError as error:
            raise Failure(str(error), ExitCode.FAILURE) from error

    return run


async def find_record(context: OrphanContext, given: str) -> "Orphan":
    """Return the open record with this name, or the only one whose name begins with it.

    Raises:
        Failure: if there is none, or more than one; a record that has been closed is named with its outcome.
    """
    records = context.records()
    if (record := await records.get(given)) is not None:
        return record
    found = [record for record in await records.list() if _abbreviates(given, record.name)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(record.name[: max(SHORT, len(given) + 4)] for record in found)
        raise Failure(
            f"cannot use {given}: more than one orphan has a name that begins with it: {names}",
            ExitCode.USAGE,
        )
    ended = [record for record in await records.history() if _abbreviates(given, record.name)]
    if ended:
        why = f"its record is closed: {ended[-1].outcome}"
    elif given.startswith(PREFIX):
        why = "`orphans list` shows those there are"
    else:
        why = f"an orphan's name begins with {PREFIX}; `orphans list` shows those there are"
    raise Failure(f"cannot find the orphan {given}: {why}", ExitCode.NOT_FOUND)


def _abbreviates(given: str, name: str) -> bool:
    return len(given) > len(PREFIX) and name.startswith(given)
