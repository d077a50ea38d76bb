"""What the insights see of queries: their shape, and of rows none but the tenant's own."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Any

import pytest

from tenantry.context import SystemContext
from tenantry.insights import INSIGHTS
from tenantry.ports import Explains, Indexes
from tenantry.query import Query
from tenantry.schema import collection_of
from tenantry.sdk import MultiTenantSDK, TenantHandle
from tenantry.testing.conformance.setting import Setting
from tenantry.testing.models import Note

_NOTES = collection_of(Note)


class Insights(Setting):
    """Queries are counted by shape, without values, and explained for their tenant alone."""

    async def test_queries_are_counted_by_shape_and_nothing_of_a_tenant_is_kept(
        self, sdk: MultiTenantSDK, acme: TenantHandle
    ) -> None:
        canary = f"canary{secrets.token_hex(6)}"
        before = await self._count(sdk)
        for number in range(3):
            await acme.data.create(Note(id=f"{canary}{number}", text=canary))
            await acme.data.read(
                Note, {"text": f"{canary}{number}", "id": {"in": [canary]}}, limit=7 + number
            )
        assert await self._count(sdk) == before + 3
        await sdk.insights.flush()
        context = SystemContext(reason="conformance")
        rows = await sdk._watch.database.select(context, Query(INSIGHTS, tuple(INSIGHTS.fields.values())))
        assert rows
        assert canary not in str(rows)
        assert acme.context.tenant_id not in str(rows)

    async def _count(self, sdk: MultiTenantSDK) -> int:
        report = await sdk.insights.report(since=dt.timedelta(hours=1))
        wanted = "read notes where id in and text eq by id limit ?"
        return sum(shape.count for shape in report.shapes if shape.shape == wanted)

    async def test_a_query_is_explained_for_its_tenant_alone(
        self, sdk: MultiTenantSDK, acme: TenantHandle, globex: TenantHandle
    ) -> None:
        database: Any = sdk._watch.database
        if not isinstance(database, Explains):
            pytest.skip("the database does not say how it runs a query")
        await acme.data.bulk_create([Note(id=f"n{number}", text="x") for number in range(7)])
        await globex.data.bulk_create([Note(id=f"n{number}", text="x") for number in range(40)])
        everything = Query(_NOTES, tuple(_NOTES.fields.values()))
        for handle, own in ((acme, 7), (globex, 40)):
            plan = await database.explain(handle.context, everything, count=True, seconds=10.0)
            assert plan.node
            assert plan.kept in (None, own)

    async def test_an_index_is_made_found_and_dropped(self, sdk: MultiTenantSDK) -> None:
        database: Any = sdk._watch.database
        if not isinstance(database, Indexes):
            pytest.skip("the database has no indexes")
        index, ddl = database.advised(_NOTES, ["text", "version"])
        assert index.columns == ("tenant_id", "text", "version")
        assert index.name in ddl
        try:
            assert await database.create_index(index, lambda *_: None)
            assert not await database.create_index(index, lambda *_: None)
            found = {item.name: item for item in (await database.indexes()).indexes}
            assert found[index.name].columns == index.columns
            assert (found[index.name].unique, found[index.name].required) == (False, False)
            assert any(item.unique and item.table == index.table for item in found.values())
        finally:
            await database.drop_index(index)
        assert index.name not in {item.name for item in (await database.indexes()).indexes}
