"""The configuration: known options, from three sources, and nothing that would be stored and ignored."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pydantic
import pytest

from tenantry import Model, MultiTenantSDK
from tenantry.config import DatabaseConfig, PerformanceConfig, Settings, load_settings
from tenantry.errors import Closed, ConfigurationError, MissingExtra, SchemaMismatch
from tenantry.registry import adapter_for

SECRET = "hunter2-s3cret"


class Thing(Model):
    __collection__ = "things"
    name: str = ""


def open_with(sections: dict[str, Any]) -> MultiTenantSDK:
    return MultiTenantSDK.open("memory://", env={}, **sections)


class TestSources:
    def test_nothing_given_is_the_defaults(self) -> None:
        assert load_settings(env={}) == Settings()

    def test_arguments_win_over_the_environment_and_that_over_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "tenantry.toml"
        file.write_text(
            '[database]\nurl = "file"\npool_size = 1\nreaders = 1\n[performance]\ncoalesce = false\n'
        )
        env = {"TENANTRY_DATABASE_POOL_SIZE": "2", "TENANTRY_DATABASE_READERS": "2", "PATH": "/bin"}
        settings = load_settings({"database": {"readers": 3}}, toml=file, env=env)
        assert settings.database.url.get_secret_value() == "file"
        assert (settings.database.pool_size, settings.database.readers) == (2, 3)
        assert settings.performance.coalesce is False

    def test_none_is_not_given(self) -> None:
        env = {"TENANTRY_DATABASE_URL": "from the environment"}
        settings = load_settings({"database": {"url": None}}, env=env)
        assert settings.database.url.get_secret_value() == "from the environment"

    def test_the_processs_environment_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TENANTRY_PERFORMANCE_LEASE_SECONDS", "0.5")
        assert load_settings().performance.lease_seconds == 0.5

    @pytest.mark.parametrize("name", [*DatabaseConfig.model_fields])
    def test_every_option_of_the_database_has_a_variable(self, name: str) -> None:
        value = {"schema_mode": "create", "durability": "full"}.get(name, "7")
        settings = load_settings(env={f"TENANTRY_DATABASE_{name.upper()}": value})
        assert name in settings.database.model_fields_set

    def test_every_option_is_described(self) -> None:
        for section in (DatabaseConfig, PerformanceConfig):
            for name in section.model_fields:
                assert f"        {name}: " in (section.__doc__ or "")

    def test_settings_do_not_change(self) -> None:
        settings = load_settings(env={})
        for section, option in (
            (settings, "database"),
            (settings.database, "url"),
            (settings.performance, "coalesce"),
        ):
            with pytest.raises(pydantic.ValidationError):
                setattr(section, option, "other")


class TestRefusals:
    @pytest.mark.parametrize(
        ("sections", "field"),
        [
            ({"nothing": {}}, "nothing"),
            ({"Database": {}}, "Database"),
            ({"database": {"nothing": 1}}, "database.nothing"),
            ({"database": {"URL": "x"}}, "database.URL"),
            ({"database": {5: 1}}, "database.5"),
            ({"database": "memory://"}, "database"),
            ({"database": [("url", "x")]}, "database"),
            ({"cache": {"url": "redis://"}}, "cache"),
            ({"analytics": {}}, "analytics"),
            ({"multi_region": {}}, "multi_region"),
            ({"graphql": {}}, "graphql"),
            ({"security": {}}, "security"),
            ({"database": {"shards": 2}}, "database.shards"),
            ({"performance": {"use_cache": True}}, "performance.use_cache"),
            ({"database": {"pool_size": 0}}, "database.pool_size"),
            ({"database": {"pool_size": "many"}}, "database.pool_size"),
            ({"database": {"timeout": -1}}, "database.timeout"),
            ({"database": {"timeout": float("inf")}}, "database.timeout"),
            ({"database": {"timeout": float("nan")}}, "database.timeout"),
            ({"database": {"schema_mode": "drop"}}, "database.schema_mode"),
            ({"database": {"durability": "none"}}, "database.durability"),
            ({"performance": {"lease_seconds": 1.5}}, "performance.lease_seconds"),
            ({"performance": {"lease_seconds": 0}}, "performance.lease_seconds"),
            ({"performance": {"coalesce": "perhaps"}}, "performance.coalesce"),
        ],
        ids=str,
    )
    def test_a_wrong_option_is_refused_by_name(self, sections: dict[str, Any], field: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            load_settings(sections, env={})
        assert refused.value.field == field
        assert field.rpartition(".")[2] in str(refused.value)

    @pytest.mark.parametrize("part", ["cache", "analytics", "multi_region", "graphql", "security"])
    def test_a_part_that_is_not_built_says_so(self, part: str) -> None:
        for attempt in (
            lambda: load_settings({part: {"any": 1}}, env={}),
            lambda: load_settings(env={f"TENANTRY_{part.upper()}_URL": "x"}),
            lambda: open_with({part: {"url": "x"}}),
        ):
            with pytest.raises(ConfigurationError, match="not built yet"):
                attempt()
        open_with({part: None})

    @pytest.mark.parametrize(
        ("variable", "field"),
        [
            ("TENANTRY_DATABASE_NOTHING", "database.nothing"),
            ("TENANTRY_DATABSE_URL", "TENANTRY_DATABSE_URL"),
            ("TENANTRY_URL", "TENANTRY_URL"),
            ("TENANTRY_DATABASE", "TENANTRY_DATABASE"),
        ],
    )
    def test_a_variable_that_is_no_option_is_refused(self, variable: str, field: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            load_settings(env={variable: SECRET})
        assert refused.value.field == field
        assert SECRET not in str(refused.value)

    @pytest.mark.parametrize(
        "text", ["database = 5", "= broken", "[database]\nnothing = 1", "[nothing]", "top = 1", "\xff"]
    )
    def test_a_file_that_is_wrong(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "tenantry.toml"
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigurationError):
            load_settings(toml=file, env={})

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"missing\.toml"):
            load_settings(toml=tmp_path / "missing.toml", env={})


class TestSecrets:
    def test_none_is_in_what_settings_show(self) -> None:
        names = ["url", "control_url", "raw_url", "owner_url", "seal_key"]
        settings = load_settings({"database": dict.fromkeys(names, SECRET)}, env={})
        shown = [
            repr(settings),
            str(settings),
            f"{settings.database!r}",
            json.dumps(settings.model_dump(mode="json")),
        ]
        shown += [
            repr(settings.model_dump()),
            settings.model_dump_json(),
            f"{list(settings.database.__repr_args__())!r}",
        ]
        assert all(SECRET not in text for text in shown)
        assert all(getattr(settings.database, name).get_secret_value() == SECRET for name in names)

    def test_none_is_in_what_the_sdk_shows(self) -> None:
        sdk = MultiTenantSDK.open(f"postgresql://app:{SECRET}@host/db", database={"seal_key": SECRET}, env={})
        assert SECRET not in repr(sdk)
        assert SECRET not in repr(vars(sdk))

    def test_settings_travel_to_another_process(self) -> None:
        settings = load_settings({"database": {"url": SECRET}}, env={})
        assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - it was pickled here


class TestOpening:
    async def test_a_database_must_be_named(self) -> None:
        with pytest.raises(ConfigurationError, match="TENANTRY_DATABASE_URL") as refused:
            await MultiTenantSDK.open(env={}).initialize()
        assert refused.value.field == "database.url"

    async def test_it_may_be_named_by_the_environment_alone(self) -> None:
        async with MultiTenantSDK.open(models=[Thing], env={"TENANTRY_DATABASE_URL": "memory://"}) as sdk:
            assert (await sdk.tenants.create("acme")).id == "acme"

    @pytest.mark.parametrize("url", ["oracle://x", "://", "", " memory://", "http://x"])
    def test_a_scheme_that_nobody_serves(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="memory://") as refused:
            adapter_for(url)
        assert refused.value.field == "database.url"

    def test_schemes_have_no_case(self) -> None:
        assert adapter_for("MEMORY://") is adapter_for("memory://")

    def test_a_driver_that_is_missing_names_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        for name in [name for name in sys.modules if name.startswith("tenantry.databases.postgres")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "asyncpg", None)
        with pytest.raises(MissingExtra, match=r"pip install 'tenantry\[postgres\]'"):
            adapter_for("postgresql://x")

    async def test_tables_are_made_only_when_asked(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/app.db"
        with pytest.raises(SchemaMismatch, match='schema="create"') as refused:
            await MultiTenantSDK.open(url, models=[Thing], env={}).initialize()
        assert "table things is missing" in refused.value.differences
        async with MultiTenantSDK.open(url, models=[Thing], schema="create", env={}):
            pass
        async with MultiTenantSDK.open(url, models=[Thing], env={}):
            pass

    async def test_initialising_twice_and_closing_twice_is_fine(self) -> None:
        sdk = MultiTenantSDK.open("memory://", models=[Thing], env={})
        with pytest.raises(Closed):
            sdk.tenants  # noqa: B018 - reading it is the call
        await sdk.initialize()
        await sdk.initialize()
        await sdk.tenants.create("acme")
        await sdk.close()
        await sdk.close()

    async def test_health_tells_of_services_that_are_away_and_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tenantry.errors import DatabaseUnavailable

        told: list[tuple[str, str]] = []
        async with MultiTenantSDK.open("memory://", models=[Thing], env={}) as sdk:
            sdk.on("health.degraded", lambda service: told.append(("degraded", service)))
            sdk.on("health.recovered", lambda service: told.append(("recovered", service)))
            with pytest.raises(ConfigurationError):
                sdk.on("health.bogus", lambda _: None)  # type: ignore[arg-type]

            async def away(*_: Any) -> Any:
                raise DatabaseUnavailable("gone")

            await sdk.get_health()
            with monkeypatch.context() as patch:
                patch.setattr(sdk._database, "check_schema", away)
                await sdk.get_health()
                health = await sdk.get_health()
                assert health["database"] == {"status": "degraded", "error": "gone"}
                assert health["directory"]["status"] == "ok"
            await sdk.get_health()
        assert told == [("degraded", "database"), ("recovered", "database")]
