"""Which lock a statement takes on a table, and so what it keeps waiting (PostgreSQL, "Explicit Locking")."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Step(NamedTuple):
    """One statement of a migration.

    Attributes:
        sql: The statement.
        lock: The lock it takes on a table that others use; ``None`` if none.
    """

    sql: str
    lock: str | None


_LOCKS: Final = (
    (
        r"(CREATE|DROP) (UNIQUE )?INDEX CONCURRENTLY",
        "SHARE UPDATE EXCLUSIVE: only changes of the schema wait",
    ),
    (r"ALTER TABLE .* VALIDATE CONSTRAINT", "SHARE UPDATE EXCLUSIVE: only changes of the schema wait"),
    (r"CREATE (UNIQUE )?INDEX", "SHARE: writers wait"),
    (r"ALTER TABLE .* ADD (CONSTRAINT .* )?FOREIGN KEY", "SHARE ROW EXCLUSIVE: writers wait"),
    (r"CREATE TRIGGER", "SHARE ROW EXCLUSIVE: writers wait"),
    (r"ALTER INDEX", "SHARE UPDATE EXCLUSIVE: only changes of the schema wait"),
    (
        r"(ALTER|DROP) TABLE|DROP INDEX|TRUNCATE|(CREATE|ALTER|DROP) POLICY|DROP TRIGGER",
        "ACCESS EXCLUSIVE: all wait",
    ),
    (r"INSERT|UPDATE|DELETE|MERGE", "ROW EXCLUSIVE: nobody waits, but for the same rows"),
)
_STATEMENT: Final = re.compile(r"(.*?);\s*(?:\n\n|\Z)", re.DOTALL)
_MADE: Final = re.compile(r"CREATE TABLE (\S+)")


def steps(script: str) -> list[Step]:
    """Return the statements of what ``--sql`` printed, each with its lock. Comments belong to the next statement."""
    made: set[str] = set()
    found = []
    for match in _STATEMENT.finditer(script):
        sql = match[1].strip()
        made |= {_plain(name) for name in _MADE.findall(sql)}
        found.append(Step(f"{sql};", None if _on_new_table(sql, made) else lock_of(sql)))
    return found


def lock_of(sql: str) -> str | None:
    """Return the strongest lock that a statement takes on a table, and what it means."""
    text = " ".join(line for line in sql.splitlines() if not line.startswith("--")).strip()
    return next(
        (lock for pattern, lock in _LOCKS if re.match(pattern, " ".join(text.split()), re.IGNORECASE)), None
    )


def _on_new_table(sql: str, made: set[str]) -> bool:
    """Whether the statement's table is one that nobody else can see yet."""
    words = re.search(r"(?:ALTER TABLE|DROP TABLE|\bON)(?: TABLE)? ([\w.\"]+)", sql)
    return words is not None and _plain(words[1]) in made


def _plain(name: str) -> str:
    return name.replace('"', "").removeprefix("public.")
