"""``tenantry data``: rows in and out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tenantry.cli import rowfiles
from tenantry.cli.output import AsJson, Output
from tenantry.cli.project import ConfigFile, EnvFile, Models, Project, load_project
from tenantry.cli.rowfiles import Format
from tenantry.data import DataManager
from tenantry.errors import (
    ConfigurationError,
    Conflict,
    InvalidQuery,
    InvalidRecord,
    ReferenceViolation,
    TenantryError,
    UniqueViolation,
)
from tenantry.schema import Collection, KeyedModel, collection_of
from tenantry.sdk import MultiTenantSDK
from tenantry.types import Record

_PAGE = 1_000

commands = typer.Typer(no_args_is_help=True, help="Read, export and import rows of one tenant.")

Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection's name.")]
Tenant = Annotated[
    str | None, typer.Option(help="Whose rows; shared collections need none.", metavar="TENANT")
]
Where = Annotated[str, typer.Option(help='A filter as JSON, such as {"price": {"lt": 20}}.')]
Form = Annotated[
    Format | None,
    typer.Option("--format", help="By default what the file's name ends with.", case_sensitive=False),
]


@commands.command()
def read(
    collection: Name,
    tenant: Tenant = None,
    where: Where = "{}",
    fields: Annotated[str | None, typer.Option(help="Only these, with commas between.")] = None,
    order_by: Annotated[
        str | None, typer.Option(help="Fields, with commas between; -price for descending.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most to print.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Where the page before this one ended.")] = None,
    models: Models = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Print rows of one tenant, a page at a time."""
    project = load_project(env_file, config, models)
    known = _collection(project, collection)

    async def work(sdk: MultiTenantSDK) -> Any:
        async with _data(sdk, known, tenant) as data:
            return await data.read(
                known.name,
                _filter(where),
                fields=_listed(fields),
                order_by=_listed(order_by),
                limit=limit,
                cursor=cursor,
            )

    page = project.run(work)
    rows = [{name: rowfiles.plain(value) for name, value in row.items()} for row in page]
    output = Output(as_json)
    names = list(rows[0]) if rows else _listed(fields) or list(known.fields)
    output.table(names, [[_shown(row[name]) for name in names] for row in rows])
    if page.next_cursor:
        output.line("More: the same with ", ("--cursor ", "bold"), page.next_cursor)
    output.result({"rows": rows, "next_cursor": page.next_cursor})


@commands.command("export")
def export_rows(
    collection: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write.", dir_okay=False)],
    tenant: Tenant = None,
    where: Where = "{}",
    reason: Annotated[
        str | None,
        typer.Option(help="Export whatever the tenant's status is, as the system; kept in the audit log."),
    ] = None,
    form: Form = None,
    models: Models = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Write rows of one tenant to a CSV, JSON Lines or Parquet file. It appears when it is whole."""
    project = load_project(env_file, config, models)
    known, chosen = _collection(project, collection), rowfiles.format_of(file, form)

    async def work(sdk: MultiTenantSDK) -> int:
        count = 0
        with (
            _progress(f"Exporting {known.name}", as_json) as tell,
            rowfiles.writing(file, chosen, known) as write,
        ):
            async with _data(sdk, known, tenant, reason) as data:
                async for rows in _pages(data, known, _filter(where)):
                    write(rows)
                    tell(count := count + len(rows))
        return count

    count = project.run(work)
    output = Output(as_json)
    output.line(("Exported ", "bold green"), f"{count:,} rows of {known.name} to {file}")
    output.result({"rows": count, "file": str(file), "format": chosen.value})


@dataclass
class _Import:
    """What an import has done so far."""

    stored: int = 0
    refused: int = 0
    seen: int = 0
    batch: list[tuple[int, KeyedModel]] = field(default_factory=list)


@commands.command("import")
def import_rows(
    collection: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to read.", exists=True, dir_okay=False)],
    tenant: Tenant = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="Fields that name a row, with commas between: a row that has them is changed.",
            metavar="FIELDS",
        ),
    ] = None,
    refused: Annotated[
        Path | None,
        typer.Option(help="Go on past bad rows, and write here which they were and why.", metavar="FILE"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Rows in one transaction.")] = 1_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and store none.")] = False,
    form: Form = None,
    models: Models = None,
    env_file: EnvFile = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Store the rows of a CSV, JSON Lines or Parquet file.

    Each batch is stored whole or not at all. At a bad row it stops, and says which one; what was stored before stays,
    and --on id makes a second run go over it again without harm.
    """
    project = load_project(env_file, config, models)
    known, chosen = _collection(project, collection), rowfiles.format_of(file, form)
    keys = _listed(on)

    async def work(sdk: MultiTenantSDK) -> _Import:
        done = _Import()
        with ExitStack() as stack:
            tell = stack.enter_context(_progress(f"Importing {known.name}", as_json))
            notes = None if refused is None else stack.enter_context(refused.open("w", encoding="utf-8"))

            def note(number: int, error: InvalidRecord) -> None:
                if notes is None:
                    what = error.message.removeprefix(f"{error.field}: ").rstrip(".")
                    raise InvalidRecord(f"{what} (row {number} of {file.name}).", field=error.field)
                rowfiles.write_refused(notes, number, error)
                done.refused += 1

            async with _data(sdk, known, tenant) as data:
                for number, row in rowfiles.reading(file, chosen, known):
                    done.seen += 1
                    _take(known, done, number, row, note)
                    if len(done.batch) == batch:
                        await _store(data, known, done, keys, note, dry_run)
                        tell(done.seen)
                await _store(data, known, done, keys, note, dry_run)
        return done

    done = project.run(work)
    output = Output(as_json)
    output.line(
        ("Checked " if dry_run else "Imported ", "bold green"),
        f"{done.stored:,} rows of {known.name} from {file}",
    )
    if done.refused:
        output.line(("Refused ", "bold red"), f"{done.refused:,}, listed in {refused}")
    output.result({"rows": done.stored, "refused": done.refused, "dry_run": dry_run})
    if done.refused:
        raise typer.Exit(1)


Note = Callable[[int, InvalidRecord], None]


def _take(known: Collection, done: _Import, number: int, row: Record | InvalidRecord, note: Note) -> None:
    try:
        if isinstance(row, InvalidRecord):
            raise row
        done.batch.append((number, known.validate(row)))
    except InvalidRecord as error:
        note(number, error)


async def _store(
    data: DataManager, known: Collection, done: _Import, keys: list[str] | None, note: Note, dry_run: bool
) -> None:
    """Store the batch whole. If that is refused, store its rows one by one, so that only the bad ones are missing."""
    batch, done.batch = done.batch, []
    if dry_run or not batch:
        done.stored += len(batch)
        return
    try:
        await _store_all(data, known, [instance for _, instance in batch], keys)
        done.stored += len(batch)
        return
    except TenantryError as error:
        if len(batch) == 1 or not _is_about_a_row(error):
            raise
    for number, instance in batch:
        try:
            await _store_all(data, known, [instance], keys)
            done.stored += 1
        except TenantryError as error:
            if not _is_about_a_row(error):
                raise
            note(number, InvalidRecord(error.message, field=getattr(error, "field", None) or "row"))


def _is_about_a_row(error: TenantryError) -> bool:
    return isinstance(error, InvalidRecord | UniqueViolation | ReferenceViolation | Conflict)


async def _store_all(
    data: DataManager, known: Collection, rows: list[KeyedModel], keys: list[str] | None
) -> None:
    records = [
        {name: value for name, value in row.__dict__.items() if name not in rowfiles.CARRIED} for row in rows
    ]
    if keys is None:
        await data.bulk_create(known.name, records, atomic=True)
        return
    async with data.transaction() as unit:
        for record in records:
            await unit.upsert(known.name, record, on=keys)


# -- shared by the commands


def _collection(project: Project, name: str) -> Collection:
    known = {item.name: item for item in map(collection_of, project.models)}
    if name not in known:
        raise ConfigurationError(
            f"No model is known for {name!r}.",
            field="models",
            fix=f"Known: {', '.join(known)}." if known else "Name it with --models package.module:attribute.",
        )
    return known[name]


@asynccontextmanager
async def _data(
    sdk: MultiTenantSDK, known: Collection, tenant: str | None, reason: str | None = None
) -> AsyncIterator[DataManager]:
    """Give the rows of the tenant; for a shared collection those that all tenants read."""
    if known.scope == "tenant" and tenant is None:
        raise ConfigurationError(
            f"The rows of {known.name} belong to tenants.", field="tenant", fix="Add --tenant TENANT."
        )
    if tenant is None or reason is not None:
        why = reason or "tenantry data"
        async with sdk.system(reason=why, actor="command line", tenant=tenant) as system:
            yield system.data
    else:
        async with sdk.tenant(tenant) as handle:
            yield handle.data


async def _pages(data: DataManager, known: Collection, where: dict[str, Any]) -> AsyncIterator[list[Record]]:
    cursor = None
    while True:
        page = await data.read(known.name, where, limit=_PAGE, cursor=cursor)
        if page:
            yield list(page)
        if (cursor := page.next_cursor) is None:
            return


def _filter(text: str) -> dict[str, Any]:
    try:
        where = json.loads(text)
    except ValueError as error:
        raise InvalidQuery(f"not JSON: {error}.", path="where") from error
    if not isinstance(where, dict):
        raise InvalidQuery("must be a JSON object.", path="where")
    return where


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@contextmanager
def _progress(what: str, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many rows were dealt with."""
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda count: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda count: progress.update(task, completed=count)
