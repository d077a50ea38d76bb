"""What ``tenantry migrate`` does: Alembic's own commands, with errors of ours and answers that a program can read."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import produce_migrations, render_op_text
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from tenantry.alembic.guard import ALLOW
from tenantry.alembic.locks import Step, steps
from tenantry.alembic.roles import SETTINGS
from tenantry.alembic.splitting import SKIP_EMPTY
from tenantry.config import Settings
from tenantry.errors import ConfigurationError, DatabaseUnavailable, DataError, MigrationRefused

_BEHIND: Final = "Target database is not up to date"


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision of the folder.

    Attributes:
        id: Its id.
        message: What it is for.
        path: Its file.
    """

    id: str
    message: str
    path: str


@dataclass(slots=True)
class Status:
    """Where a database stands.

    Attributes:
        current: The revisions it is at.
        pending: Those it lacks, the next one first.
        differences: What autogenerate would write, as Python; only looked for when nothing is pending.
    """

    current: list[str] = field(default_factory=list)
    pending: list[Revision] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is nothing to do."""
        return not self.pending and not self.differences


class Migrations:
    """The revisions of a folder, and a database.

    Args:
        ini: Alembic's configuration: ``alembic.ini``, or ``pyproject.toml`` with a table ``tool.alembic``.
        settings: The configuration; without one, ``env.py`` reads the environment.
    """

    def __init__(self, ini: Path, settings: Settings | None = None) -> None:
        self._ini = ini
        self._settings = settings

    def _config(self, *, allow: bool = False, buffer: io.StringIO | None = None) -> Config:
        if not self._ini.exists():
            raise ConfigurationError(
                f"There is no {self._ini}.",
                field="ini",
                fix="Run: tenantry migrate init, in the project's folder.",
            )
        toml = self._ini.suffix == ".toml"
        config = Config(
            None if toml else str(self._ini),
            toml_file=str(self._ini) if toml else None,
            stdout=io.StringIO(),
            output_buffer=buffer,
            cmd_opts=Namespace(quiet=True, x=[]),
        )
        config.attributes.update({ALLOW: allow, SKIP_EMPTY: True})
        if self._settings is not None:
            config.attributes[SETTINGS] = self._settings
        return config

    def status(self, *, compare: bool = True) -> Status:
        """Return the revisions that are pending; where none is, compare the database with the models."""
        config = self._config()
        with _told():
            script = ScriptDirectory.from_config(config)
            found = Status()

            def look(heads: Any, context: Any) -> list[Any]:
                found.current = sorted(heads)
                found.pending = _pending(script, heads)
                if compare and not found.pending:
                    found.differences = _differences(context)
                return []

            with EnvironmentContext(config, script, fn=look, dont_mutate=True):
                script.run_env()
        return found

    def new(self, message: str, *, allow: bool = False) -> list[Revision]:
        """Write the revisions that bring the database to the models; none if it is there."""
        with _told():
            made = command.revision(self._config(allow=allow), message, autogenerate=True)
        listed = made if isinstance(made, list) else [made]
        return [_revision(script) for script in listed if script is not None]

    def upgrade(self, to: str = "head", *, allow: bool = False) -> list[Revision]:
        """Run what is pending, and return what was run."""
        before = self.status(compare=False)
        with _told():
            command.upgrade(self._config(allow=allow), to)
        left = {item.id for item in self.status(compare=False).pending}
        return [item for item in before.pending if item.id not in left]

    def downgrade(self, to: str, *, allow: bool = False) -> list[Revision]:
        """Take revisions back, and return which."""
        before = {item.id for item in self.status(compare=False).pending}
        with _told():
            command.downgrade(self._config(allow=allow), to)
        return [item for item in reversed(self.status(compare=False).pending) if item.id not in before]

    def plan(self, to: str = "head", *, allow: bool = False) -> list[Step]:
        """Return what :meth:`upgrade` would run, and run nothing."""
        found = self.status(compare=False)
        if not found.pending:
            return []
        if len(found.current) > 1:
            raise MigrationRefused(
                f"The database is at {len(found.current)} revisions, and SQL can be shown from one only.",
                fix="Merge them: alembic merge heads.",
            )
        buffer = io.StringIO()
        with _told():
            command.upgrade(
                self._config(allow=allow, buffer=buffer), f"{(found.current or ['base'])[0]}:{to}", sql=True
            )
        return steps(buffer.getvalue())


def _revision(script: Script) -> Revision:
    return Revision(script.revision, script.doc, script.path)


def _pending(script: ScriptDirectory, heads: Any) -> list[Revision]:
    missing = script.iterate_revisions("heads", tuple(heads) or "base", implicit_base=True)
    return [_revision(found) for found in reversed(list(missing))]


def _differences(context: Any) -> list[str]:
    metadata = context.opts["target_metadata"]
    found = produce_migrations(context, metadata).upgrade_ops
    autogen = AutogenContext(context, metadata, autogenerate=False)
    return [render_op_text(autogen, item) for item in (found.ops if found is not None else [])]


@contextmanager
def _told() -> Iterator[None]:
    """Turn what Alembic, SQLAlchemy and the driver raise into errors of ours."""
    try:
        yield
    except CommandError as error:
        fix = "Run: tenantry migrate upgrade." if _BEHIND in str(error) else None
        raise MigrationRefused(f"Alembic: {str(error).rstrip('.')}.", fix=fix) from error
    except sa.exc.DBAPIError as error:
        raise _translated(error.orig or error) from error
    except (OSError, sa.exc.SQLAlchemyError) as error:
        raise DatabaseUnavailable(f"The database cannot be reached: {error}.") from error


def _translated(error: BaseException) -> Exception:
    cause = error.__cause__ or error
    if type(cause).__module__.startswith("asyncpg"):
        from tenantry.databases.postgres.connection import translate

        known = translate(cause)
        if known is not None:
            return known
    return DataError(f"The database refused: {cause}.", fix="Nothing of this revision was kept.")
