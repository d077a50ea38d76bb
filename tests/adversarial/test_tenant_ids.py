"""A tenant id is data: what cannot be one is refused before anything is asked of a database."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import MultiTenantSDK, TenantContext
from tenantry.databases.memory import MemoryAdapter
from tenantry.errors import InvalidTenantId
from tenantry.tenants import TenantManager
from tenantry.types import tenant_id
from tests.adversarial.hostile import NOT_TENANT_IDS
from tests.adversarial.models import MODELS


def _refuse(*_: object) -> NoReturn:
    pytest.fail("the database was asked")


METHODS = ("fetch", "select", "count", "execute", "transaction")


@pytest.mark.parametrize("id", NOT_TENANT_IDS, ids=lambda id: ascii(id)[:20])
class TestAHostileId:
    def test_names_no_context(self, id: Any) -> None:
        with pytest.raises(InvalidTenantId):
            TenantContext(id)

    async def test_opens_no_handle(self, monkeypatch: pytest.MonkeyPatch, id: Any) -> None:
        async with MultiTenantSDK.open("memory://", models=MODELS) as sdk:
            for method in METHODS:
                monkeypatch.setattr(MemoryAdapter, method, _refuse)
            with pytest.raises(InvalidTenantId):
                sdk.tenant(id)
            if id is not None:  # which narrows to nobody
                with pytest.raises(InvalidTenantId):
                    await sdk.system(reason="hostile", tenant=id).__aenter__()

    async def test_reaches_no_directory(self, monkeypatch: pytest.MonkeyPatch, id: Any) -> None:
        async with MultiTenantSDK.open("memory://", models=MODELS) as sdk:
            for method in METHODS:
                monkeypatch.setattr(MemoryAdapter, method, _refuse)
            await self._refuses_all(sdk.tenants, id)

    async def _refuses_all(self, tenants: TenantManager, id: Any) -> None:
        calls: tuple[Any, ...] = (
            lambda: tenants.create(id),
            lambda: tenants.get(id),
            lambda: tenants.update(id, name="x"),
            lambda: tenants.suspend(id, reason="x"),
            lambda: tenants.resume(id),
            lambda: tenants.delete(id, reason="x"),
            lambda: tenants.purge(id),
        )
        for call in calls:
            with pytest.raises(InvalidTenantId) as caught:
                await call()
            assert len(str(caught.value)) < 300


@given(st.text())
def test_an_id_is_kept_as_it_is_or_refused(text: str) -> None:
    try:
        kept = tenant_id(text)
    except InvalidTenantId:
        return
    assert kept == text
    assert kept.isascii()
    assert 1 <= len(kept) <= 63
    assert not set(kept) & set("|:/\\{}'\"\0 %*")
