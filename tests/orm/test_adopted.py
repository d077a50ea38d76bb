"""Plain declarative classes over tables that keep their own keys: isolated by the database alone."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from tenantry.databases.postgres.policies import Roles, tenant_table_policies
from tests.orm.conftest import Library


class Base(DeclarativeBase):
    """The application's own base."""


class Room(Base):
    __tablename__ = "rooms"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    chairs: Mapped[list[Chair]] = relationship(back_populates="room", order_by="Chair.name")


class Chair(Base):
    __tablename__ = "chairs"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    room_id: Mapped[int] = mapped_column(sa.ForeignKey("rooms.id"))
    room: Mapped[Room] = relationship(back_populates="chairs")


TABLES = """
DROP TABLE IF EXISTS chairs, rooms;
CREATE TABLE rooms (
  id serial PRIMARY KEY, name text NOT NULL, tenant_id text NOT NULL DEFAULT tenantry.current_tenant());
CREATE TABLE chairs (
  id serial PRIMARY KEY, name text NOT NULL, room_id int NOT NULL REFERENCES rooms,
  tenant_id text NOT NULL DEFAULT tenantry.current_tenant());
"""


async def _make(library: Library) -> None:
    prefix = str(make_url(library.raw_url).username).removesuffix("_raw")
    roles = Roles.named(prefix)
    await library.judge.execute(TABLES)
    for table in ("rooms", "chairs"):
        for statement in tenant_table_policies(None, table, roles, versioned=False):
            await library.judge.execute(statement)
    await library.judge.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {roles.raw}")


async def test_a_session_holds_them_to_its_tenant(library: Library) -> None:
    await _make(library)
    try:
        for tenant in ("acme", "globex"):
            async with library.sdk.tenant(tenant).session() as session:
                session.add(Room(name=tenant, chairs=[Chair(name=f"{tenant} 1"), Chair(name=f"{tenant} 2")]))
                await session.commit()
        async with library.sdk.tenant("acme").session() as session:
            rooms = (await session.scalars(sa.select(Room).options(selectinload(Room.chairs)))).all()
            assert [(room.name, [chair.name for chair in room.chairs]) for room in rooms] == [
                ("acme", ["acme 1", "acme 2"])
            ]
            foreign = await library.judge.fetchval("SELECT id FROM rooms WHERE tenant_id = 'globex'")
            assert await session.get(Room, foreign) is None
            await session.execute(sa.update(Room).values(name="all mine"))
            await session.execute(sa.delete(Chair))
            await session.commit()
        left = await library.judge.fetch(
            "SELECT tenant_id, name FROM rooms UNION SELECT tenant_id, name FROM chairs"
        )
        assert sorted(map(tuple, left)) == [
            ("acme", "all mine"),
            ("globex", "globex"),
            ("globex", "globex 1"),
            ("globex", "globex 2"),
        ]
    finally:
        await library.judge.execute("DROP TABLE IF EXISTS chairs, rooms")
