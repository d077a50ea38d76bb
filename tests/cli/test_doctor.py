"""The doctor finds planted faults; its fix mends each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tenantry.cli import envfile
from tests.cli.conftest import Cli, Deployment
from tests.cli.models import NAME


class Fault(NamedTuple):
    code: str
    severity: str
    subject: str
    plant: str
    # where the finding's fix is a sentence, what it says
    mend: str | None = None


ANYBODY = (
    "CREATE OR REPLACE FUNCTION tenantry.current_tenant() RETURNS text LANGUAGE sql AS $$ SELECT 'acme' $$"
)
FAULTS = {
    "owner": Fault("role-owns", "error", "{p}_app", "ALTER TABLE products OWNER TO {p}_app"),
    "bypassrls": Fault("role-bypassrls", "error", "{p}_app", "ALTER ROLE {p}_app BYPASSRLS"),
    "superuser": Fault("role-superuser", "error", "{p}_raw", "ALTER ROLE {p}_raw SUPERUSER"),
    "member": Fault("role-member", "error", "{p}_raw", "GRANT {p}_control TO {p}_raw"),
    "setting": Fault("role-setting", "warning", "{p}_app", "ALTER ROLE {p}_app SET search_path = evil"),
    "force": Fault(
        "rls-off", "error", '"public"."products"', "ALTER TABLE products NO FORCE ROW LEVEL SECURITY"
    ),
    "enable": Fault(
        "rls-off", "error", '"public"."products"', "ALTER TABLE products DISABLE ROW LEVEL SECURITY"
    ),
    "dropped": Fault(
        "policy-missing", "error", '"public"."products"', "DROP POLICY tenantry_app ON products"
    ),
    "wider": Fault(
        "policy-extra", "error", '"public"."products"', "CREATE POLICY support ON products USING (true)"
    ),
    "changed": Fault(
        "policy-changed", "error", '"public"."products"', "ALTER POLICY tenantry_raw ON products USING (true)"
    ),
    "grant": Fault("grant-excess", "error", '"public"."products"', "GRANT TRUNCATE ON products TO {p}_app"),
    "trigger": Fault(
        "trigger-missing", "warning", '"public"."products"', "DROP TRIGGER tenantry_keep_tenant ON products"
    ),
    "view": Fault(
        "view-definer",
        "error",
        "shown",
        "CREATE VIEW shown AS SELECT * FROM products; GRANT SELECT ON shown TO {p}_raw",
    ),
    "materialized": Fault(
        "view-definer",
        "error",
        "kept",
        "CREATE MATERIALIZED VIEW kept AS SELECT * FROM products; GRANT SELECT ON kept TO {p}_raw",
    ),
    "unique": Fault(
        "unique-unscoped",
        "error",
        '"public"."products" one_for_all',
        "ALTER TABLE products ADD CONSTRAINT one_for_all UNIQUE (id)",
        "ALTER TABLE products DROP CONSTRAINT one_for_all",
    ),
    "definer": Fault(
        "definer-function",
        "error",
        "peek()",
        "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM products'",
    ),
    "key": Fault("seal-readable", "error", "{p}_raw", "GRANT SELECT ON tenantry.seal_keys TO {p}_raw"),
    "seal": Fault("seal-function", "error", "tenantry.current_tenant", ANYBODY),
    "create": Fault(
        "right-open", "error", "CREATE on schema public", "GRANT CREATE ON SCHEMA public TO PUBLIC"
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_its_fix_mends_it(prepared: Deployment, name: str) -> None:
    fault = FAULTS[name]
    prepared.execute(fault.plant)
    said = prepared.doctor(status=1 if fault.severity == "error" else 0)
    found = [finding for finding in said["findings"] if finding["code"] == fault.code]
    assert found, said["findings"]
    subject = fault.subject.replace("{p}", prepared.prefix)
    assert any(finding["subject"].startswith(subject) for finding in found)
    assert {finding["severity"] for finding in found} == {fault.severity}
    assert all(finding["message"] for finding in found)
    mend(prepared, fault, found)
    if name == "owner":  # REASSIGN OWNED takes from the former owner what it had been granted before
        mend(
            prepared,
            fault,
            [f for f in prepared.doctor(status=1)["findings"] if f["code"] == "grant-missing"],
        )
    assert prepared.doctor()["findings"] == []


def mend(deployment: Deployment, fault: Fault, findings: list[dict[str, Any]]) -> None:
    for finding in findings:
        follow(deployment, fault, finding)


def follow(deployment: Deployment, fault: Fault, finding: dict[str, Any]) -> None:
    if finding["fix"].startswith("tenantry init"):
        deployment.init()
    else:
        deployment.execute(fault.mend or finding["fix"])


def test_a_sound_database_has_no_findings(prepared: Deployment) -> None:
    said = prepared.doctor()
    assert (said["ok"], said["errors"], said["warnings"], said["findings"]) == (True, 0, 0, [])
    assert "one canary tenant cannot reach another's rows through the live connections" in said["passed"]
    ran = prepared.cli("doctor", "--models", NAME)
    assert ran.stdout.endswith("0 errors, 0 warnings\n")


def test_findings_are_told_with_severity_subject_message_and_fix(prepared: Deployment) -> None:
    prepared.execute("CREATE POLICY support ON products USING (true)")
    ran = prepared.cli("doctor", "--models", NAME, status=1)
    assert 'error    "public"."products"  [policy-extra]' in ran.stdout
    assert '   fix   DROP POLICY "support" ON "public"."products"' in ran.stdout


def test_the_canaries_notice_what_no_catalog_shows(prepared: Deployment) -> None:
    prepared.execute(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER swallow BEFORE INSERT ON products FOR EACH ROW EXECUTE FUNCTION swallow()"
    )
    said = prepared.doctor(status=1)
    assert [finding["code"] for finding in said["findings"]] == ["attestation-failed"]


def test_nothing_of_the_canaries_stays(prepared: Deployment) -> None:
    rows = "SELECT (SELECT count(*) FROM products), (SELECT count(*) FROM tenantry.idempotency)"
    before = prepared.execute(rows)
    prepared.doctor()
    assert prepared.execute(rows) == before


# -- tables that no model names


def test_without_models_every_table_with_a_tenant_is_inspected(prepared: Deployment) -> None:
    prepared.execute("DROP POLICY tenantry_app ON reviews")
    said = prepared.cli.json("doctor", status=1)
    assert [(f["code"], f["subject"]) for f in said["findings"] if f["severity"] == "error"] == [
        ("policy-missing", '"public"."reviews"')
    ]
    shared = next(f for f in said["findings"] if f["subject"] == "countries")
    assert "--models" in shared["fix"]


def test_an_unlisted_table_that_tenants_can_reach_is_inspected(prepared: Deployment) -> None:
    prepared.execute(
        "CREATE TABLE legacy (id int PRIMARY KEY, tenant_id text NOT NULL); GRANT SELECT ON legacy TO {p}_app"
    )
    said = prepared.doctor(status=1)
    found = {(finding["code"], finding["severity"]) for finding in said["findings"]}
    assert ("rls-off", "error") in found
    assert ("unique-unscoped", "warning") in found  # its key was there first


def test_an_unlisted_table_out_of_reach_is_mentioned_once(prepared: Deployment) -> None:
    prepared.execute("CREATE TABLE elsewhere (id int PRIMARY KEY, tenant_id text)")
    said = prepared.doctor()
    assert [(finding["code"], finding["severity"]) for finding in said["findings"]] == [
        ("table-unlisted", "warning")
    ]


# -- settings


def test_a_database_that_was_never_prepared(prepared: Deployment, cli: Cli) -> None:
    prepared.execute("DROP SCHEMA tenantry CASCADE")
    said = prepared.doctor(status=1)
    assert [finding["code"] for finding in said["findings"]] == ["never-provisioned"]
    assert said["findings"][0]["fix"].startswith("tenantry init")


def test_a_prepared_database_without_tables_is_no_error(bare: Deployment) -> None:
    bare.init()
    said = bare.doctor()
    assert [(f["code"], f["severity"]) for f in said["findings"]] == [("schema-empty", "warning")]


def test_missing_tables_and_columns_are_errors(prepared: Deployment) -> None:
    prepared.execute("ALTER TABLE products DROP COLUMN name")
    said = prepared.doctor(status=1)
    assert [finding["code"] for finding in said["findings"]] == ["schema-differs"]
    assert "products.name is missing" in said["findings"][0]["message"]


@pytest.mark.parametrize(
    ("variable", "code", "status"),
    [
        ("TENANTRY_DATABASE_CONTROL_URL", "option-missing", 1),
        ("TENANTRY_DATABASE_SEAL_KEY", "option-missing", 1),
        ("TENANTRY_DATABASE_RAW_URL", "option-missing", 0),
    ],
)
def test_options_that_are_not_set(prepared: Deployment, variable: str, code: str, status: int) -> None:
    prepared.unset(variable)
    said = prepared.doctor(status=status)
    assert [(finding["code"], finding["subject"]) for finding in said["findings"]] == [(code, variable)]


def test_a_role_that_cannot_connect(prepared: Deployment) -> None:
    prepared.execute("ALTER ROLE {p}_raw NOLOGIN")
    said = prepared.doctor(status=1)
    assert [finding["code"] for finding in said["findings"]] == ["role-unreachable"]
    assert said["findings"][0]["subject"] == "TENANTRY_DATABASE_RAW_URL"
    prepared.execute("ALTER ROLE {p}_raw LOGIN")
    assert prepared.doctor()["ok"]


def test_policies_that_cannot_be_checked_are_not_called_right(prepared: Deployment) -> None:
    prepared.unset("TENANTRY_DATABASE_RAW_URL")
    prepared.execute(
        "ALTER TABLE products NO FORCE ROW LEVEL SECURITY; DROP OWNED BY {p}_raw; DROP ROLE {p}_raw"
    )
    said = prepared.doctor(status=1)
    errors = [(f["code"], f["subject"]) for f in said["findings"] if f["severity"] == "error"]
    assert ("role-missing", f"{prepared.prefix}_raw") in errors
    prepared.init()
    assert "rls-off" in {finding["code"] for finding in prepared.doctor(status=1)["findings"]}


def test_a_url_that_cannot_be_read(prepared: Deployment) -> None:
    envfile.write(prepared.folder / ".env", {"TENANTRY_DATABASE_RAW_URL": "postgresql://u:s3cret@[::1/x"})
    ran = prepared.cli("doctor", "--json", status=1)
    assert [f["subject"] for f in ran.data["findings"]] == ["TENANTRY_DATABASE_RAW_URL"]
    assert "s3cret" not in ran.stdout


def test_roles_of_two_databases(prepared: Deployment) -> None:
    url = prepared.env["TENANTRY_DATABASE_CONTROL_URL"]
    other = url.rpartition("/")[0] + "/postgres"
    envfile.write(prepared.folder / ".env", {"TENANTRY_DATABASE_CONTROL_URL": other})
    said = prepared.doctor(status=1)
    assert [finding["code"] for finding in said["findings"]] == ["database-differs"]


def test_a_key_of_another_installation(prepared: Deployment) -> None:
    envfile.write(prepared.folder / ".env", {"TENANTRY_DATABASE_SEAL_KEY": "kother:" + "A" * 43 + "="})
    said = prepared.doctor(status=1)
    assert [finding["code"] for finding in said["findings"]] == ["attestation-failed"]


def test_the_environment_outranks_the_file_which_outranks_toml(
    prepared: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = prepared.env
    (prepared.folder / "tenantry.toml").write_text(
        f'[database]\nurl = "sqlite:///other.db"\nraw_url = "{env["TENANTRY_DATABASE_RAW_URL"]}"\n'
    )
    prepared.unset("TENANTRY_DATABASE_RAW_URL")
    assert prepared.doctor()["findings"] == []
    monkeypatch.setenv("TENANTRY_DATABASE_URL", "memory://")
    assert prepared.doctor()["database"] == "memory"


def test_no_secret_is_printed(prepared: Deployment) -> None:
    prepared.execute("ALTER ROLE {p}_raw NOLOGIN; ALTER ROLE {p}_app BYPASSRLS")
    for more in ([], ["--json"]):
        ran = prepared.cli("doctor", "--models", NAME, *more, status=1)
        for value in prepared.env.values():
            secret = value.rpartition("@")[0].rpartition(":")[2] or value.partition(":")[2]
            assert secret
            assert secret not in ran.stdout + ran.stderr


def test_names_in_the_database_cannot_steer_the_terminal(prepared: Deployment) -> None:
    prepared.execute(
        'CREATE VIEW "\x1b[2Jgone\u202e" AS SELECT 1 AS one; GRANT SELECT ON "\x1b[2Jgone\u202e" TO {p}_raw'
    )
    ran = prepared.cli("doctor", "--models", NAME)
    assert "\x1b" not in ran.stdout
    assert "\u202e" not in ran.stdout
    assert "gone" in ran.stdout


# -- models


def test_models_are_found_by_name(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "shop_of_a_test.py").write_text(
        "from tenantry import Model\n\n\nclass Product(Model):\n    __collection__ = 'products'\n\n\nOTHER = 1\n"
    )
    (tmp_path / ".env").write_text("TENANTRY_DATABASE_URL=memory://\n")
    try:
        said = cli.json("doctor", "--models", "shop_of_a_test:Product")
        assert "the tables of 1 models are as declared" in said["passed"]
        (tmp_path / "pyproject.toml").write_text('[tool.tenantry]\nmodels = ["shop_of_a_test:Product"]\n')
        assert cli.json("doctor")["passed"] == said["passed"]
        for wrong in ("shop_of_a_test", "shop_of_a_test:Nothing", "shop_of_a_test:OTHER", "no_such_module:x"):
            assert cli.json("doctor", "--models", wrong, status=2)["error"]["code"] == "configuration-error"
        (tmp_path / "pyproject.toml").write_text("[tool.tenantry]\nmodels = 7\n")
        assert "must list names" in cli.json("doctor", status=2)["error"]["message"]
        (tmp_path / "pyproject.toml").write_text("not toml")
        assert "pyproject.toml" in cli.json("doctor", status=2)["error"]["message"]
    finally:
        sys.modules.pop("shop_of_a_test", None)
        sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


# -- other databases


def test_no_database_names_the_next_command(cli: Cli) -> None:
    error = cli.json("doctor", status=2)["error"]
    assert "tenantry init" in error["fix"]
    assert "sqlite:///" in error["fix"]


def test_a_server_that_is_away(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TENANTRY_DATABASE_URL=postgresql://app:s3cret@127.0.0.1:1/x\n")
    assert cli.json("doctor", status=3)["error"]["code"] == "database-unavailable"


def test_sqlite(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TENANTRY_DATABASE_URL=sqlite:///shop.db\n")
    assert [f["code"] for f in cli.json("doctor", "--models", NAME)["findings"]] == ["file-missing"]
    assert not (tmp_path / "shop.db").exists()
    os.environ["TENANTRY_DATABASE_SCHEMA_MODE"] = "create"
    try:
        cli("tenants", "create", "acme")
    finally:
        del os.environ["TENANTRY_DATABASE_SCHEMA_MODE"]
    (tmp_path / "shop.db").chmod(0o644)
    said = cli.json("doctor")
    assert [(f["code"], f["fix"]) for f in said["findings"]] == [("file-open", "chmod 600 shop.db")]
    (tmp_path / "shop.db").chmod(0o600)
    assert cli.json("doctor")["findings"] == []
    assert [f["code"] for f in cli.json("doctor", "--models", NAME, status=1)["findings"]] == [
        "schema-differs"
    ]


def test_memory(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TENANTRY_DATABASE_URL=memory://\n")
    said = cli.json("doctor", "--models", NAME)
    assert [(f["code"], f["severity"]) for f in said["findings"]] == [("not-durable", "warning")]


def test_the_installed_command_does_the_same(prepared: Deployment) -> None:
    prepared.execute("DROP POLICY tenantry_app ON products")
    command = [str(Path(sys.executable).with_name("tenantry")), "doctor", "--json"]
    done = subprocess.run(command, cwd=prepared.folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    errors = [f["code"] for f in json.loads(done.stdout)["findings"] if f["severity"] == "error"]
    assert errors == ["policy-missing"]
