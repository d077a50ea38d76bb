"""``tenantry scan``: whether one tenant of a running application can reach another's data, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tenantry.cli.credentials import credentials_of, from_file
from tenantry.cli.output import AsJson, Output

if TYPE_CHECKING:
    from tenantry.scan import Plan, Report

LEAKS, INCOMPLETE = 1, 2
_STYLES = {"critical": "bold red", "high": "red", "medium": "yellow"}
_TENANTS, _HOW, _WHAT, _BOUNDS = "The two tenants", "What is replayed", "What is tried", "Bounds"
_IN_PROCESS = "http://application.test"


class Format(StrEnum):
    """How a report is written."""

    text = "text"
    markdown = "markdown"


def _option(text: str, *names: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


def scan(
    target: Annotated[
        str,
        typer.Argument(
            help="The application: a URL such as https://staging.example.com, or an ASGI application as "
            "module:attribute, which then runs in this process.",
            metavar="TARGET",
        ),
    ],
    har: Annotated[
        list[Path] | None,
        _option("Requests recorded as A: a HAR file. May be repeated.", "--har", panel=_HOW, metavar="FILE"),
    ] = None,
    har_b: Annotated[
        list[Path] | None,
        _option("The same, recorded as B; not needed.", "--har-b", panel=_HOW, metavar="FILE"),
    ] = None,
    openapi: Annotated[
        Path | None, _option("An OpenAPI 3 document, JSON or YAML.", "--openapi", panel=_HOW, metavar="FILE")
    ] = None,
    credentials: Annotated[
        Path | None,
        _option(
            "Credentials in TOML; ${NAME} in it is a variable of the environment.",
            "--credentials",
            panel=_TENANTS,
            metavar="FILE",
        ),
    ] = None,
    token_a: Annotated[
        str | None,
        _option(
            "A's bearer token.", "--token-a", panel=_TENANTS, envvar="TENANTRY_SCAN_TOKEN_A", metavar="TOKEN"
        ),
    ] = None,
    token_b: Annotated[
        str | None,
        _option(
            "B's bearer token.", "--token-b", panel=_TENANTS, envvar="TENANTRY_SCAN_TOKEN_B", metavar="TOKEN"
        ),
    ] = None,
    header_a: Annotated[
        list[str] | None,
        _option(
            "A header that A sends. May be repeated.", "--header-a", panel=_TENANTS, metavar="'NAME: VALUE'"
        ),
    ] = None,
    header_b: Annotated[
        list[str] | None,
        _option(
            "A header that B sends. May be repeated.", "--header-b", panel=_TENANTS, metavar="'NAME: VALUE'"
        ),
    ] = None,
    cookie_a: Annotated[
        str | None,
        _option(
            "A's cookies.", "--cookie-a", panel=_TENANTS, envvar="TENANTRY_SCAN_COOKIE_A", metavar="COOKIES"
        ),
    ] = None,
    cookie_b: Annotated[
        str | None,
        _option(
            "B's cookies.", "--cookie-b", panel=_TENANTS, envvar="TENANTRY_SCAN_COOKIE_B", metavar="COOKIES"
        ),
    ] = None,
    tenant_a: Annotated[
        str | None,
        _option(
            "A's id or slug, where no token or answer tells it.", "--tenant-a", panel=_TENANTS, metavar="NAME"
        ),
    ] = None,
    tenant_b: Annotated[
        str | None, _option("B's id or slug, likewise.", "--tenant-b", panel=_TENANTS, metavar="NAME")
    ] = None,
    owns: Annotated[
        list[str] | None,
        _option(
            "A value that only A may see, such as a name typed in as A. May be repeated.",
            "--owns",
            panel=_WHAT,
            metavar="VALUE",
        ),
    ] = None,
    shared: Annotated[
        list[str] | None,
        _option(
            "Paths whose data is everyone's, as in '/countries*'.", "--shared", panel=_WHAT, metavar="PATTERN"
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        _option("Paths that are never asked.", "--skip", panel=_WHAT, metavar="PATTERN"),
    ] = None,
    safe_post: Annotated[
        list[str] | None,
        _option(
            "Paths whose POST only reads, as in /graphql or '/search*'. A GraphQL mutation is never sent there.",
            "--safe-post",
            panel=_WHAT,
            metavar="PATTERN",
        ),
    ] = None,
    writes: Annotated[
        bool,
        _option(
            "Also try to change and delete A's rows as B, and make rows as both. For STAGING ONLY: "
            "where the application leaks, rows are changed and lost.",
            "--writes",
            panel=_WHAT,
        ),
    ] = False,
    rate: Annotated[float, typer.Option(help="Requests a second.", rich_help_panel=_BOUNDS)] = 50.0,
    concurrency: Annotated[int, typer.Option(help="Requests at a time.", rich_help_panel=_BOUNDS)] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.", rich_help_panel=_BOUNDS)] = 10.0,
    max_requests: Annotated[int, typer.Option(help="Requests altogether.", rich_help_panel=_BOUNDS)] = 10_000,
    ca: Annotated[
        Path | None,
        _option(
            "Certificates of the authority that signed the application's.",
            "--ca",
            panel=_BOUNDS,
            metavar="FILE",
        ),
    ] = None,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="Show A's values in full; by default they are shortened.")
    ] = False,
    style: Annotated[Format, typer.Option("--format", help="How to print the report.")] = Format.text,
    as_json: AsJson = False,
) -> None:
    """Find out whether tenant B can reach tenant A's data in a running application.

    Replays A's requests with B's credentials, over ids, filters, cursors, exports, caches and errors, and prints each
    leak with the request that shows it. Only GET and HEAD are sent, and only to TARGET, unless you say otherwise.

    Exit status: 0 no leak; 1 leaks; 2 wrong usage, or the scan could not be completed and found none.
    """
    from tenantry.scan import Limits, Plan, read_har, read_openapi

    base = target if "://" in target else _IN_PROCESS
    found = from_file(credentials)
    plan = Plan(
        base,
        credentials_of("a", found, token_a, header_a, cookie_a, tenant_a),
        credentials_of("b", found, token_b, header_b, cookie_b, tenant_b),
        tuple(request for path in har or () for request in read_har(path, base_url=base)),
        tuple(request for path in har_b or () for request in read_har(path, base_url=base)),
        read_openapi(openapi, base_url=base) if openapi else (),
        writes=writes,
        safe_posts=tuple(safe_post or ()),
        owned=frozenset(owns or ()),
        shared=tuple(shared or ()),
        skip=tuple(skip or ()),
        ca=str(ca) if ca else None,
        limits=Limits(concurrency=concurrency, rate=rate, timeout=timeout, requests=max_requests),
    )
    report = asyncio.run(_run(target, plan, show_values=show_values, quiet=as_json))
    if style is Format.markdown and not as_json:
        typer.echo(report.to_markdown(), nl=False)
    else:
        _show(Output(as_json), report)
    if report.findings or not report.complete:
        raise typer.Exit(LEAKS if report.findings else INCOMPLETE)


async def _run(target: str, plan: Plan, *, show_values: bool, quiet: bool) -> Report:
    from tenantry.scan import load_application, scan, served

    with _progress(quiet=quiet) as show:
        if "://" in target:
            return await scan(plan, on_progress=show, show_values=show_values)
        async with served(load_application(target)) as transport:
            return await scan(plan, transport=transport, on_progress=show, show_values=show_values)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Any]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as progress:
        task = progress.add_task("Starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total or None)

        yield show


def _show(output: Output, report: Report) -> None:
    for finding in report.findings:
        kind = finding.kind
        output.line()
        output.line(
            (f"{kind.severity.value:<9}", _STYLES[kind.severity.value]),
            (finding.route, "bold"),
            f"  [{kind.label}]",
        )
        output.line("         ", f"{kind.why} ({finding.detail}; status {finding.status})")
        output.line(("   show  ", "bold"), finding.command)
        if finding.leaked:
            output.line(
                ("   leaks ", "bold"), ", ".join(f"{name} {value}".strip() for name, value in finding.leaked)
            )
        if finding.excerpt:
            output.line(("   answer ", "bold"), finding.excerpt)
        output.line(("   fix   ", "bold"), kind.fix)
    if report.notes:
        output.line()
    for note in report.notes:
        output.line(("note     ", "yellow"), note)
    output.line()
    output.line((report.summary(), "bold"))
    output.result(report.to_dict())
