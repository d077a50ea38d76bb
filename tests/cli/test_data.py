"""Rows in and out from the command line."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tenantry import MultiTenantSDK
from tenantry.testing.models import Colour, Sample
from tests.cli.conftest import Cli
from tests.cli.models import MODELS, NAME, Product

SAMPLES = f"{Sample.__module__}:Sample"
MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 600_700, tzinfo=dt.UTC)
ROWS: list[dict[str, Any]] = [
    {
        "label": 'a,"b"\nc',
        "number": -(2**63),
        "exact": Decimal("12345678901234567890.000000001"),
        "ratio": 0.1,
        "flag": True,
        "day": dt.date(2024, 2, 29),
        "moment": MOMENT,
        "token": uuid.UUID(int=7),
        "blob": b"\x00\xff",
        "colour": Colour("red"),
        "data": {"a": [1, 2.5, None, "ü"], "b": "text"},
        "labels": ["x", "", "ß"],
        "numbers": [1, -1],
    },
    {"label": "only text"},
    {"label": "😀", "data": "just text", "flag": False, "ratio": 1e300},
]


def _rows(tenant: str, model: type[Any]) -> list[dict[str, Any]]:
    async def work() -> list[dict[str, Any]]:
        async with MultiTenantSDK.open("sqlite:///shop.db", models=[*MODELS, Sample], env={}) as sdk:
            page = await sdk.tenant(tenant).data.read(model.__collection__, limit=10_000)
            return [{k: v for k, v in row.items() if k not in ("created_at", "updated_at")} for row in page]

    return asyncio.run(work())


@pytest.fixture
def shop(cli: Cli, tmp_path: Path) -> Cli:
    """Give the command line in a folder whose `.env` leads to a SQLite file with two tenants."""
    (tmp_path / ".env").write_text("TENANTRY_DATABASE_URL=sqlite:///shop.db\n")

    async def work() -> None:
        models = [*MODELS, Sample]
        async with MultiTenantSDK.open("sqlite:///shop.db", models=models, schema="create", env={}) as sdk:
            for tenant in ("acme", "globex"):
                await sdk.tenants.create(tenant)
                await sdk.tenant(tenant).data.create(Product(name=f"{tenant}'s", sku="L1"))
            await sdk.tenant("acme").data.bulk_create("samples", ROWS, atomic=True)

    asyncio.run(work())
    return cli


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_what_was_exported_comes_back_as_it_was(shop: Cli, form: str) -> None:
    made = shop.json("data", "export", "samples", f"rows.{form}", "--tenant", "acme", "--models", SAMPLES)
    assert made == {"rows": 3, "file": f"rows.{form}", "format": form}
    done = shop.json("data", "import", "samples", f"rows.{form}", "--tenant", "globex", "--models", SAMPLES)
    assert done == {"rows": 3, "refused": 0, "dry_run": False}
    assert _rows("globex", Sample) == _rows("acme", Sample)


def test_an_export_holds_one_tenants_rows_in_pages(shop: Cli, tmp_path: Path) -> None:
    lines = [f"p{number},S{number}" for number in range(2_500)]
    (tmp_path / "many.csv").write_text("\n".join(["name,sku", *lines]))
    done = shop.json("data", "import", "products", "many.csv", "--tenant", "acme", "--models", NAME)
    assert done["rows"] == 2_500
    shop("data", "export", "products", "out.csv", "--tenant", "acme", "--models", NAME)
    with (tmp_path / "out.csv").open(newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert sorted(names) == sorted(["acme's", *(f"p{number}" for number in range(2_500))])
    where = json.dumps({"name": {"starts_with": "p1"}})
    shop("data", "export", "products", "some.jsonl", "--tenant", "acme", "--where", where, "--models", NAME)
    found = [json.loads(line)["name"] for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    assert sorted(found) == sorted(name for name in names if name.startswith("p1"))


def test_reading_prints_a_page(shop: Cli) -> None:
    options = ["--tenant", "acme", "--models", SAMPLES, "--fields", "label,number", "--order-by", "-label"]
    page = shop.json("data", "read", "samples", *options, "--limit", "2")
    assert [row["label"] for row in page["rows"]] == ["😀", "only text"]
    more = shop.json("data", "read", "samples", *options, "--limit", "2", "--cursor", page["next_cursor"])
    assert [row["number"] for row in more["rows"]] == [-(2**63)]
    shown = shop("data", "read", "products", "--tenant", "globex", "--models", NAME).stdout
    assert "globex's" in shown
    assert "acme" not in shown


def test_a_bad_row_stops_and_names_itself(shop: Cli, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("name,sku\na,A\nb\n")
    error = shop.json(
        "data", "import", "products", "rows.csv", "--tenant", "acme", "--models", NAME, status=1
    )
    assert "row 3 of rows.csv" in error["error"]["message"]
    assert len(_rows("acme", Product)) == 1


def test_bad_rows_are_listed_and_the_good_ones_stored(shop: Cli, tmp_path: Path) -> None:
    rows = [
        '{"name": "a", "sku": "A"}',
        "{",
        '{"name": "b", "sku": "L1"}',
        '{"name": 5, "sku": "C"}',
        '{"no": 1}',
        "[]",
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows, '{"name": "d", "sku": "D"}']))
    arguments = ["rows.jsonl", "--tenant", "acme", "--models", NAME, "--refused", "bad.jsonl"]
    done = shop.json("data", "import", "products", *arguments, status=1)
    assert (done["rows"], done["refused"]) == (2, 5)
    notes = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert sorted(note["row"] for note in notes) == [2, 3, 4, 5, 6]
    assert {note["row"]: note["field"] for note in notes}[4] == "name"
    assert {row["name"] for row in _rows("acme", Product)} == {"acme's", "a", "d"}


def test_a_second_import_on_a_key_changes_the_same_rows(shop: Cli, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("name,sku\nnew,L1\nother,L2\n")
    for _ in range(2):
        shop("data", "import", "products", "rows.csv", "--tenant", "acme", "--on", "sku", "--models", NAME)
    assert {(row["name"], row["sku"]) for row in _rows("acme", Product)} == {("new", "L1"), ("other", "L2")}
    assert [row["name"] for row in _rows("globex", Product)] == ["globex's"]


def test_a_dry_run_stores_nothing(shop: Cli, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("name,sku\na,A\n")
    arguments = ["rows.csv", "--tenant", "acme", "--dry-run", "--models", NAME]
    assert shop.json("data", "import", "products", *arguments) == {"rows": 1, "refused": 0, "dry_run": True}
    assert len(_rows("acme", Product)) == 1


def test_a_suspended_tenants_rows_can_be_exported_with_a_reason(shop: Cli, tmp_path: Path) -> None:
    shop("tenants", "suspend", "acme", "--reason", "unpaid")
    arguments = ["products", "out.jsonl", "--tenant", "acme", "--models", NAME]
    assert shop.json("data", "export", *arguments, status=1)["error"]["code"] == "tenant-suspended"
    shop("data", "export", *arguments, "--reason", "they asked for it")
    assert [json.loads(line)["name"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        "acme's"
    ]


def test_shared_rows_need_no_tenant(shop: Cli, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id\nat\nfr\n")
    shop("data", "import", "countries", "rows.csv", "--models", NAME)
    shop("data", "export", "countries", "out.jsonl", "--models", NAME)
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        "at",
        "fr",
    ]


@pytest.mark.parametrize(
    ("arguments", "told", "status"),
    [
        (("read", "products"), "--tenant", 2),
        (("read", "nothing", "--tenant", "acme"), "nothing", 2),
        (("read", "products", "--tenant", "nobody"), "nobody", 1),
        (("read", "products", "--tenant", "acme", "--where", "{"), "JSON", 1),
        (("read", "products", "--tenant", "acme", "--where", '{"no": 1}'), "no", 1),
        (("import", "products", "rows.txt", "--tenant", "acme"), "--format", 2),
        (("import", "products", "strange.csv", "--tenant", "acme"), "colour", 2),
        (("import", "products", "binary.csv", "--tenant", "acme"), "Cannot read", 2),
        (("import", "products", "text.parquet", "--tenant", "acme"), "Cannot read", 2),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_done_is_said(
    shop: Cli, tmp_path: Path, arguments: tuple[str, ...], told: str, status: int
) -> None:
    (tmp_path / "rows.txt").write_text("x")
    (tmp_path / "strange.csv").write_text("name,colour\na,red\n")
    (tmp_path / "binary.csv").write_bytes(b"name,sku\n\xff\xfe,x\n")
    (tmp_path / "text.parquet").write_text("no parquet")
    error = shop.json("data", *arguments, "--models", NAME, status=status)["error"]
    assert told in f"{error['message']} {error['fix']}"


def test_an_export_that_fails_leaves_no_file(shop: Cli, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("of before")
    shop("data", "export", "products", "out.csv", "--tenant", "nobody", "--models", NAME, status=1)
    assert (tmp_path / "out.csv").read_text() == "of before"
    assert not list(tmp_path.glob(".out*"))
