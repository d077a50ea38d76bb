"""At boot: proof, through the very connections that will serve, that one tenant cannot reach another.

A canary tenant writes a row into every table; then, in the same transaction, another one tries to read, change and
delete it and to write in the first one's name, with statements that carry no tenant predicate, so that the database
alone is on trial. The transaction is rolled back.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import asyncpg

from tenantry.context import TenantContext
from tenantry.databases._sql import Compiler
from tenantry.databases.postgres.connection import INIT_HINT
from tenantry.databases.postgres.policies import table_name
from tenantry.databases.postgres.pool import TenantPool
from tenantry.errors import AttestationFailed
from tenantry.ports import Insert
from tenantry.query import Query
from tenantry.schema import Collection, Field, Kind
from tenantry.types import Record, tenant_id, uuid7

logger = logging.getLogger("tenantry.attest")

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SAMPLES: Final[dict[Kind, Any]] = {
    Kind.DECIMAL: Decimal(0),
    Kind.FLOAT: 0.0,
    Kind.BOOL: False,
    Kind.DATE: _EPOCH.date(),
    Kind.DATETIME: _EPOCH,
    Kind.JSON: {},
    Kind.LIST: [],
}


class _RollBack(Exception):
    pass


async def attest(app: TenantPool, compiler: Compiler) -> None:
    """Let one canary try to reach the other's rows.

    Raises:
        AttestationFailed: It succeeded, or the first canary cannot even see its own rows, so that nothing is shown.
    """
    leaks: list[str] = []
    mine, other = (tenant_id(f"tenantry.canary.{secrets.token_hex(6)}") for _ in range(2))
    try:
        async with app.transaction(mine) as connection:
            rows = await _plant(connection, compiler, TenantContext(mine))
            await app.rebind(connection, other)
            leaks = [
                leak for planted in rows for leak in await _trespass(connection, compiler, *planted, mine)
            ]
            await app.rebind(connection, None)
            leaks += [leak for planted in rows for leak in await _look(connection, compiler, *planted)]
            leaks += await _reach(connection, compiler)
            raise _RollBack
    except _RollBack:
        pass
    except asyncpg.InsufficientPrivilegeError as error:
        raise AttestationFailed(
            f"The role may not do its work, so isolation cannot be shown: {error}.", fix=INIT_HINT
        ) from error
    if leaks:
        raise AttestationFailed(
            f"A canary tenant reached another's rows: {'; '.join(leaks)}.",
            fix="Run tenantry doctor; it names what is missing and the command that mends it.",
        )


async def _plant(
    connection: Any, compiler: Compiler, context: TenantContext
) -> list[tuple[Collection, Record]]:
    """Write one row for each collection of tenants, those referred to first, and see that it can be read back."""
    planted: dict[str, Record] = {}
    for table in compiler.tables.metadata.sorted_tables:
        collection = compiler.tables.collection_of(table)
        if collection.scope != "tenant" or compiler.tables.holds_words(table) or not _writable(collection):
            continue
        record = await _canary(connection, compiler, context, collection, planted)
        if record is None:
            logger.info("No canary for %s: a row that it must refer to does not exist yet.", collection.name)
            continue
        if not await _insert(connection, compiler, context, collection, record):
            logger.info("No canary for %s: a constraint of its own refuses the row.", collection.name)
            continue
        found = compiler.fetch(context, collection, [record["id"]])
        if len(await connection.fetch(found.statement.text, *found.args)) != 1:
            raise AttestationFailed(
                f"A tenant cannot see its own row in {collection.name!r}, so isolation cannot be shown."
            )
        planted[collection.name] = record
    return [(compiler.collections[name], record) for name, record in planted.items()]


async def _insert(
    connection: Any, compiler: Compiler, context: TenantContext, collection: Collection, record: Record
) -> bool:
    """Write the canary; return whether no constraint stood against it."""
    step = next(compiler.perform(context, Insert(collection, [record])))
    await connection.execute("SAVEPOINT canary")
    try:
        await connection.execute(step.statement.text, *step.args)
    except asyncpg.IntegrityConstraintViolationError:
        await connection.execute("ROLLBACK TO canary")
        return False
    return True


async def _canary(
    connection: Any,
    compiler: Compiler,
    context: TenantContext,
    collection: Collection,
    planted: dict[str, Record],
) -> Record | None:
    """Return a row that the table accepts, or ``None`` if that needs a row which does not exist."""
    record: Record = {}
    for field in collection.fields.values():
        if field.ref is None or not field.ref.enforced:
            record[field.name] = _sample(field)
        elif field.nullable:
            record[field.name] = None
        elif field.ref.collection == collection.name:
            record[field.name] = record["id"]
        else:
            target = compiler.collections[field.ref.collection]
            known = planted.get(target.name) or await _any_row(connection, compiler, context, target)
            if known is None:
                return None
            record[field.name] = known["id"]
    return record


async def _any_row(
    connection: Any, compiler: Compiler, context: TenantContext, collection: Collection
) -> Record | None:
    step = compiler.select(context, Query(collection, (collection.key,), limit=1))
    records = step.statement.records(await connection.fetch(step.statement.text, *step.args))
    return records[0] if records else None


def _sample(field: Field) -> Any:
    if field.nullable:
        return None
    if field.kind is Kind.UUID:
        return uuid7()
    if field.kind is Kind.INT:
        return secrets.randbelow(2**31)
    if field.enum is not None:
        return next(iter(field.enum))
    return _SAMPLES.get(field.kind, secrets.token_hex(8) if field.kind is Kind.TEXT else b"")


async def _trespass(
    connection: Any, compiler: Compiler, collection: Collection, record: Record, owner: str
) -> list[str]:
    """Try everything against one row of another tenant; return what succeeded."""
    name, key = _names(compiler, collection), record["id"]
    leaks = await _look(connection, compiler, collection, record)
    attempts = {
        "changed": f"UPDATE {name} SET version = version WHERE id = $1 RETURNING id",
        "deleted": f"DELETE FROM {name} WHERE id = $1 RETURNING id",
    }
    for what, text in attempts.items():
        if await _attempt(connection, text, [key]):
            leaks.append(f"{what} a row of {collection.name}")
    insert, args = _forgery(compiler, collection, {**record, "id": _other(key)}, owner)
    if await _attempt(connection, insert, args) is not None:
        leaks.append(f"wrote into {collection.name} in another's name")
    return leaks


def _writable(collection: Collection) -> bool:
    return collection.rights is None or "INSERT" in collection.rights


async def _reach(connection: Any, compiler: Compiler) -> list[str]:
    """Try what no tenant's own statement may do with the tables that the system keeps for it; return what was let."""
    leaks = []
    for collection in compiler.collections.values():
        if collection.scope != "tenant" or _writable(collection):
            continue
        name = _names(compiler, collection)
        attempts = {
            "SELECT": f"SELECT 1 FROM {name} LIMIT 1",
            "INSERT": f"INSERT INTO {name} DEFAULT VALUES",
            "UPDATE": f"UPDATE {name} SET version = 0",
            "DELETE": f"DELETE FROM {name}",
        }
        for right, text in attempts.items():
            if right not in (collection.rights or ()) and await _attempt(connection, text, []) is not None:
                leaks.append(f"may {right} {collection.name}")
    return leaks


async def _look(connection: Any, compiler: Compiler, collection: Collection, record: Record) -> list[str]:
    text = f"SELECT id FROM {_names(compiler, collection)} WHERE id = $1"
    return [f"read a row of {collection.name}"] if await _attempt(connection, text, [record["id"]]) else []


def _forgery(
    compiler: Compiler, collection: Collection, record: Record, owner: str
) -> tuple[str, Sequence[Any]]:
    """Return an INSERT in the name of ``owner``; the compiler's own would not be bound to somebody else."""
    step = next(compiler.perform(TenantContext(tenant_id(owner)), Insert(collection, [record])))
    return step.statement.text, step.args


async def _attempt(connection: Any, text: str, args: Sequence[Any]) -> list[Any] | None:
    """Return the rows of a statement, or ``None`` if the database refused it. Nothing of it stays.

    A violated constraint is no refusal: the row was looked at.
    """
    await connection.execute("SAVEPOINT attempt")
    try:
        rows: list[Any] = await connection.fetch(text, *args)
    except asyncpg.InsufficientPrivilegeError:
        return None
    except asyncpg.IntegrityConstraintViolationError:
        return []
    finally:
        await connection.execute("ROLLBACK TO attempt")
    return rows


def _names(compiler: Compiler, collection: Collection) -> str:
    table = compiler.tables[collection.name]
    return table_name(table.schema, table.name)


def _other(key: Any) -> Any:
    """Return another key of the same type."""
    if isinstance(key, uuid.UUID):
        return uuid7()
    return key + 1 if isinstance(key, int) else f"{key}x"
