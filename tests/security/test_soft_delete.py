"""To delete softly, to restore and to purge takes the right to delete, and no other."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator

import pytest

from tenantry import Model, MultiTenantSDK, SoftDelete
from tenantry.errors import AccessDenied, NotFound
from tenantry.security.access import AccessPolicy, Role, allow, allow_all


class Draft(SoftDelete, Model):
    __collection__ = "drafts"

    owner: str


POLICY = AccessPolicy(
    Role("admin", allow_all()),
    Role("editor", allow(["read", "create", "update"], Draft)),
    Role("sweeper", allow(["read", "delete"], Draft)),
    Role("owner", allow(["read", "update", "delete"], Draft, where=lambda d, user: d.owner == user.id)),
)


@pytest.fixture(params=["memory", "sqlite"])
async def sdk(request: pytest.FixtureRequest, tmp_path: object) -> AsyncIterator[MultiTenantSDK]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/drafts.db"
    async with MultiTenantSDK.open(url, models=[Draft], schema="create", access=POLICY, env={}) as sdk:
        await sdk.tenants.create("acme")
        yield sdk


async def test_it_takes_the_right_to_delete(sdk: MultiTenantSDK) -> None:
    admin, editor, sweeper, ann = (
        sdk.tenant("acme", user=user, claims={"roles": [role]}).data
        for user, role in (("a", "admin"), ("e", "editor"), ("s", "sweeper"), ("ann", "owner"))
    )
    own, other = (await admin.bulk_create([Draft(owner="ann"), Draft(owner="bob")])).rows
    with pytest.raises(AccessDenied):
        await editor.delete(own)
    assert type((await editor.bulk_delete([own]))[0].error) is AccessDenied
    await sweeper.delete(own)
    with pytest.raises(AccessDenied):
        await editor.restore(Draft, own.id)
    assert (await ann.restore(Draft, own.id)).version == 3
    await admin.delete(other)
    with pytest.raises(NotFound):
        await ann.restore(Draft, other.id)
    with pytest.raises(NotFound):
        await ann.delete(Draft, other.id, permanently=True)
    assert await ann.count(Draft, deleted="with") == 1
    await ann.delete(Draft, own.id)
    for few in (ann, editor):
        with pytest.raises(AccessDenied):
            await few.purge_deleted(Draft, older_than=dt.timedelta())
    assert await admin.count(Draft, deleted="only") == 2
    assert await sweeper.purge_deleted(Draft, older_than=dt.timedelta()) == 2
