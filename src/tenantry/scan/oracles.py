"""Whether B can tell that a row of A's exists, though nothing of it is shown."""

from __future__ import annotations

import random
import re
import secrets
from dataclasses import replace

from tenantry.scan.kinds import Kind
from tenantry.scan.messages import Request, Response, Who
from tenantry.scan.report import Finding
from tenantry.scan.routes import Slot, put
from tenantry.scan.scene import Scene
from tenantry.scan.survey import Seen
from tenantry.scan.values import UUID, is_unique
from tenantry.scan.volatile import Fingerprint, differ, fingerprint

_FIRST_ROUNDS, _ROUNDS = 2, 8
_MALFORMED = frozenset({400, 414, 422})
_INT32 = 2**31 - 1  # beyond it, an id that never was may be one that cannot be
_FAR = 1_000_003
_random = random.SystemRandom()


class Oracles:
    """Compares the answers for A's ids with those for ids that never existed.

    Args:
        scene: Where.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def of(self, seen: Seen) -> Finding | None:
        """Return how B can tell that what A asked for exists, or None."""
        slots = self._scene.foreign_slots(seen)
        route = self._scene.route(seen.request)
        if not slots or self._scene.leaks_at(route):
            return None
        methods = (seen.request.method, "HEAD") if seen.request.method == "GET" else (seen.request.method,)
        for method in methods:
            found = await self._asked(route, replace(seen.request, method=method), slots[-1])
            if found is not None:
                return found
        return None

    async def _asked(self, route: str, request: Request, slot: Slot) -> Finding | None:
        """Ask for the row and for two that never were, in turns, so that nothing else can have changed between them."""
        ghosts = [ghost(slot.value) for _ in range(2)]
        real, never = list[Fingerprint](), list[Fingerprint]()
        response = other = Response(0)
        for turn in range(_ROUNDS):
            response = await self._fingerprint(request, slot.value, real)
            for value in ghosts:
                other = await self._fingerprint(put(request, slot, value), value, never)
                if not (response.settled and other.settled):
                    self._scene.unsettled.add(route)
                    return None
            if turn >= _FIRST_ROUNDS and not differ(real, never):
                return None
        if other.status in _MALFORMED or (response.ok and not is_unique(slot.value)):
            return None  # no such id can be; or it is B's own row of the same number
        if (await self._scene.client.send(request, Who.NOBODY)).ok:
            return None  # everybody may know
        answers = f"{response.status} for A's id, {other.status} for one that never was"
        detail = (
            f"{request.method}: {answers}{', with another body' if response.status == other.status else ''}"
        )
        return self._scene.writer.finding(Kind.EXISTENCE_ORACLE, route, detail, request, response, [])

    async def _fingerprint(self, request: Request, value: str, found: list[Fingerprint]) -> Response:
        response = await self._scene.client.send(request, Who.B)
        found.append(fingerprint(response, request, (value,)))
        return response


def ghost(value: str) -> str:
    """Return an id of the same shape that nothing has."""
    if UUID.fullmatch(value):
        return value[:-12] + secrets.token_hex(6)
    if value.isdigit():
        number, far = int(value), _FAR + _random.randrange(10_000)
        return str(number - far if number <= _INT32 < number + far else number + far)
    return (
        re.sub(r"\d|(?<=[\d@_-])[a-z]|[a-z](?=[a-z]*[@.])", _other, value)
        if re.search(r"\d", value)
        else _word(value)
    )


def _other(found: re.Match[str]) -> str:
    return _random.choice("0123456789" if found[0].isdigit() else "abcdefghijklmnopqrstuvwxyz")


def _word(value: str) -> str:
    return "".join(
        _random.choice("abcdefghijklmnopqrstuvwxyz") if letter.islower() else letter for letter in value
    )
