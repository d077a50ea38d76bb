"""Whether B can change or delete what is A's. It really tries: for staging only."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tenantry.scan.content import Leaf, haystack
from tenantry.scan.cursors import describes
from tenantry.scan.kinds import Kind
from tenantry.scan.messages import Request, Response, Who
from tenantry.scan.report import Finding
from tenantry.scan.scene import Scene
from tenantry.scan.survey import Seen
from tenantry.scan.values import UUID, Weight, is_id_key, is_time, mentions, weigh

_CHANGES = ("PATCH", "PUT")
_TIMES = 2
_GONE = frozenset({404, 410})


class Changes:
    """Changes and deletes A's rows as B, and reads them back as A.

    Args:
        scene: Where.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def of(self, seen: Seen) -> list[Finding]:
        """Return how B could write to the row that A asked for."""
        slots = self._scene.foreign_slots(seen)
        last = len(seen.request.path.rstrip("/").split("/")) - 2
        is_row = any(slot.place == "path" and slot.at == (last,) for slot in slots)
        if not is_row or seen.request.method != "GET":
            return []
        found = [await self._change(seen, method) for method in _CHANGES if self._may(method, seen.request)]
        if self._may("DELETE", seen.request):
            found.append(await self._delete(seen))
        return [finding for finding in found if finding is not None]

    def _may(self, method: str, request: Request) -> bool:
        """Whether a method is worth trying: a description that has none of it says that there is none."""
        operations = [found for found in self._scene.plan.operations if describes(found, request)]
        asked = replace(request, method=method, query=())
        return self._scene.plan.may_ask(asked) and (
            not operations or method in {found.method for found in operations}
        )

    async def _change(self, seen: Seen, method: str) -> Finding | None:
        row = seen.exchange.response.data
        field = text_field(row) if isinstance(row, dict) else None
        if field is None:
            return None
        request, answer = seen.request, Response(0)
        for _ in range(_TIMES):
            mark = nonce()
            body = {field: mark} if method == "PATCH" else {**row, field: mark}
            request = replace(seen.request, method=method).with_json(body)
            answer = await self._scene.client.send(request, Who.B)
            if not mentions(haystack(await self._scene.client.send(seen.request, Who.A)), mark):
                return None
        await self._scene.client.send(request.with_json({**(request.data or {}), field: row[field]}), Who.A)
        return self._found(seen, request, answer, f"{field}, changed as B, reads changed as A")

    async def _delete(self, seen: Seen) -> Finding | None:
        request = replace(seen.request, method="DELETE")
        if not (await self._scene.client.send(seen.request, Who.A)).ok:
            return None
        answer = await self._scene.client.send(request, Who.B)
        after = [await self._scene.client.send(seen.request, Who.A) for _ in range(_TIMES)]
        if not all(read.status in _GONE for read in after):
            return None
        return self._found(seen, request, answer, f"deleted as B, reads {after[0].status} as A")

    def _found(self, seen: Seen, request: Request, answer: Response, detail: str) -> Finding:
        route = self._scene.route(seen.request).replace(seen.request.method, request.method, 1)
        return self._scene.writer.finding(Kind.FOREIGN_WRITE, route, detail, request, answer, [])


def nonce() -> str:
    """Return a text that stands nowhere yet."""
    return f"tenantry scan {secrets.token_hex(6)}"


def text_field(row: Mapping[str, Any]) -> str | None:
    """Return the name of a field that takes any text, or None."""
    for name, value in row.items():
        if isinstance(value, str) and not (is_id_key(name.lower()) or is_time(value) or UUID.search(value)):
            free = weigh(Leaf((name,), value)) >= Weight.SPECIFIC and "@" not in value and "://" not in value
            if free:
                return name
    return None
