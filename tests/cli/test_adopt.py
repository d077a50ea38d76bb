"""`tenantry adopt` on a Django project of 30 tables, with nothing but the command line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Deployment
from tests.databases.postgres.adopt.desk.program import desk
from tests.servers import PostgresServer

OWN = {
    "attachment",
    "article",
    "customer",
    "invoice",
    "invoiceline",
    "label",
    "membership",
    "message",
    "note",
    "revision",
    "survey",
    "team",
    "team_members",
    "ticket",
    "ticket_labels",
    "ticket_watchers",
    "webhook",
}
OPEN = {
    "auth_user",
    "auth_user_groups",
    "auth_user_user_permissions",
    "desk_profile",
    "django_admin_log",
    "django_session",
}
SHARED = {
    "auth_group",
    "auth_group_permissions",
    "auth_permission",
    "desk_country",
    "desk_plan",
    "django_content_type",
    "django_migrations",
}


class Desk(Deployment):
    """The help desk's database, its legacy role, and the folder in which the commands run."""

    legacy: str

    @property
    def legacy_url(self) -> str:
        return self.server.url(self.database, user=self.legacy, password="secret")

    def adopt(self, *args: str, status: int = 0) -> Any:
        return self.cli.json("adopt", *args, status=status)

    def edit(self, table: str, old: str, new: str) -> None:
        path = self.folder / "adopt.toml"
        head, name, rest = path.read_text().partition(f'[tables."{table}"]')
        assert old in rest
        path.write_text(head + name + rest.replace(old, new, 1))


@pytest.fixture(scope="module")
def template(postgres_server: PostgresServer) -> Iterator[tuple[str, str]]:
    """Make the help desk's database once, and its role."""
    name = f"desk{os.getpid()}"
    role = f"{name}_legacy"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    postgres_server.create_database(name)
    postgres_server.execute(f"GRANT CREATE ON SCHEMA public TO {role}", name)
    desk(postgres_server.url(name, user=role, password="secret"), "fill")
    yield name, role
    postgres_server.drop_database(name)
    postgres_server.execute(f"DROP ROLE {role}")


@pytest.fixture
def app(
    cli: Cli,
    postgres_server: PostgresServer,
    template: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Desk]:
    source, role = template
    made = Desk(cli, postgres_server, "", tmp_path)
    made.database, made.legacy = f"{made.prefix}_desk", role
    postgres_server.execute(f"CREATE DATABASE {made.database} TEMPLATE {source}")
    monkeypatch.setenv("TENANTRY_ADMIN_URL", made.admin_url)
    made.init()
    yield made
    postgres_server.drop_database(made.database)
    roles = ", ".join(f"{made.prefix}_{name}" for name in ("owner", "app", "raw", "control"))
    postgres_server.execute(f"DROP ROLE IF EXISTS {roles}")


def names(said: Any, kind: str) -> set[str]:
    tables = said["tables"].items()
    return {name.removeprefix("public.") for name, table in tables if table["kind"] == kind}


def test_the_plan_is_what_a_careful_engineer_would_write(app: Desk) -> None:
    said = app.adopt("plan")
    assert said["root"] == "public.desk_organization"
    assert len(said["tables"]) >= 30
    assert names(said, "tenant") == {f"desk_{name}" for name in OWN}
    assert names(said, "open") == OPEN
    assert names(said, "shared") == SHARED
    assert said["problems"] == []
    note = tomllib.loads((app.folder / "adopt.toml").read_text())["tables"]["public.desk_note"]
    assert note["sql"].count("WHEN") == 3
    why = said["tables"]["public.auth_user"]["reasons"]
    assert any(reason.startswith("1 of its rows belong to several tenants") for reason in why)


@pytest.mark.timeout(400)  # it runs Django a dozen times
def test_a_django_project_is_adopted_from_end_to_end(app: Desk) -> None:
    everything = desk(app.legacy_url, "count")
    app.adopt("plan", "--tenant-key", "slug")
    app.adopt("apply")
    assert app.adopt("verify")["state"] == "applied"
    assert desk(app.legacy_url, "count") == everything

    assert app.adopt("enforce", "--canary")["state"] == "canary"
    key, raw = app.env["TENANTRY_DATABASE_SEAL_KEY"], app.env["TENANTRY_DATABASE_RAW_URL"]
    assert app.adopt("verify")["ok"]
    unforced = {
        finding["code"]
        for finding in app.cli.json("doctor", status=1)["findings"]
        if finding["severity"] == "error"
    }
    assert unforced == {"rls-off"}  # the owner still sees all
    assert desk(app.legacy_url, "count") == everything
    own = [desk(raw, "count_as", tenant, seal_key=key) for tenant in ("acme", "globex", "initech")]
    assert {name: sum(counts[name] for counts in own) for name in everything} == everything
    assert [counts["Ticket"] for counts in own] == [10, 11, 12]
    assert [counts["Organization"] for counts in own] == [1, 1, 1]

    assert app.adopt("enforce")["state"] == "enforced"
    assert app.adopt("enforce", "--canary")["state"] == "enforced"  # too late for that
    assert app.adopt("verify")["ok"]
    assert app.adopt("status")["state"] == "enforced"
    assert not any(desk(app.legacy_url, "count").values())
    assert not any(desk(raw, "count", seal_key=key).values())
    said = desk(raw, "work_as", "globex", seal_key=key)
    assert (said["slug"], said["tickets"], said["notes"]) == ("globex", 12, [True])
    assert desk(raw, "log_in", seal_key=key) == "2"
    assert "forged" in desk(raw, "count_as", "globex", seal_key="k1:" + "A" * 44, fails=True)


def test_the_doctor_knows_the_adopted_tables(app: Desk) -> None:
    app.adopt("plan", "--tenant-key", "slug")
    app.adopt("apply")
    app.adopt("enforce")
    said = app.cli.json("doctor")
    assert said["errors"] == 0
    assert {finding["subject"] for finding in said["findings"] if finding["code"] == "table-open"} == {
        f'"public"."{name}"' for name in OPEN
    }
    app.execute("ALTER TABLE desk_ticket DISABLE ROW LEVEL SECURITY; GRANT TRUNCATE ON desk_plan TO {p}_raw")
    said = app.cli.json("doctor", status=1)
    assert {f["code"] for f in said["findings"] if f["severity"] == "error"} == {"rls-off", "grant-excess"}
    proof = app.adopt("verify", status=1)
    assert any(problem.startswith("public.desk_ticket: ") for problem in proof["problems"])


def test_a_leak_and_an_orphan_are_shown_and_stop_it(app: Desk) -> None:
    app.execute(
        "INSERT INTO desk_ticket_labels (ticket_id, label_id) SELECT t.id, l.id FROM desk_ticket t, desk_label l "
        "WHERE t.organization_id = 1 AND l.organization_id = 2 LIMIT 2; INSERT INTO desk_attachment (name) VALUES ('x')"
    )
    said = app.adopt("plan", status=1)
    leak, orphan = sorted(said["problems"], reverse=True)
    assert leak.startswith("public.desk_ticket_labels: 2 rows refer")
    assert orphan.startswith("public.desk_attachment: 1 of 34 rows find no tenant")
    refused = app.cli("adopt", "apply", status=1)
    assert "2 rows refer" in refused.stderr
    assert app.adopt("status")["state"] == "none"
    app.execute("DELETE FROM desk_attachment WHERE message_id IS NULL")
    app.edit("public.desk_ticket_labels", 'disagreements = "stop"', 'disagreements = "keep"')
    app.adopt("apply")


def test_dry_runs_print_the_sql_and_change_nothing(app: Desk) -> None:
    before = app.execute("SELECT count(*) FROM pg_attribute")
    text = app.cli("adopt", "plan", "--sql").stdout
    assert "-- locks: ACCESS EXCLUSIVE on public.desk_ticket, for milliseconds" in text
    text = app.cli("adopt", "apply", "--dry-run").stdout
    for part in ('ALTER TABLE "public"."desk_ticket" ADD COLUMN tenant_id text', "CONCURRENTLY", "NOT VALID"):
        assert part in text
    assert app.execute("SELECT count(*) FROM pg_attribute") == before
    app.adopt("apply")
    before = app.execute("SELECT count(*) FROM pg_policy")
    assert "FORCE ROW LEVEL SECURITY" in app.cli("adopt", "enforce", "--dry-run").stdout
    assert "DROP COLUMN" in app.cli("adopt", "revert", "--dry-run").stdout
    assert app.execute("SELECT count(*) FROM pg_policy") == before


def test_it_can_be_taken_back(app: Desk) -> None:
    columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public'"
    before, everything = app.execute(columns), desk(app.legacy_url, "count")
    app.adopt("plan")
    app.adopt("apply")
    app.adopt("enforce")
    app.adopt("revert")
    assert app.execute(columns) == before
    assert desk(app.legacy_url, "count") == everything
    assert app.adopt("status")["state"] == "none"


def test_people_read_lines(app: Desk) -> None:
    assert "(ticket_id) → public.desk_ticket(organization_id)" in app.cli("adopt", "plan").stdout
    assert "done     column public.desk_ticket" in app.cli("adopt", "apply").stdout
    assert "nobody is isolated yet" in app.cli("adopt", "verify").stdout
    said = app.cli("adopt", "enforce").stdout
    assert "DATABASE_URL" in said
    assert "rows of 18 tables carry the tenant" in app.cli("adopt", "verify").stdout
    assert app.cli("adopt", "status").stdout.startswith("enforced")


def test_mistakes_are_named(app: Desk) -> None:
    assert "tenantry adopt plan" in app.cli("adopt", "apply", status=2).stderr
    app.adopt("plan")
    assert "--force" in app.cli("adopt", "plan", status=2).stderr
    app.adopt("plan", "--force")
    assert "Run: tenantry adopt apply" in app.cli("adopt", "enforce", status=1).stderr
    assert "Run: tenantry adopt apply" in app.cli("adopt", "verify", status=1).stderr
    assert "keep or tenantry" in app.cli("adopt", "enforce", "--owner", "me", status=2).stderr
