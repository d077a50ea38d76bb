"""The options of ``tenantry scan``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

_TENANTS, _HOW, _WHAT, _BOUNDS = "The two tenants", "What is replayed", "What is tried", "Bounds"


class Format(StrEnum):
    """How a report is written."""

    text = "text"
    markdown = "markdown"


def _option(text: str, *names: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


Target = Annotated[
    str,
    typer.Argument(
        help="The application: a URL such as https://staging.example.com, or an ASGI application as "
        "module:attribute, which then runs in this process.",
        metavar="TARGET",
    ),
]

Har = Annotated[
    list[Path] | None,
    _option("Requests recorded as A: a HAR file. May be repeated.", "--har", panel=_HOW, metavar="FILE"),
]

HarOfB = Annotated[
    list[Path] | None,
    _option("The same, recorded as B; not needed.", "--har-b", panel=_HOW, metavar="FILE"),
]

OpenApi = Annotated[
    Path | None, _option("An OpenAPI 3 document, JSON or YAML.", "--openapi", panel=_HOW, metavar="FILE")
]

Credentials = Annotated[
    Path | None,
    _option(
        "Credentials in TOML; ${NAME} in it is a variable of the environment.",
        "--credentials",
        panel=_TENANTS,
        metavar="FILE",
    ),
]

TokenA = Annotated[
    str | None,
    _option(
        "A's bearer token.", "--token-a", panel=_TENANTS, envvar="TENANTRY_SCAN_TOKEN_A", metavar="TOKEN"
    ),
]

TokenB = Annotated[
    str | None,
    _option(
        "B's bearer token.", "--token-b", panel=_TENANTS, envvar="TENANTRY_SCAN_TOKEN_B", metavar="TOKEN"
    ),
]

HeaderA = Annotated[
    list[str] | None,
    _option("A header that A sends. May be repeated.", "--header-a", panel=_TENANTS, metavar="'NAME: VALUE'"),
]

HeaderB = Annotated[
    list[str] | None,
    _option("A header that B sends. May be repeated.", "--header-b", panel=_TENANTS, metavar="'NAME: VALUE'"),
]

CookieA = Annotated[
    str | None,
    _option("A's cookies.", "--cookie-a", panel=_TENANTS, envvar="TENANTRY_SCAN_COOKIE_A", metavar="COOKIES"),
]

CookieB = Annotated[
    str | None,
    _option("B's cookies.", "--cookie-b", panel=_TENANTS, envvar="TENANTRY_SCAN_COOKIE_B", metavar="COOKIES"),
]

TenantA = Annotated[
    str | None,
    _option(
        "A's id or slug, where no token or answer tells it.", "--tenant-a", panel=_TENANTS, metavar="NAME"
    ),
]

TenantB = Annotated[
    str | None, _option("B's id or slug, likewise.", "--tenant-b", panel=_TENANTS, metavar="NAME")
]

Owned = Annotated[
    list[str] | None,
    _option(
        "A value that only A may see, such as a name typed in as A. May be repeated.",
        "--owns",
        panel=_WHAT,
        metavar="VALUE",
    ),
]

SharedPaths = Annotated[
    list[str] | None,
    _option(
        "Paths whose data is everyone's, as in '/countries*'.", "--shared", panel=_WHAT, metavar="PATTERN"
    ),
]

Skipped = Annotated[
    list[str] | None,
    _option("Paths that are never asked.", "--skip", panel=_WHAT, metavar="PATTERN"),
]

SafePosts = Annotated[
    list[str] | None,
    _option(
        "Paths whose POST only reads, as in /graphql or '/search*'. A GraphQL mutation is never sent there.",
        "--safe-post",
        panel=_WHAT,
        metavar="PATTERN",
    ),
]

Writes = Annotated[
    bool,
    _option(
        "Also try to change and delete A's rows as B, and make rows as both. For STAGING ONLY: "
        "where the application leaks, rows are changed and lost.",
        "--writes",
        panel=_WHAT,
    ),
]

Rate = Annotated[float, typer.Option(help="Requests a second.", rich_help_panel=_BOUNDS)]

Concurrency = Annotated[int, typer.Option(help="Requests at a time.", rich_help_panel=_BOUNDS)]

Timeout = Annotated[float, typer.Option(help="Seconds for one request.", rich_help_panel=_BOUNDS)]

MaxRequests = Annotated[int, typer.Option(help="Requests altogether.", rich_help_panel=_BOUNDS)]

Authority = Annotated[
    Path | None,
    _option(
        "Certificates of the authority that signed the application's.",
        "--ca",
        panel=_BOUNDS,
        metavar="FILE",
    ),
]

ShowValues = Annotated[
    bool, typer.Option("--show-values", help="Show A's values in full; by default they are shortened.")
]

Style = Annotated[Format, typer.Option("--format", help="How to print the report.")]
