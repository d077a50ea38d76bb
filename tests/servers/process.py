"""What every server needs: an unprivileged account, a folder, a free port and a supervised process."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.servers.supervisor import LOG

_T = TypeVar("_T")

ACCOUNTS = ("nobody", "postgres", "daemon")
PORT_ATTEMPTS = 5
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
SUPERVISOR = Path(__file__).with_name("supervisor.py")


class ServerUnavailable(RuntimeError):
    """A server cannot be had on this machine; the message says why."""


class PortTaken(ServerUnavailable):
    """Somebody took the free port between its choice and its use."""


@dataclass(frozen=True)
class Account:
    """The user a server runs as when we are root, since neither PostgreSQL nor PgBouncer accepts root."""

    uid: int
    gid: int

    @classmethod
    def choose(cls) -> Account | None:
        """Return an existing unprivileged account when running as root, else None: run as ourselves."""
        if os.geteuid() != 0:
            return None
        for name in ACCOUNTS:
            with suppress(KeyError):
                found = pwd.getpwnam(name)
                return cls(found.pw_uid, found.pw_gid)
        raise ServerUnavailable(f"running as root, and none of the users {', '.join(ACCOUNTS)} exists")


def can_run(account: Account | None, *command: str) -> bool:
    """Whether the account can run the command: it may not be able to enter the folder the program lies in."""
    drop: dict[str, Any] = {}
    if account is not None:
        drop = {"user": account.uid, "group": account.gid, "extra_groups": []}
    try:
        done = subprocess.run(
            command,
            cwd="/",
            env=environment("/"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            **drop,
        )
    except OSError:
        return False
    return done.returncode == 0


def environment(home: str | Path) -> dict[str, str]:
    """Return a clean environment: no PG* variable, locale or time zone of the caller reaches a server."""
    return {"PATH": os.defpath, "HOME": str(home), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _enterable_folder(account: Account | None) -> str:
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - the supervisor makes its own in it
        if can_run(account, "/bin/sh", "-c", 'cd "$0"', folder):
            return folder
    raise ServerUnavailable("there is no temporary directory that an unprivileged user can enter")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def on_free_port(start: Callable[[int], _T]) -> _T:
    """Call `start` with a free port, and again with another one when somebody was faster."""
    for _ in range(PORT_ATTEMPTS - 1):
        with suppress(PortTaken):
            return start(free_port())
    return start(free_port())


class ServerProcess:
    """A server under a supervisor that ends it, and removes its folder, with this process at the latest.

    First comes the folder; what the server needs is put into it; then `run` starts the server there.
    """

    def __init__(self, name: str) -> None:
        self.account = Account.choose()
        parent = _enterable_folder(self.account)
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUPERVISOR), f"tenantry-{name}-", parent],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        self._input = self._supervisor.stdin
        self._output = self._supervisor.stdout
        folder = os.fsdecode(self._output.readline().rstrip(b"\n"))
        if not folder:
            self._supervisor.communicate()
            raise ServerUnavailable(f"no folder could be made in {parent}")
        self.folder = Path(folder)
        self._give(self.folder)

    def write(self, name: str, text: str) -> Path:
        """Write a file into the folder that the server's account alone can read."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        self._give(path)
        return path

    def run(
        self, command: Sequence[str], *, stop_signal: signal.Signals, setup: Sequence[Sequence[str]] = ()
    ) -> None:
        """Run the setup commands, one after the other, and then the server, all as the account."""
        job = {
            "setup": [list(each) for each in setup],
            "command": list(command),
            "environment": environment(self.folder),
            "uid": None if self.account is None else self.account.uid,
            "gid": None if self.account is None else self.account.gid,
            "stop_signal": int(stop_signal),
        }
        self._input.write(json.dumps(job).encode() + b"\n")
        self._input.flush()

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once `ready()`; on an early end or after a minute, stop and raise with the tail of the log.

        Raises:
            PortTaken: The log says that the address was in use.
            ServerUnavailable: Any other failure.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not ready():
            if self._supervisor.poll() is not None:
                raise self._failure()
            if time.monotonic() > deadline:
                log = self.log()
                self.stop()
                raise ServerUnavailable(f"no answer after {START_TIMEOUT:.0f} s:\n{log}")
            time.sleep(0.02)

    def log(self) -> str:
        """Return what the server has printed so far."""
        try:
            return (self.folder / LOG).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def stop(self) -> None:
        """End the server and remove its folder. May be called twice."""
        with suppress(BrokenPipeError):
            self._input.close()
        try:
            self._supervisor.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()  # the kernel then signals the server
            self._supervisor.wait()
        self._output.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _give(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def _failure(self) -> ServerUnavailable:
        log = self._output.read().decode(errors="replace").strip()
        self.stop()
        kind = PortTaken if "in use" in log else ServerUnavailable
        return kind(f"the server ended while starting:\n{log}")
