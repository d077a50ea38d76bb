"""A ``.env`` file: read, and changed without touching what is not ours."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tenantry.errors import ConfigurationError

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*", re.DOTALL)
_COMMENT = re.compile(r"(^|\s)#.*")
_BARE = re.compile(
    r"[A-Za-z0-9_:/@.,%+=-]*"
)  # means the same to a shell, to Docker and to every reader of .env
_HEADER = "# Made by `tenantry init`. Secrets: keep this file out of version control."


def read(path: Path) -> dict[str, str]:
    """Return the variables of a file; of none if there is no file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    variables = {}
    for line in _lines(path):
        match = _LINE.fullmatch(line)
        if match:
            variables[match[1]] = _value(match[2])
    return variables


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time change the file: what another has written in between would be lost."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows
        yield
        return
    try:
        folder = os.open(path.resolve().parent, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def check_writable(path: Path) -> None:
    """Find out before any work is done that could not be kept.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    _lines(path)
    try:
        with tempfile.NamedTemporaryFile(dir=path.resolve().parent, prefix=".env"):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def write(path: Path, variables: Mapping[str, str]) -> None:
    """Set some variables, and keep every other line as it is. Only its owner can read the file afterwards.

    It is replaced in one step, so whoever reads it meanwhile gets the old file or the new one.

    Raises:
        ConfigurationError: It cannot be written.
    """
    text = "".join(_merged(_lines(path), variables))
    target = path.resolve()  # a link stays one
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".env")  # readable by its owner only
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            with suppress(OSError):  # as root, for somebody else
                before = target.stat()
                os.chown(name, before.st_uid, before.st_gid)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Cannot read {path}: {error}.", field="env_file") from error


def _merged(lines: list[str], variables: Mapping[str, str]) -> Iterator[str]:
    wanted = dict(variables)
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in variables:
            yield line if line.endswith(("\n", "\r")) else line + "\n"
        elif match[1] in wanted:
            yield _assignment(match[1], wanted.pop(match[1]))
    if wanted and lines:
        yield "\n"
    if wanted:
        yield _HEADER + "\n"
    for name, value in wanted.items():
        yield _assignment(name, value)


def _assignment(name: str, value: str) -> str:
    if "\n" in value or "'" in value:
        raise ConfigurationError(f"The value of {name} cannot stand in a .env file.", field="env_file")
    return f"{name}={value}\n" if _BARE.fullmatch(value) else f"{name}='{value}'\n"


def _value(text: str) -> str:
    for quote in ("'", '"'):
        if text.startswith(quote) and text.find(quote, 1) > 0:
            return text[1 : text.find(quote, 1)]
    return _COMMENT.sub("", text).rstrip()


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"Cannot write {path}: {error.strerror or error}.",
        field="env_file",
        fix="Name a file in a folder of yours: --env-file PATH.",
    )
