"""An Alembic folder: written anew, or one that exists taught about tenantry's tables."""

from __future__ import annotations

import ast
import configparser
import importlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tenantry.errors import ConfigurationError

_INI: Final = """[alembic]
script_location = %(here)s/{folder}
prepend_sys_path = .
path_separator = os
"""
_ENV: Final = '''"""Alembic's environment: revisions of the models' tables and of your own."""

{imports}

# For tables of your own beside them: run(…, metadata=[Base.metadata])
tenantry.alembic.run({models})
'''
_SCRIPT: Final = '''"""${message}

Revision: ${up_revision}
After: ${down_revision | comma,n}
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

import tenantry.alembic

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''
_MARK: Final = "tenantry.alembic"


@dataclass(slots=True)
class Prepared:
    """What was done.

    Attributes:
        folder: Alembic's folder.
        written: The files that were written or changed.
        todo: What is left to the user.
    """

    folder: Path
    written: list[Path] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)


def prepare(ini: Path, folder: Path, models: Sequence[str]) -> Prepared:
    """Write an Alembic folder, or teach the one that exists.

    Args:
        ini: Alembic's configuration; written if there is none.
        folder: Where a new folder is made.
        models: The models, as ``package.module:attribute``.

    Raises:
        ConfigurationError: No model is named, or the environment that exists cannot be read.
    """
    if not models:
        raise ConfigurationError(
            "No models are named.",
            field="models",
            fix="Write --models package.module:attribute, or list them in pyproject.toml as models of tool.tenantry.",
        )
    existing = location(ini)
    if existing is not None and (existing / "env.py").exists():
        return _adopt(existing, models)
    return _write(ini, folder, models, configured=existing)


def location(ini: Path) -> Path | None:
    """Return the folder that Alembic's configuration names; ``None`` if it names none."""
    if not ini.exists():
        return None
    try:
        if ini.suffix == ".toml":
            named = (
                tomllib.loads(ini.read_text("utf-8"))
                .get("tool", {})
                .get("alembic", {})
                .get("script_location")
            )
        else:
            parser = configparser.ConfigParser({"here": str(ini.resolve().parent)})
            parser.read(ini, "utf-8")
            named = parser.get("alembic", "script_location", fallback=None)
    except (OSError, ValueError, configparser.Error) as error:
        raise ConfigurationError(f"Cannot read {ini}: {error}.", field="ini") from error
    if named is None:
        return None
    return ini.resolve().parent / str(named).replace("%(here)s", str(ini.resolve().parent))


def _write(ini: Path, folder: Path, models: Sequence[str], configured: Path | None) -> Prepared:
    made = Prepared(configured or folder)
    imports, names = _imports(models)
    (made.folder / "versions").mkdir(parents=True, exist_ok=True)
    files = {
        made.folder / "env.py": _ENV.format(imports=f"{imports}\nimport tenantry.alembic", models=names),
        made.folder / "script.py.mako": _SCRIPT,
    }
    if configured is None:
        if ini.exists():
            raise ConfigurationError(
                f"{ini} names no script_location.", field="ini", fix=f'Add script_location = "{folder}".'
            )
        files[ini] = _INI.format(folder=folder.as_posix())
    for path, text in files.items():
        if not path.exists():
            path.write_text(text, encoding="utf-8")
            made.written.append(path)
    return made


def _imports(models: Sequence[str]) -> tuple[str, str]:
    """Return the lines that import models, and the list of them as Python."""
    parts = [name.partition(":") for name in models]
    lines = sorted({f"from {module} import {attribute.partition('.')[0]}" for module, _, attribute in parts})
    listed = ", ".join(_starred(module, attribute) for module, _, attribute in parts)
    return "\n".join(lines), f"[{listed}]"


def _starred(module: str, attribute: str) -> str:
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return attribute if isinstance(found, type) else f"*{attribute}"


def _adopt(folder: Path, models: Sequence[str]) -> Prepared:
    path = folder / "env.py"
    done = Prepared(folder)
    text = path.read_text("utf-8")
    if _MARK in text:
        return done
    changed = _with_metadata(text, models)
    _, names = _imports(models)
    if changed is None:
        done.todo.append(f"In {path}, add to target_metadata: tenantry.alembic.metadata({names}).")
        return done
    path.write_text(changed, encoding="utf-8")
    done.written.append(path)
    done.todo.append(
        f"{path} connects by itself. It must do so as the owner, with asyncpg or another driver, and nothing keeps two "
        f"processes apart; tenantry.alembic.run({names}, metadata=…) in its place does both."
    )
    return done


def _with_metadata(text: str, models: Sequence[str]) -> str | None:
    """Return the text of ``env.py`` with our tables beside the user's own; ``None`` where it has another form."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ConfigurationError(f"Cannot read env.py: {error}.", field="ini") from error
    found = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [target.id for target in node.targets if isinstance(target, ast.Name)] == ["target_metadata"]
    ]
    if len(found) != 1:
        return None
    value = found[0].value
    before = ast.get_source_segment(text, value) or ""
    imports, names = _imports(models)
    ours = f"tenantry.alembic.metadata({names})"
    theirs = [] if before == "None" else [f"*{before}" if isinstance(value, ast.List | ast.Tuple) else before]
    lines = text.splitlines(keepends=True)
    first, last = value.lineno - 1, (value.end_lineno or value.lineno) - 1
    head = lines[first].encode()[: value.col_offset].decode()
    tail = lines[last].encode()[value.end_col_offset :].decode()
    listed = ", ".join([*theirs, ours])
    lines[first : last + 1] = [f"{imports}\nimport tenantry.alembic\n\n{head}[{listed}]{tail}"]
    return "".join(lines)
