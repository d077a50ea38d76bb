"""Whether a cache, or a validator, answers one tenant with what was made for the other."""

from __future__ import annotations

import secrets

from tenantry.scan.evidence import Clue
from tenantry.scan.kinds import Kind
from tenantry.scan.messages import Request, Response, Who
from tenantry.scan.oracles import ghost
from tenantry.scan.report import Finding
from tenantry.scan.routes import put
from tenantry.scan.scene import Scene
from tenantry.scan.survey import Seen
from tenantry.scan.volatile import same_values

_TIMES = 2


class Caches:
    """Asks the same as both tenants, one right after the other.

    Args:
        scene: Where.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def of(self, seen: Seen) -> list[Finding]:
        """Return what is wrong with how the answer to one of A's requests is cached."""
        if seen.request.method != "GET":
            return []
        found = [await self._shared(seen), await self._validated(seen)]
        return [finding for finding in found if finding is not None]

    async def _shared(self, seen: Seen) -> Finding | None:
        """Ask for an address that is new to the cache, A first; then for another one, B first."""
        if not self._scene.world.a.template(seen.request).is_neutral:
            return None
        route, request, answer = self._scene.route(seen.request), seen.request, Response(0)
        for _ in range(_TIMES):
            request = _new(seen.request)
            first = await self._send(request, Who.A)
            answer = await self._send(request, Who.B)
            if not _equal(first, answer, request, seen.volatile):
                return None
            if not await self._filled_by_b(seen, first):
                return None
        marks = self._scene.evidence.marks_of(seen.stable, request)
        clues = [Clue("body", mark.name, mark.text) for mark in marks]
        return self._scene.writer.finding(
            Kind.SHARED_CACHE, route, "asked by A, then by B", request, answer, clues
        )

    async def _filled_by_b(self, seen: Seen, first: Response) -> bool:
        """Whether, when B asks first, both get something else, and that is the same whenever B does so."""
        request, volatile = seen.request, seen.volatile
        asked = _new(request)
        mine = await self._send(asked, Who.B)
        theirs = await self._send(asked, Who.A)
        again = await self._send(_new(request), Who.B)
        return (
            _equal(mine, theirs, request, volatile)
            and _equal(mine, again, request, volatile)
            and not same_values(mine, first, request, volatile)
        )

    async def _validated(self, seen: Seen) -> Finding | None:
        """Show A's ETag as B, where B may not see what it stands for."""
        tag = seen.exchange.response.headers.get("etag")
        route = self._scene.route(seen.request)
        if not tag or self._scene.leaks_at(route):
            return None
        plain = await self._send(seen.request, Who.B)
        if not plain.settled or plain.headers.get("etag") == tag:
            return None
        asked, other = seen.request.with_header("if-none-match", tag), self._elsewhere(seen, tag)
        answer = Response(0)
        for _ in range(_TIMES):
            answer = await self._send(asked, Who.B)
            if answer.status != 304 or (await self._send(other, Who.B)).status == 304:
                return None
        return self._scene.writer.finding(
            Kind.VALIDATOR, route, "A's ETag in If-None-Match", asked, answer, []
        )

    def _elsewhere(self, seen: Seen, tag: str) -> Request:
        slots = self._scene.foreign_slots(seen)
        request = put(seen.request, slots[-1], ghost(slots[-1].value)) if slots else _new(seen.request)
        return request.with_header("if-none-match", tag if slots else '"none"')

    async def _send(self, request: Request, who: Who) -> Response:
        return await self._scene.client.send(request, who)


def _new(request: Request) -> Request:
    return request.with_query("_", secrets.token_hex(6))


def _equal(one: Response, other: Response, request: Request, volatile: frozenset[str]) -> bool:
    return one.ok and other.ok and same_values(one, other, request, volatile)
