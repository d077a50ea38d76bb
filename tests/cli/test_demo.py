"""The demonstration: what it says is what happened."""

from __future__ import annotations

from tests.cli.conftest import Cli


def test_it_shows_that_every_door_is_shut(cli: Cli) -> None:
    found = cli.json("demo")
    assert {tenant: len(rows) for tenant, rows in found["rows"].items()} == {"acme": 2, "globex": 3}
    assert len(found["attempts"]) == 9
    assert all(attempt["held"] for attempt in found["attempts"])
    assert {attempt["answer"] for attempt in found["attempts"]} >= {
        "NotFound",
        "InvalidQuery",
        "TenantRequired",
    }
    assert 0 < found["refused_after_ms"] < 60_000


def test_people_are_shown_the_rows_and_what_to_type_next(cli: Cli) -> None:
    shown = cli("demo").stdout
    assert "Laptop 15" in shown
    assert "LEAK" not in shown
    assert "tenantry init" in shown
