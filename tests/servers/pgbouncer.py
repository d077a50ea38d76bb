"""PgBouncer, Debian's package, as a transaction pooler in front of a `PostgresServer`."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from tests.servers.postgres import PostgresServer
from tests.servers.process import (
    ServerProcess,
    ServerUnavailable,
    on_free_port,
)

SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")


class PgBouncer:
    """A running PgBouncer through which every role of its server can log in, those created later too."""

    def __init__(self, process: ServerProcess, server: PostgresServer, port: int) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self.server = server
        self._process = process

    @classmethod
    def start(
        cls,
        server: PostgresServer,
        *,
        pool_mode: str = "transaction",
        pool_size: int = 20,
        settings: Mapping[str, str] | None = None,
    ) -> PgBouncer:
        """Start a pooler in front of a server, in a fraction of a second.

        Args:
            server: Where the connections end; it must outlive the pooler.
            pool_mode: `transaction`, `session` or `statement`.
            pool_size: Server connections per user and database.
            settings: Further parameters of the section `[pgbouncer]`; they override ours.

        Raises:
            ServerUnavailable: The program is missing, or did not come up; the message holds its log.
        """
        program = find_program()
        chosen = {"pool_mode": pool_mode, "default_pool_size": str(pool_size), **(settings or {})}
        return on_free_port(partial(cls._start, program, server, chosen))

    @classmethod
    def _start(cls, program: str, server: PostgresServer, chosen: Mapping[str, str], port: int) -> PgBouncer:
        process = ServerProcess("pgbouncer")
        try:
            process.write("users.txt", f'"{server.superuser}" "{server.password}"\n')
            configuration = process.write(
                "pgbouncer.ini", _configuration(server, process.folder, port, chosen)
            )
            process.run([program, str(configuration)], stop_signal=signal.SIGTERM)
            process.wait_until(lambda: "process up" in process.log())
        except BaseException:
            process.stop()
            raise
        return cls(process, server, port)

    @property
    def folder(self) -> Path:
        """The folder that holds configuration and log; removed by `stop`."""
        return self._process.folder

    def url(self, database: str = "postgres", *, user: str | None = None, password: str | None = None) -> str:
        """Return the address of a database through the pooler, as the superuser unless a user is given.

        The database `pgbouncer` is the pooler's own console (`SHOW POOLS`).
        """
        if user is None:
            user, password = self.server.superuser, self.server.password
        secret = "" if password is None else f":{quote(password, safe='')}"
        return (
            f"postgresql://{quote(user, safe='')}{secret}@{self.host}:{self.port}/{quote(database, safe='')}"
        )

    def log(self) -> str:
        """Return what the pooler has logged so far."""
        return self._process.log()

    def stop(self) -> None:
        """End the pooler and remove its folder. May be called twice."""
        self._process.stop()

    def __enter__(self) -> PgBouncer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def find_program() -> str:
    """Return the path of pgbouncer, which Debian puts where an ordinary user's PATH does not look.

    Raises:
        ServerUnavailable: It is not installed.
    """
    searched = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])
    program = shutil.which("pgbouncer", path=searched)
    if program is None:
        raise ServerUnavailable("the program pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    return program


def _configuration(server: PostgresServer, folder: Path, port: int, chosen: Mapping[str, str]) -> str:
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",  # with none, a port that is taken ends the start instead of passing unnoticed
        "auth_type": "scram-sha-256",
        "auth_file": str(folder / "users.txt"),
        "auth_user": server.superuser,
        "auth_query": "SELECT usename, passwd FROM pg_shadow WHERE usename = $1",
        "admin_users": server.superuser,
        "max_client_conn": "500",
        "ignore_startup_parameters": "extra_float_digits",
        **chosen,
    }
    databases = f"[databases]\n* = host={server.host} port={server.port}\n"
    return databases + "\n[pgbouncer]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())
