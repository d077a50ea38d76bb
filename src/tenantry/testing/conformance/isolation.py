"""What one tenant can learn of another, by any argument: nothing. What the system can do: read, and say why."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tenantry.context import SystemContext, TenantContext, use_context
from tenantry.errors import (
    Closed,
    ContextMismatch,
    InvalidQuery,
    InvalidRecord,
    IsolationError,
    NotFound,
    TenantRequired,
    TenantryError,
    Unavailable,
    UnknownCollection,
    Unsupported,
)
from tenantry.ports import Capability, Update
from tenantry.sdk import MultiTenantSDK, SystemHandle, TenantHandle
from tenantry.tenants import AUDIT
from tenantry.testing.conformance.setting import Setting, fresh
from tenantry.testing.isolation import assert_isolated
from tenantry.testing.models import Author, Book, Country, Note, Sample

HOSTILE_TEXTS = [
    "' OR '1'='1",
    "x'; DROP TABLE notes; --",
    '" OR ""="',
    "') OR tenant_id IS NOT NULL --",
    "\\' OR 1=1 --",
    "%",
    "_",
    "*",
    "$1",
    "{0}",
    "%(tenant_id)s",
    ":tenant",
    "?",
    "1 UNION SELECT * FROM notes",
    "ʼ; SELECT 1",
    "\u202e",
    "null",
    "None",
    "true",
    "[object Object]",
    "NaN",
]


class Isolation(Setting):
    """Hostile ids, filters and contexts; the system's own work; an SDK that is closed."""

    async def test_no_tenant_reaches_another_by_any_public_call(self, sdk: MultiTenantSDK) -> None:
        await assert_isolated(sdk)

    # -- who asks

    async def test_without_a_tenant_there_is_nothing(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        await acme.data.create(Note(id="n"))
        for context in (None, "acme", acme.context.tenant_id, object()):
            for call in (
                sdk.data.get(Note, "n", context=context),  # type: ignore[call-overload]
                sdk.data.read(Note, context=context),  # type: ignore[call-overload]
                sdk.data.count(Note, context=context),  # type: ignore[arg-type]
                sdk.data.create(Note(id="m"), context=context),  # type: ignore[call-overload]
                sdk.data.delete(Note, "n", context=context),  # type: ignore[call-overload]
                sdk.data.sql("SELECT 1", context=context),  # type: ignore[arg-type]
            ):
                with pytest.raises(TenantRequired):
                    await call
        assert await acme.data.count(Note) == 1

    async def test_a_handle_ignores_the_ambient_tenant_and_refuses_another(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        await acme.data.create(Note(id="n", text="ours"))
        with use_context(acme.context):
            assert (await sdk.data.get(Note, "n")).text == "ours"
            assert await acme.data.count(Note) == 1
            for manager, context in ((globex.data, None), (sdk.data, globex.context)):
                with pytest.raises(ContextMismatch):
                    await manager.count(Note, context=context)
        with pytest.raises(ContextMismatch):
            await acme.data.count(Note, context=globex.context)
        assert await sdk.data.count(Note, context=globex.context) == 0

    async def test_users_of_a_tenant_share_its_rows(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        note = await acme.data.create(Note(id="n"))
        user = sdk.tenant(acme.context.tenant_id, user="u", claims={"role": "reader", "teams": [1, 2]})
        assert await user.data.get(Note, "n") == note

    # -- hostile values

    @pytest.mark.parametrize("text", HOSTILE_TEXTS)
    async def test_hostile_text_is_only_text(
        self, acme: TenantHandle, globex: TenantHandle, text: str
    ) -> None:
        await globex.data.create(Note(id="theirs", text="secret"))
        await globex.data.create(Sample(label="secret", data={text: "secret"}, labels=[text]))
        with pytest.raises(NotFound):
            await acme.data.get(Note, text)
        for where in (
            {"id": text},
            {"text": text},
            {"id": {"in": [text]}},
            {"text": {"contains": text}},
            {"text": {"starts_with": text}},
            {"text": {"ends_with": text}},
            {"text": {"ilike": text if not text.endswith("\\") else "%"}},
            {"or": [{"text": text}, {"not": {"text": text}}]},
        ):
            assert list(await acme.data.read(Note, where)) == []
            assert await acme.data.count(Note, where) == 0
        assert await acme.data.count(Sample, {"labels": {"contains": text}}) == 0
        note = await acme.data.create(Note(id=text, text=text))
        assert await acme.data.get(Note, text) == note
        assert await acme.data.update(note, text=text + text) == await acme.data.get(Note, text)
        assert (await acme.data.upsert(Note(id=text, text=text))).version == 3
        await acme.data.delete(Note, text)
        assert [row.id for row in await globex.data.read(Note)] == ["theirs"]

    @pytest.mark.parametrize("text", HOSTILE_TEXTS)
    async def test_hostile_names_are_refused_or_find_nothing(
        self, acme: TenantHandle, globex: TenantHandle, text: str
    ) -> None:
        await globex.data.create(Sample(label="secret", data={"a": "secret"}))
        wheres: list[Any] = [{text: 1}, {"label": {text: 1}}, lambda s: s.data[text] == "secret"]
        for where in (*wheres, {f"data.{text}": "secret"}, {"label": {"eq": {text: 1}}}):
            with suppress(InvalidQuery):
                assert list(await acme.data.read(Sample, where)) == []
        for call in (
            acme.data.read("samples", order_by=[text]),
            acme.data.read("samples", fields=[text]),
            acme.data.read("samples", include=[text]),
            acme.data.read("samples", cursor=text),
            acme.data.upsert("samples", {}, on=[text]),
        ):
            with pytest.raises(InvalidQuery):
                await call
        for unknown in (acme.data.read(text), acme.data.create(text, {})):
            with pytest.raises(UnknownCollection):
                await unknown
        with pytest.raises(InvalidRecord):
            await acme.data.create("samples", {text: 1})

    @pytest.mark.parametrize(
        "id",
        [None, 5, 1.5, True, b"x", "", "not-a-uuid", "0" * 33, [], {}, object(), "x" * 10_000_000],
        ids=lambda i: repr(i)[:16],
    )
    async def test_an_id_of_another_type_is_refused_without_a_look(self, acme: TenantHandle, id: Any) -> None:
        for call in (
            acme.data.get(Book, id),
            acme.data.update(Book, id, title="x"),
            acme.data.delete(Book, id),
        ):
            with pytest.raises(InvalidQuery) as refused:
                await call
            assert refused.value.path == "id"

    # -- errors as oracles

    async def test_a_foreign_row_reads_like_a_missing_one(
        self, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        theirs = await globex.data.create(Book(title="secret", isbn="1"))
        missing = uuid.uuid4()
        attempts: list[Callable[[uuid.UUID], Awaitable[object]]] = [
            lambda id: acme.data.get(Book, id),
            lambda id: acme.data.update(Book, id, title="x"),
            lambda id: acme.data.update(Book, id, {"title": "x"}, version=1),
            lambda id: acme.data.update(Book, id, {"title": "x"}, version=99),
            lambda id: acme.data.update(theirs.model_copy(update={"id": id}), title="x"),
            lambda id: acme.data.delete(Book, id),
            lambda id: acme.data.delete(Book, id, version=99),
        ]
        for attempt in attempts:
            heard = []
            for id in (theirs.id, missing):
                with pytest.raises(TenantryError) as refused:
                    await attempt(id)
                heard.append(
                    (type(refused.value), str(refused.value).replace(str(id), "…"), refused.value.__cause__)
                )
            assert heard[0] == heard[1]
        assert await globex.data.get(Book, theirs.id) == theirs

    # -- the system

    async def test_the_system_reads_every_tenants_rows_with_their_tenant(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        ids = {acme.context.tenant_id, globex.context.tenant_id}
        label = fresh("system")
        for handle in (acme, globex):
            await handle.data.bulk_create(
                (Sample(label=label, number=number) for number in range(3)), atomic=True
            )
        async with sdk.system(reason="count", actor="ops") as system:
            rows = await system.data.read("samples", {"label": label}, order_by="number")
            assert sorted((row["tenant_id"], row["number"]) for row in rows) == sorted(
                (id, number) for id in ids for number in range(3)
            )
            assert await system.data.count("samples", {"label": label}) == 6
            narrow = await system.data.read(
                "samples", {"label": label}, fields=["number"], order_by="number", limit=1
            )
            assert set(narrow[0]) == {"tenant_id", "number"}
        async with sdk.system(reason="count", tenant=acme.context.tenant_id) as system:
            rows = await system.data.read("samples", {"label": label})
            assert {row["tenant_id"] for row in rows} == {acme.context.tenant_id}
            assert await system.data.count(Sample, {"label": label}) == 3

    async def test_the_systems_pages_are_whole_though_tenants_share_ids(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        prefix = fresh("page")
        for handle in (acme, globex):
            await handle.data.bulk_create(
                (Note(id=f"{prefix}{number}", text=prefix) for number in range(5)), atomic=True
            )
        async with sdk.system(reason="pages") as system:
            for order in ("id", "-text", None):
                seen: list[tuple[str, str]] = []
                cursor = None
                for _ in range(30):
                    page = await system.data.read(
                        "notes", {"text": prefix}, order_by=order, limit=1, cursor=cursor
                    )
                    seen += [(row["tenant_id"], row["id"]) for row in page]
                    cursor = page.next_cursor
                    if cursor is None:
                        break
                assert len(seen) == len(set(seen)) == 10

    async def test_the_system_gets_rows_of_tenants_as_records_with_their_tenant(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        note = await acme.data.create(Note(id=fresh("one")))
        id = acme.context.tenant_id
        async with sdk.system(reason="look", tenant=id) as system:
            assert await system.data.get("notes", note.id) == {"tenant_id": id, **note.model_dump()}
            for call in (system.data.get(Note, note.id), system.data.read(Note)):
                with pytest.raises(Unsupported):
                    await call
        await globex.data.create(note)
        async with sdk.system(reason="look") as system:
            with pytest.raises(Unsupported, match="Several tenants"):
                await system.data.get("notes", note.id)
            assert len(await system.data.read("notes", {"id": note.id})) == 2
        await globex.data.delete(Note, note.id)
        async with sdk.system(reason="look", tenant=globex.context.tenant_id) as system:
            with pytest.raises(NotFound):
                await system.data.get("notes", note.id)

    async def test_the_system_writes_shared_rows_and_no_tenants(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        note = await acme.data.create(Note(id="n"))
        async with sdk.system(reason="try", tenant=acme.context.tenant_id) as system:
            for call in (
                system.data.create(Note(id="m")),
                system.data.bulk_create([Note(id="m")], atomic=True),
                system.data.update(note, text="x"),
                system.data.upsert(Note(id="n", text="x")),
                system.data.delete(note),
            ):
                with pytest.raises(IsolationError):
                    await call
            with pytest.raises(Unsupported):
                await system.data.create(Country(id="x", name="x"), idempotency_key="k")
            with pytest.raises(Unsupported):
                await system.data.sql("SELECT 1")
            country = await system.data.create(Country(id=fresh("c"), name="C"))
            country = await system.data.update(country, name="D")
            assert await acme.data.get(Country, country.id) == country
            await system.data.delete(country)
        assert await acme.data.get(Note, "n") == note

    async def test_the_systems_work_is_recorded_before_it_begins(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        reason = fresh("why")
        id = acme.context.tenant_id
        async with sdk.system(reason=reason, actor="ops", tenant=id) as system:
            found = await system.data.read("tenantry_audit", {"reason": reason})
            assert [(row["actor"], row["action"], row["tenant"]) for row in found] == [("ops", "system", id)]
        with pytest.raises(KeyError):
            await self._failed(sdk, reason)
        async with sdk.system(reason="look") as system:
            assert await system.data.count("tenantry_audit", {"reason": reason}) == 2

    @staticmethod
    async def _failed(sdk: MultiTenantSDK, reason: str) -> None:
        async with sdk.system(reason=reason):
            raise KeyError

    async def test_changes_of_status_are_recorded_with_their_reason(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        reason = fresh("why")
        await sdk.tenants.suspend(acme.context.tenant_id, reason=reason)
        async with sdk.system(reason="look") as system:
            found = await system.data.read("tenantry_audit", {"reason": reason})
        assert [(row["action"], row["tenant"]) for row in found] == [("suspended", acme.context.tenant_id)]

    async def test_nobody_writes_the_audit_log_by_hand(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        async with sdk.system(reason="look") as system:
            row = (await system.data.read("tenantry_audit", order_by="-created_at", limit=1))[0]
            for data in (system.data, acme.data):
                for call in (
                    data.create("tenantry_audit", {"reason": "forged", "action": "none"}),
                    data.update("tenantry_audit", row["id"], {"reason": "other"}),
                    data.upsert("tenantry_audit", {"id": row["id"], "reason": "other", "action": "none"}),
                    data.delete("tenantry_audit", row["id"]),
                ):
                    with pytest.raises(UnknownCollection):
                        await call
            assert await system.data.get("tenantry_audit", row["id"]) == row

    @pytest.mark.parametrize("reason", ["", "   ", "\n"])
    async def test_the_system_says_why(self, sdk: MultiTenantSDK, reason: str) -> None:
        with pytest.raises(InvalidRecord):
            async with sdk.system(reason=reason):
                pass

    async def test_a_system_context_serves_inside_its_block_only(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        await acme.data.create(Note(id="n"))
        kept: list[SystemHandle] = []
        async with sdk.system(reason="look") as system:
            kept.append(system)
            forged = SystemContext(system.context.reason, system.context.actor, system.context.tenant_id)
            with pytest.raises(IsolationError):
                await sdk.data.read("notes", context=forged)
            with pytest.raises(IsolationError):
                sdk.data.bind(forged)
            assert await sdk.data.count(Note, context=system.context) >= 1
        for call in (
            kept[0].data.read("notes"),
            kept[0].data.count(Note),
            kept[0].data.get(Country, "x"),
            kept[0].data.create(Country(id="x", name="x")),
            sdk.data.read("notes", context=kept[0].context),
        ):
            with pytest.raises(IsolationError):
                await call

    async def test_no_tenant_reaches_the_sdks_own_tables(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        """Not even below the SDK, where a hook may write."""
        for own in ("tenantry_tenants", "tenantry_epoch", "tenantry_audit", "tenantry_idempotency"):
            with pytest.raises(UnknownCollection):
                await acme.data.count(own)
        database = sdk._database
        assert database is not None
        for call in (
            database.fetch(acme.context, AUDIT, [uuid.uuid4()]),
            database.select(acme.context, _audited("x")),
            database.count(acme.context, _audited("x")),
            database.execute(acme.context, [Update(AUDIT, uuid.uuid4(), {})]),
        ):
            with pytest.raises(IsolationError):
                await call

    # -- raw SQL, health, the end

    async def test_raw_sql_is_held_to_the_tenant_or_refused(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        await acme.data.create(Note(id="ours"))
        await globex.data.create(Note(id="theirs"))
        if Capability.RAW_SQL not in sdk.capabilities:
            with pytest.raises(Unsupported):
                await acme.data.sql("SELECT id FROM notes")
            return
        assert await acme.data.sql("SELECT id FROM notes") == [{"id": "ours"}]
        assert await globex.data.sql("SELECT id FROM notes WHERE id LIKE $1", ["%"]) == [{"id": "theirs"}]

    async def test_health_and_metrics(self, sdk: MultiTenantSDK, acme: TenantHandle) -> None:
        before = sdk.get_metrics().get("count.authors", {"count": 0})["count"]
        await acme.data.count(Author)
        health = await sdk.get_health()
        assert {name: service["status"] for name, service in health.items()} == {
            "database": "ok",
            "directory": "ok",
        }
        assert sdk.get_metrics()["count.authors"]["count"] == before + 1

    async def test_a_closed_sdk_serves_nobody(self, database_config: dict[str, object]) -> None:
        async with self.open_database(database_config) as sdk:
            acme = await self.new_tenant(sdk, "acme")
            note = await acme.data.create(Note(id="n"))
            tenants, data = sdk.tenants, sdk.data
        await sdk.close()
        for call in (
            acme.data.get(Note, "n"),
            acme.data.read(Note),
            acme.data.count(Note),
            acme.data.create(Note(id="m")),
            acme.data.update(note, text="x"),
            acme.data.delete(note),
            acme.data.sql("SELECT 1"),
            data.count(Note, context=TenantContext(acme.context.tenant_id)),
            tenants.get(acme.context.tenant_id),
            tenants.create(fresh("late")),
            tenants.suspend(acme.context.tenant_id, reason="late"),
        ):
            with pytest.raises((Unavailable, Unsupported)):
                await call
        for use in (lambda: sdk.data, lambda: sdk.tenants, lambda: sdk.capabilities, lambda: sdk.tenant("a")):
            with pytest.raises(Closed):
                use()
        with pytest.raises(Closed):
            async with sdk.system(reason="late"):
                pass
        with pytest.raises(Closed):
            await sdk.get_health()
        with pytest.raises(Unavailable):
            async with acme.data.transaction():
                pass


def _audited(reason: str) -> Any:
    from tenantry.query import Comparison, Query

    return Query(AUDIT, tuple(AUDIT.fields.values()), Comparison(AUDIT.fields["reason"], "eq", reason))
