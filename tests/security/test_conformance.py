"""The public conformance suite behind a policy that allows everything: a guard changes nothing that it allows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from tenantry import MultiTenantSDK
from tenantry.context import TenantContext
from tenantry.security.access import AccessPolicy, Role, allow, allow_all
from tenantry.testing.conformance import Conformance
from tenantry.testing.conformance.constraints import Constraints
from tenantry.testing.conformance.isolation import Isolation
from tenantry.testing.conformance.pages import Pages
from tenantry.testing.conformance.rows import Rows
from tenantry.testing.conformance.setting import Setting
from tenantry.testing.conformance.transactions import Transactions
from tenantry.testing.models import MODELS

# Who sees only some of the rows finds no words that are merely alike, since the choice of them would tell of other
# rows; and deletes for good only row by row. Both are tested beside the policy's own rules.
OF_ALL_ROWS = frozenset(
    {
        "test_rows_scores_and_order_are_those_of_the_model",
        "test_a_mistyped_word_finds_similar_ones",
        "test_nothing_of_another_tenant_shows",
        "test_purging_spares_what_lives_what_is_young_and_what_is_referred_to",
    }
)


class Everyone:
    """Gives every context the same role, users or not."""

    async def roles(self, context: TenantContext) -> frozenset[str]:
        return frozenset({"everyone"})


class Narrowed(Setting):
    """Everything is allowed in a roundabout way: each read is narrowed, each row that is written looked at again."""

    @classmethod
    @asynccontextmanager
    async def open_database(cls, config: Mapping[str, Any], **more: Any) -> AsyncIterator[MultiTenantSDK]:
        rule = allow(
            ["read", "create", "update", "delete"],
            *more.get("models", MODELS),
            where={"version": {"gte": 0}},
        )
        policy = AccessPolicy(Role("everyone", rule, allow("raw")), source=Everyone())
        async with super().open_database(config, **{"access": policy, **more}) as sdk:
            yield sdk


class TestAllowed(Rows, Pages, Transactions, Isolation):
    config: ClassVar[Mapping[str, Any]] = {
        "url": "memory://",
        "access": AccessPolicy(Role("everyone", allow_all(), allow("raw")), source=Everyone()),
    }


class TestNarrowed(Narrowed, Conformance):
    config: ClassVar[Mapping[str, Any]] = {"url": "memory://"}

    @pytest.fixture(autouse=True)
    def _spared(self, request: pytest.FixtureRequest) -> None:
        if request.node.name in OF_ALL_ROWS:
            pytest.skip("it is for users who see all rows")


class TestNarrowedSQLite(Narrowed, Rows, Pages, Constraints, Transactions):
    @pytest.fixture(scope="class")
    @classmethod
    def database_config(cls, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
        return {"url": f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/data.db"}
