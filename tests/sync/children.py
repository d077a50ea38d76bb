"""Work in a child process, made by `os.fork` and nothing else."""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
from collections.abc import Callable
from typing import Any

SECONDS = 60.0


class Child:
    """A forked process that runs `work` and sends back what it returned."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._end, end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _work(work, end)
        os.close(end)

    def result(self) -> Any:
        """Wait, and return what the child did, or fail as it failed."""
        try:
            ready, _, _ = select.select([self._end], [], [], SECONDS)
            if not ready:
                os.kill(self._pid, signal.SIGKILL)
        finally:
            with os.fdopen(self._end) as pipe:
                text = pipe.read()
            os.waitpid(self._pid, 0)
        assert ready, "the child did not end"
        answer = json.loads(text)
        assert answer["error"] is None, answer["error"]
        return answer["result"]


def in_child(work: Callable[[], Any]) -> Any:
    """Run `work` in a child process."""
    return Child(work).result()


def _work(work: Callable[[], Any], end: int) -> None:
    answer: dict[str, Any] = {"result": None, "error": None}
    try:
        answer["result"] = work()
    except BaseException:  # noqa: BLE001 - the parent is told of all
        answer["error"] = traceback.format_exc()
    with os.fdopen(end, "w") as pipe:
        pipe.write(json.dumps(answer))
    os._exit(0)
