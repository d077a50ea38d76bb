"""Migrations with Alembic: revisions of the models' tables, in the user's own folder beside their own.

``env.py`` calls :func:`run`, or puts :func:`metadata` into the ``target_metadata`` that it has. Importing this package
teaches Alembic the operations ``op.isolate_table``, ``op.share_table``, ``op.reserve_table``, ``op.destructive`` and
those that change a table that is in use; see ``docs/migrations.md``.
"""

from __future__ import annotations

from tenantry.errors import MissingExtra

try:
    from tenantry.alembic import autogenerate, guard, online, operations, rendering
    from tenantry.alembic.commands import Migrations
    from tenantry.alembic.declared import metadata
    from tenantry.alembic.runner import run
    from tenantry.alembic.splitting import split_online
except ModuleNotFoundError as error:
    package = str(error.name).partition(".")[0]
    if package not in ("alembic", "greenlet", "mako"):
        raise
    raise MissingExtra(package, "alembic") from error

__all__ = ["Migrations", "metadata", "run", "split_online"]

_EXTENSIONS = (autogenerate, guard, online, operations, rendering)
