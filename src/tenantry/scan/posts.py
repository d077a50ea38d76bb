"""Whether what is posted crosses from one tenant to the other. It really posts: for staging only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tenantry.scan.content import haystack
from tenantry.scan.evidence import Clue
from tenantry.scan.kinds import Kind
from tenantry.scan.messages import Exchange, Request, Response, Who
from tenantry.scan.objects import label_of_path, things
from tenantry.scan.oracles import ghost
from tenantry.scan.report import Finding
from tenantry.scan.routes import Slot, Template, candidates, put
from tenantry.scan.scene import Scene
from tenantry.scan.values import is_id_key, mentions
from tenantry.scan.volatile import Fingerprint, differ, fingerprint
from tenantry.scan.writes import nonce, text_field

_TENANT_FIELDS = ("tenant_id", "tenant", "org_id", "organization_id", "account_id", "workspace_id")
_TIMES = 2


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that makes a row.

    Attributes:
        template: The request as A would send it, and where it refers to A's rows.
        text: The field that takes any text, if there is one.
    """

    template: Template
    text: str | None

    @property
    def fields(self) -> Mapping[str, Any]:
        """What is posted."""
        fields: Mapping[str, Any] = self.template.request.data
        return fields


class Posts:
    """Makes rows as both tenants, and takes them away again.

    Args:
        scene: Where.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._made: list[tuple[Request, Who]] = []

    def drafts(self) -> list[Draft]:
        """Return what was recorded or described as making rows."""
        found = {draft.template.request.path: draft for draft in (*self._described(), *self._recorded())}
        return [draft for draft in found.values() if self._scene.plan.may_ask(draft.template.request)]

    def _recorded(self) -> Iterator[Draft]:
        for request in self._scene.plan.requests_a:
            safe = self._scene.plan.is_safe_post(request)
            if (
                request.method == "POST"
                and isinstance(request.data, dict)
                and not safe
                and "query" not in request.data
            ):
                yield self._draft(request, request.data)

    def _described(self) -> Iterator[Draft]:
        lists = {seen.request.path: seen for seen in self._scene.sources() if not seen.request.query}
        for operation in self._scene.plan.operations:
            seen = lists.get(operation.template)
            if operation.method != "POST" or seen is None:
                continue
            rows = (thing.own for thing in things(seen.exchange) if thing.id)
            row = next((own for own in rows if set(own) & set(operation.fields)), {})
            body = {name: value for name, value in row.items() if name in operation.fields}
            if body:
                yield self._draft(Request("POST", operation.template).with_json(body), body)

    def _draft(self, request: Request, body: Mapping[str, Any]) -> Draft:
        return Draft(self._scene.world.a.template(request), text_field(body))

    async def of(self, draft: Draft) -> list[Finding]:
        """Return how what is posted crosses over."""
        found = [
            await self._canary(draft),
            *[await self._named(draft, name) for name in _TENANT_FIELDS],
            *[await self._reference(draft, slot) for slot in draft.template.slots if slot.place == "body"],
            *[await self._unique(draft, name) for name in draft.fields],
        ]
        await self._clean_up()
        return [finding for finding in found if finding is not None]

    async def _canary(self, draft: Draft) -> Finding | None:
        """Make a row as A; look for it in B's lists."""
        if draft.text is None:
            return None
        mark = nonce()
        if not (await self._post(draft, Who.A, {draft.text: mark})).ok:
            return None
        shown = await self._shown(mark, Who.B)
        if shown is None or not mentions(haystack(await self._scene.client.send(shown[0], Who.A)), mark):
            return None
        request, answer = shown
        route = self._scene.route(request)
        clues = [Clue("owned", draft.text, mark)]
        return self._scene.writer.finding(
            Kind.UNSCOPED, route, "a row just made by A", request, answer, clues
        )

    async def _named(self, draft: Draft, name: str) -> Finding | None:
        """Make a row as B that names A's tenant; look for it in A's lists."""
        tenant = next(iter(sorted(self._scene.world.a.tenants)), None)
        if tenant is None or draft.text is None:
            return None
        mark, plain = nonce(), nonce()
        request = self._request(draft, Who.B, {draft.text: mark, name: tenant})
        answer = await self._send(request, Who.B)
        await self._post(draft, Who.B, {draft.text: plain})
        if await self._shown(mark, Who.A, without=plain) is None:
            return None
        detail = f"{name} in the body"
        return self._scene.writer.finding(
            Kind.TENANT_IN_BODY, draft.template.route, detail, request, answer, []
        )

    async def _reference(self, draft: Draft, slot: Slot) -> Finding | None:
        """Refer to A's row, and to one that never was."""
        b = self._scene.world.b
        if slot.value in candidates(slot, b.harvest, b.tenants):
            return None
        real, never = list[Fingerprint](), list[Fingerprint]()
        request, answer, other = draft.template.request, Response(0), Response(0)
        for _ in range(_TIMES):
            request = put(self._request(draft, Who.B, {}), slot, slot.value)
            answer = await self._send(request, Who.B)
            real.append(fingerprint(answer, request, (slot.value,)))
            value = ghost(slot.value)
            asked = put(self._request(draft, Who.B, {}), slot, value)
            other = await self._send(asked, Who.B)
            never.append(fingerprint(other, asked, (value,)))
            if not (answer.settled and other.settled) or other.ok:
                return None  # where anything is taken, nothing is looked up
        if not differ(real, never):
            return None
        kind = Kind.FOREIGN_REFERENCE if answer.ok else Kind.EXISTENCE_ORACLE
        detail = f"{slot.name}: {answer.status} for A's, {other.status} for one that never was"
        return self._scene.writer.finding(kind, draft.template.route, detail, request, answer, [])

    async def _unique(self, draft: Draft, name: str) -> Finding | None:
        """Take a value that A has, and one that nobody has."""
        value = self._taken(draft, name)
        if value is None:
            return None
        request, answer, other = draft.template.request, Response(0), Response(0)
        for _ in range(_TIMES):
            request = self._request(draft, Who.B, {name: value})
            answer = await self._send(request, Who.B)
            other = await self._post(draft, Who.B, {name: ghost(value)})
            if not answer.settled or answer.ok or not other.ok:
                return None
        detail = f"{name}: {answer.status} for A's, {other.status} for one that nobody has"
        return self._scene.writer.finding(
            Kind.UNIQUENESS_ORACLE, draft.template.route, detail, request, answer, []
        )

    def _taken(self, draft: Draft, name: str) -> str | None:
        """Return a value of A's in a field that may have to be unique, which B has not."""
        if not (is_id_key(name.lower()) or name.lower() in ("email", "name", "title", "username", "domain")):
            return None
        if any(slot.at == (name,) for slot in draft.template.slots) and "@" not in str(draft.fields[name]):
            return None
        label = label_of_path(draft.template.request.segments)
        own = {one.own.get(name) for found in self._scene.world.b.exchanges for one in things(found)}
        values = (
            one.own[name]
            for found in self._scene.world.a.exchanges
            for one in things(found)
            if one.label == label and name in one.own
        )
        return next((value for value in values if value not in own), None)

    def _request(self, draft: Draft, who: Who, fields: Mapping[str, Any]) -> Request:
        """Return the request as one tenant would send it: its own references, and values that nobody has yet."""
        side = self._scene.world.a if who is Who.A else self._scene.world.b
        request = draft.template.request
        body = {**request.data}
        for name, value in body.items():
            if isinstance(value, str) and ("@" in value or is_id_key(name.lower())):
                body[name] = ghost(value)
        if draft.text is not None:
            body[draft.text] = nonce()
        request = request.with_json(body)
        for slot in draft.template.slots:
            own = candidates(slot, side.harvest, side.tenants)[:1]
            for value in own:
                request = put(request, slot, value)
        return request.with_json({**request.data, **fields})

    async def _post(self, draft: Draft, who: Who, fields: Mapping[str, Any]) -> Response:
        return await self._send(self._request(draft, who, fields), who)

    async def _send(self, request: Request, who: Who) -> Response:
        response = await self._scene.client.send(request, who)
        made = next((thing.id for thing in things(Exchange(request, response)) if thing.id), None)
        if response.ok and made is not None:
            row = Request("DELETE", f"{request.path.rstrip('/')}/-").with_segment(len(request.segments), made)
            self._made.append((row, who))
        return response

    async def _shown(self, mark: str, who: Who, without: str = "") -> tuple[Request, Response] | None:
        """Return what asks for a list that shows one text and not the other, and the list."""
        asked = {seen.request.path: seen.request for seen in self._scene.sources() if not seen.request.query}
        for request in asked.values():
            if self._scene.world.a.template(request).is_neutral:
                response = await self._scene.client.send(request, who)
                said = haystack(response)
                if mentions(said, mark) and not (without and mentions(said, without)):
                    return request, response
        return None

    async def _clean_up(self) -> None:
        for row, who in self._made:
            if not (await self._scene.client.send(row, who)).ok and who is Who.B:
                await self._scene.client.send(row, Who.A)  # where naming A's tenant worked, the row is A's
        self._made.clear()
