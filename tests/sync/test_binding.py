"""A connection of synchronous code's own is held to one tenant: in any thread, after a fork, until the SDK closes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tenantry import use_context
from tenantry.errors import Closed, ContextMismatch, TenantNotFound, TenantSuspended, Unsupported
from tenantry.sync import MultiTenantSDK
from tenantry.testing.models import Note
from tests.sync.children import in_child

IDS = "SELECT id FROM notes ORDER BY id"


class Desk:
    """An open SDK with two tenants, which have notes with the same ids."""

    def __init__(self, sdk: MultiTenantSDK, raw_url: str) -> None:
        self.sdk = sdk
        self.raw_url = raw_url

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.raw_url, autocommit=True)

    def ids(self, tenant: str) -> list[str]:
        with self.connect() as connection, self.sdk.bind(connection, tenant):
            return [row[0] for row in connection.execute(IDS).fetchall()]


@pytest.fixture
def desk(postgres_options: Mapping[str, Any]) -> Iterator[Desk]:
    with MultiTenantSDK.open(**postgres_options) as sdk:
        for tenant in ("acme", "globex"):
            sdk.tenants.create(tenant)
            for id in ("shared", tenant):
                sdk.tenant(tenant).data.create(Note(id=id, text=tenant))
        yield Desk(sdk, postgres_options["database"]["raw_url"])


def test_it_is_bound_in_the_thread_that_has_it(desk: Desk) -> None:
    with desk.connect() as connection:
        with desk.sdk.bind(connection, "acme") as bound:
            assert bound is connection
            assert connection.execute("SELECT DISTINCT text FROM notes").fetchall() == [("acme",)]
        assert connection.execute(IDS).fetchall() == []
    assert (desk.ids("acme"), desk.ids("globex")) == (["acme", "shared"], ["globex", "shared"])


def test_each_transaction_of_a_session_is_admitted(desk: Desk) -> None:
    engine = sa.create_engine(sa.make_url(desk.raw_url).set(drivername="postgresql+psycopg"))
    try:
        with Session(engine) as session, desk.sdk.bind(session, "acme"):
            assert session.scalars(sa.text(IDS)).all() == ["acme", "shared"]
            session.commit()
            desk.sdk.tenants.suspend("acme", reason="test")
            with pytest.raises(TenantSuspended):
                session.scalars(sa.text(IDS))
    finally:
        engine.dispose()


def test_threads_never_mix(desk: Desk) -> None:
    failures: list[BaseException] = []

    def work(tenant: str) -> None:
        try:
            for _ in range(10):
                assert desk.ids(tenant) == sorted(["shared", tenant])
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(("acme", "globex")[n % 2],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_child_admits_on_a_loop_of_its_own(desk: Desk) -> None:
    assert desk.ids("acme") == ["acme", "shared"]
    assert in_child(lambda: [desk.ids("globex"), desk.ids("acme")]) == [
        ["globex", "shared"],
        ["acme", "shared"],
    ]
    assert desk.ids("globex") == ["globex", "shared"]


def test_inside_a_block_of_the_same_thread(desk: Desk) -> None:
    with desk.sdk.tenant("acme") as acme, acme.data.transaction() as unit:
        unit.update("notes", "shared", text="changed")
        assert desk.ids("acme") == ["acme", "shared"]


def test_who_may_not_be_served_is_refused(desk: Desk) -> None:
    desk.sdk.tenants.suspend("globex", reason="test")
    with desk.connect() as connection:
        for tenant, error in (("globex", TenantSuspended), ("nobody", TenantNotFound)):
            with pytest.raises(error), desk.sdk.bind(connection, tenant):
                pass
        with (
            use_context(desk.sdk.tenant("acme").context),
            pytest.raises(ContextMismatch),
            desk.sdk.bind(connection, "globex"),
        ):
            pass


def test_a_closed_sdk_binds_nothing(desk: Desk) -> None:
    desk.sdk.close()
    with desk.connect() as connection, pytest.raises(Closed), desk.sdk.bind(connection, "acme"):
        pass


def test_a_database_that_would_not_hold_it_refuses(sqlite_options: Mapping[str, Any]) -> None:
    with MultiTenantSDK.open(**sqlite_options) as sdk:
        sdk.tenants.create("acme")
        with pytest.raises(Unsupported, match="PostgreSQL"), sdk.bind(object(), "acme"):
            pass
