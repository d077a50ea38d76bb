"""Keeps one server alive for exactly as long as its owner. A script of its own, with the standard library only.

We make the server's folder and print its path; the owner puts into it what the server needs, writes the job as one
line of JSON and then holds our standard input open. When that closes, because the owner asked for the end or because
it died in whatever way, the server is stopped and the folder removed. Should this process itself be killed, the
kernel signals the server (on Linux).
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

LOG = "server.log"
LOG_TAIL = 4_000
PATIENCE = 10.0
PR_SET_PDEATHSIG = 1


def main(prefix: str, parent: str) -> int:
    """Run one server in a new folder, until the owner is gone; should the server end before, print its log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C of the terminal is the owner's to handle
    signal.signal(signal.SIGTERM, _exit_once)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        print(folder, flush=True)
        if job := sys.stdin.buffer.readline():
            threading.Thread(target=_exit_with_owner, daemon=True).start()
            _serve(json.loads(job), folder)
            print((folder / LOG).read_bytes()[-LOG_TAIL:].decode(errors="replace"), flush=True)
    except BrokenPipeError:
        pass  # nobody is there to read
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1


def _serve(job: dict[str, Any], folder: Path) -> None:
    for command in job["setup"]:
        if _run(command, job, folder):
            return
    _run(job["command"], job, folder)


def _exit_once(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _exit_with_owner() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _run(command: list[str], job: dict[str, Any], folder: Path) -> int:
    credentials = {} if job["uid"] is None else {"user": job["uid"], "group": job["gid"], "extra_groups": []}
    with (folder / LOG).open("ab") as log:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=job["environment"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent(
                job["stop_signal"]
            ),  # runs after the change of user, which would undo it
            **credentials,
        )
    try:
        return child.wait()
    finally:
        _stop(child, job["stop_signal"])


def _die_with_parent(signum: int) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signum)


def _stop(child: subprocess.Popen[bytes], signum: int) -> None:
    if child.poll() is not None:
        return
    child.send_signal(signum)
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
