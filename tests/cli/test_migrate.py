"""`tenantry migrate`: from an empty folder to a database that is as the models declare it, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from tenantry import MultiTenantSDK
from tests.cli.conftest import Cli, Deployment
from tests.cli.models import MODELS, NAME
from tests.servers.process import environment

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_REVIEWS = "from tests.cli.models import Country, Product\n\nMODELS = [Country, Product]\n"


@pytest.fixture
def ready(bare: Deployment) -> Deployment:
    """Give a prepared database without tables, and a folder of revisions that are not run."""
    bare.init()
    bare.cli.json("migrate", "init", "--models", NAME)
    bare.cli.json("migrate", "new", "first")
    return bare


def test_from_an_empty_folder_to_a_database_that_serves(bare: Deployment) -> None:
    bare.init()
    made = bare.cli.json("migrate", "init", "--models", NAME)
    assert [Path(path).name for path in made["written"]] == ["env.py", "script.py.mako", "alembic.ini"]
    (written,) = bare.cli.json("migrate", "new", "the tables")["written"]
    assert Path(written["path"]).read_text().count("op.isolate_table(") == 2
    status = bare.cli.json("migrate", "status", status=1)
    assert [item["id"] for item in status["pending"]] == [written["id"]]
    assert bare.cli.json("migrate", "upgrade")["applied"] == [written]
    assert bare.cli.json("migrate", "status") == {
        "current": [written["id"]],
        "pending": [],
        "differences": [],
        "ok": True,
    }
    assert bare.cli.json("migrate", "new", "nothing") == {"written": []}
    assert bare.doctor()["findings"] == []

    async def serve() -> None:
        async with MultiTenantSDK.open(models=MODELS, env=bare.env) as sdk:
            await sdk.tenants.create("acme")

    asyncio.run(serve())


def test_plain_alembic_does_the_same(ready: Deployment) -> None:
    variables = {**environment(str(ready.folder)), **ready.env, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    for args in (["upgrade", "head"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *args],
            check=False,
            cwd=ready.folder,
            env=variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert ready.cli.json("migrate", "status")["ok"]


def test_status_shows_what_was_changed_by_hand(ready: Deployment) -> None:
    ready.cli("migrate", "upgrade")
    ready.execute("DROP POLICY tenantry_app ON products")
    ran = ready.cli("migrate", "status", status=1)
    assert "differs  op.isolate_table('products', raw=True)" in ran.stdout


def test_a_dry_run_shows_sql_and_locks_and_runs_nothing(ready: Deployment) -> None:
    steps = ready.cli.json("migrate", "upgrade", "--dry-run")["steps"]
    assert any("CREATE TABLE products" in step["sql"] for step in steps)
    assert any(f'TO "{ready.prefix}_app"' in step["sql"] for step in steps)
    assert ready.execute("SELECT count(*) FROM pg_class WHERE relname = 'products'") == "0"
    ready.cli("migrate", "upgrade")
    ready.execute("DROP POLICY tenantry_app ON products")
    ready.cli("migrate", "new", "mend")
    shown = ready.cli("migrate", "upgrade", "--dry-run").stdout
    assert "-- lock: ACCESS EXCLUSIVE: all wait" in shown
    assert ready.cli.json("migrate", "status", status=1)["pending"]


def test_what_loses_data_needs_the_flag(ready: Deployment) -> None:
    ready.cli("migrate", "upgrade")
    env = ready.folder / "migrations" / "env.py"
    (ready.folder / "fewer.py").write_text(WITHOUT_REVIEWS)
    env.write_text(env.read_text().replace("tests.cli.models", "fewer"))
    ready.cli("migrate", "new", "no reviews")
    for args in (["upgrade"], ["upgrade", "--dry-run"]):
        ran = ready.cli("migrate", *args, "--json", status=1)
        assert ran.data["error"]["code"] == "migration-refused"
        assert "drops the table reviews" in ran.data["error"]["message"]
    assert len(ready.cli.json("migrate", "upgrade", "--allow-destructive")["applied"]) == 1
    ready.cli("migrate", "downgrade", "--", "-1")
    assert ready.execute("SELECT relforcerowsecurity FROM pg_class WHERE relname = 'reviews'") == "t"


def test_the_way_down_needs_the_flag_too(ready: Deployment) -> None:
    ready.cli("migrate", "upgrade")
    assert "drops the table reviews" in ready.cli("migrate", "downgrade", "base", status=1).stderr
    assert len(ready.cli.json("migrate", "downgrade", "base", "--allow-destructive")["reverted"]) == 1


@pytest.mark.parametrize(
    "assigned",
    ["None", "Base.metadata", "[Base.metadata]", "[\n    Base.metadata,\n]"],
    ids=["none", "one", "list", "lines"],
)
def test_a_folder_that_exists_is_taught(ready: Deployment, assigned: str) -> None:
    env = ready.folder / "migrations" / "env.py"
    given = f"from tests.alembic.models import Base\n\nö = 'ü'; target_metadata = {assigned}\nprint(ö)\n"
    env.write_text(given)
    made = ready.cli.json("migrate", "init", "--models", NAME)
    assert [Path(path).name for path in made["written"]] == ["env.py"]
    assert "as the owner" in made["todo"][0]
    found: dict[str, object] = {}
    exec(compile(env.read_text(), "env.py", "exec"), found)  # noqa: S102 - it is what the command wrote
    metadata = found["target_metadata"]
    assert isinstance(metadata, list)
    assert len(metadata) == (1 if assigned == "None" else 2)
    again = ready.cli.json("migrate", "init", "--models", NAME)
    assert (again["written"], again["todo"]) == ([], [])


def test_alembics_own_environment_works_once_it_is_taught(bare: Deployment) -> None:
    bare.init()
    url = bare.env["TENANTRY_DATABASE_OWNER_URL"].replace("postgresql://", "postgresql+asyncpg://")
    config = Config("alembic.ini", stdout=io.StringIO(), cmd_opts=Namespace(quiet=True))
    command.init(config, "migrations", template="async")
    ini = bare.folder / "alembic.ini"
    ini.write_text(
        re.sub(
            r"sqlalchemy.url = .*", lambda _: f"sqlalchemy.url = {url.replace('%', '%%')}", ini.read_text()
        )
    )
    bare.cli("migrate", "init", "--models", NAME)
    bare.cli("migrate", "new", "first")
    assert len(bare.cli.json("migrate", "upgrade")["applied"]) == 1
    assert bare.cli.json("migrate", "status")["ok"]
    assert bare.doctor()["findings"] == []


def test_a_folder_of_another_form_is_left_as_it_is(ready: Deployment) -> None:
    env = ready.folder / "migrations" / "env.py"
    env.write_text("def metadata(): ...\n")
    made = ready.cli.json("migrate", "init", "--models", NAME)
    assert made["written"] == []
    assert "target_metadata" in made["todo"][0]


def test_pyproject_may_hold_alembics_configuration(bare: Deployment) -> None:
    bare.init()
    (bare.folder / "pyproject.toml").write_text(
        f'[tool.alembic]\nscript_location = "%(here)s/revisions"\n[tool.tenantry]\nmodels = ["{NAME}"]\n'
    )
    made = bare.cli.json("migrate", "init")
    assert [Path(path).parent.name for path in made["written"]] == ["revisions", "revisions"]
    bare.cli("migrate", "new", "first")
    bare.cli("migrate", "upgrade")
    assert bare.cli("migrate", "status").stdout.endswith("the database is as the models declare it\n")


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["new", "x"], 2, "tenantry migrate init"),
        (["init"], 2, "--models"),
    ],
)
def test_what_is_missing_is_named(bare: Deployment, args: list[str], status: int, said: str) -> None:
    bare.init()
    assert said in bare.cli("migrate", *args, status=status).stderr


def test_a_revision_that_does_not_exist_is_refused(ready: Deployment) -> None:
    error = ready.cli("migrate", "upgrade", "nowhere", "--json", status=1).data["error"]
    assert "nowhere" in error["message"]


def test_a_second_revision_waits_for_the_first(ready: Deployment) -> None:
    error = ready.cli("migrate", "new", "second", "--json", status=1).data["error"]
    assert error["fix"] == "Run: tenantry migrate upgrade."


def test_without_a_database_it_says_what_to_set(cli: Cli) -> None:
    assert "TENANTRY_DATABASE_OWNER_URL" in cli("migrate", "status", status=2).stderr


def test_a_server_that_is_away_is_told_as_that(ready: Deployment) -> None:
    env = ready.folder / ".env"
    env.write_text(env.read_text().replace(f":{ready.server.port}/", ":1/"))
    error = json.loads(ready.cli("migrate", "upgrade", "--json", status=3).stdout)["error"]
    assert error["code"] == "database-unavailable"


def test_without_alembic_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['alembic'] = None; from tenantry.cli.commands import commands; "
        "commands(['migrate', 'status'])"
    )
    variables = {**environment(str(tmp_path)), "PYTHONPATH": str(ROOT / "src")}
    variables["TENANTRY_DATABASE_URL"] = "sqlite:///app.db"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'tenantry[alembic]'" in done.stderr


def test_on_sqlite_no_driver_is_needed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANTRY_DATABASE_URL", f"sqlite:///{tmp_path / 'app.db'}")
    cli("migrate", "init", "--models", NAME)
    cli("migrate", "new", "first")
    assert len(cli.json("migrate", "upgrade")["applied"]) == 1
    assert cli.json("migrate", "status")["ok"]
