"""``tenantry scan``: whether one tenant of a running application can reach another's data, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tenantry.cli.credentials import credentials_of, from_file
from tenantry.cli.output import AsJson, Output
from tenantry.cli.scan_options import (
    Authority,
    Concurrency,
    CookieA,
    CookieB,
    Credentials,
    Format,
    Har,
    HarOfB,
    HeaderA,
    HeaderB,
    MaxRequests,
    OpenApi,
    Owned,
    Rate,
    SafePosts,
    SharedPaths,
    ShowValues,
    Skipped,
    Style,
    Target,
    TenantA,
    TenantB,
    Timeout,
    TokenA,
    TokenB,
    Writes,
)

if TYPE_CHECKING:
    from tenantry.scan import Plan, Report

LEAKS, INCOMPLETE = 1, 2
_STYLES = {"critical": "bold red", "high": "red", "medium": "yellow"}
_IN_PROCESS = "http://application.test"


def scan(
    target: Target,
    har: Har = None,
    har_b: HarOfB = None,
    openapi: OpenApi = None,
    credentials: Credentials = None,
    token_a: TokenA = None,
    token_b: TokenB = None,
    header_a: HeaderA = None,
    header_b: HeaderB = None,
    cookie_a: CookieA = None,
    cookie_b: CookieB = None,
    tenant_a: TenantA = None,
    tenant_b: TenantB = None,
    owns: Owned = None,
    shared: SharedPaths = None,
    skip: Skipped = None,
    safe_post: SafePosts = None,
    writes: Writes = False,
    rate: Rate = 50.0,
    concurrency: Concurrency = 4,
    timeout: Timeout = 10.0,
    max_requests: MaxRequests = 10_000,
    ca: Authority = None,
    show_values: ShowValues = False,
    style: Style = Format.text,
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
