"""Tries one thing as B, and believes what it sees only when it sees it again."""

from __future__ import annotations

from dataclasses import replace

from tenantry.scan.attempts import Attempt
from tenantry.scan.evidence import Clue
from tenantry.scan.kinds import Kind
from tenantry.scan.messages import Request, Response, Who
from tenantry.scan.report import Finding
from tenantry.scan.scene import Scene

_TIMES = 3
_FILES = ("text/csv", "application/pdf", "spreadsheet", "application/zip", "application/x-ndjson", "ms-excel")


class Trial:
    """Tries attempts.

    Args:
        scene: Where.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._client = scene.client
        self._world = scene.world
        self._evidence = scene.evidence

    async def of(self, attempt: Attempt) -> Finding | None:
        """Send the attempt; return what it shows, if a second time shows it too and every control agrees."""
        response = await self._client.send(attempt.request, Who.B)
        if not response.settled:
            self._scene.unsettled.add(attempt.route)
            return None
        clues = self._clues(attempt, response)
        if attempt.kind is Kind.UNSCOPED:
            clues = clues or await self._contradictions(attempt, response)
        clues = clues and await self._confirmed(attempt, clues)
        if not clues:
            return None
        kind = _kind(attempt.kind, response)
        return self._scene.writer.finding(
            kind, attempt.route, attempt.detail, attempt.request, response, clues
        )

    def _clues(self, attempt: Attempt, response: Response) -> list[Clue]:
        # Where B asks for nothing of A's, the answer may well be the same as A's: that alone says nothing.
        if attempt.kind is Kind.UNSCOPED:
            found = self._evidence.clues(attempt.request, response)
            return [clue for clue in found if clue.what in ("owned", "tenant")]
        return self._evidence.clues(attempt.request, response, attempt.source, collides=attempt.collides)

    async def _confirmed(self, attempt: Attempt, clues: list[Clue]) -> list[Clue]:
        """Return the clues that further answers have too, and that neither B without the trick nor anybody has."""
        for _ in range(_TIMES if attempt.kind is not Kind.UNSCOPED else 0):
            again = self._clues(attempt, await self._client.send(attempt.request, Who.B))
            clues = [clue for clue in clues if clue in again]
            if clues and attempt.plain is not None and attempt.plain != attempt.request:
                clues = self._without(clues, attempt, await self._client.send(attempt.plain, Who.B))
        if clues:
            clues = self._without(clues, attempt, await self._client.send(attempt.request, Who.NOBODY))
        if clues and not (await self._client.send(attempt.source.request, Who.A)).ok:
            return []  # not even A sees it any more
        return clues

    def _without(self, clues: list[Clue], attempt: Attempt, control: Response) -> list[Clue]:
        known = self._clues(attempt, control)
        return [clue for clue in clues if clue not in known]

    async def _contradictions(self, attempt: Attempt, response: Response) -> list[Clue]:
        """Return rows in B's list that A may open below the same path, and B may not."""
        found = []
        prefix = f"{attempt.request.path.rstrip('/')}/"
        for seen in list(self._world.a.seen.values()):
            if seen.request.method != "GET" or not _is_below(seen.request.path, prefix):
                continue
            row = self._evidence.listed(attempt.request, response, seen)
            if row is not None and await self._refuses(seen.request):
                found.append(row)
        return found

    async def _refuses(self, request: Request) -> bool:
        answers = [await self._client.send(replace(request), Who.B) for _ in range(2)]
        return all(answer.status in (403, 404) for answer in answers)


def _is_below(path: str, prefix: str) -> bool:
    return path.startswith(prefix) and "/" not in path.removeprefix(prefix).rstrip("/")


def _kind(kind: Kind, response: Response) -> Kind:
    if response.status >= 400:
        return Kind.ERROR_MESSAGE
    attached = "attachment" in response.headers.get("content-disposition", "")
    if attached or any(name in response.content_type for name in _FILES):
        return Kind.EXPORT
    return kind
