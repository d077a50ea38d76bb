"""Learns what each tenant sees of its own accord, before anyone tries anything."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from tenantry.errors import ConfigurationError
from tenantry.scan.client import Client
from tenantry.scan.content import Leaf, leaves, trees
from tenantry.scan.credentials import TENANT_KEY
from tenantry.scan.cursors import next_pages
from tenantry.scan.messages import Exchange, Request, Response, Who
from tenantry.scan.objects import Harvest, things
from tenantry.scan.plan import Plan
from tenantry.scan.routes import Template, filled, template_of, template_of_operation
from tenantry.scan.values import is_id_like

_ROUNDS = 3
_JSON = "application/json"
_PAGES = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tenant was answered, twice.

    Attributes:
        exchange: The request, and the first answer.
        stable: The values that both answers had.
    """

    exchange: Exchange
    stable: tuple[Leaf, ...]

    @property
    def request(self) -> Request:
        """The request."""
        return self.exchange.request

    @property
    def volatile(self) -> frozenset[str]:
        """The names whose values are others each time."""
        known = set(self.stable)
        return frozenset(".".join(leaf.keys) for leaf in leaves(self.exchange.response) if leaf not in known)


@dataclass
class Side:
    """One tenant, and what it has seen."""

    who: Who
    tenants: frozenset[str]
    seen: dict[Request, Seen] = field(default_factory=dict)
    refused: dict[Request, int] = field(default_factory=dict)
    harvest: Harvest = field(default_factory=Harvest)

    @property
    def exchanges(self) -> list[Exchange]:
        """What was answered."""
        return [seen.exchange for seen in self.seen.values()]

    def template(self, request: Request) -> Template:
        """Return where a request of this tenant holds ids."""
        return template_of(request, self.harvest, self.tenants)


@dataclass
class World:
    """What is known of the application."""

    a: Side
    b: Side
    public: list[Exchange] = field(default_factory=list)


class Survey:
    """Asks for what each tenant may have.

    Args:
        plan: What is known beforehand.
        client: Sends.
    """

    def __init__(self, plan: Plan, client: Client) -> None:
        self._plan = plan
        self._client = client
        self._operations = [
            template_of_operation(found) for found in plan.operations if found.method == "GET"
        ]
        self.world = World(Side(Who.A, plan.a.tenants()), Side(Who.B, plan.b.tenants()))

    async def run(self) -> World:
        """Ask, and return what was learnt.

        Raises:
            ConfigurationError: The application is not there, or the credentials do not serve.
        """
        a, b = self.world.a, self.world.b
        await self._learn(a, self._seeds())
        self._learn_tenants()
        await self._explore(a, [])
        self._check_works(a, "a")
        templates = [a.template(request) for request in a.seen]
        await self._learn(b, [template.request for template in templates if template.is_neutral])
        await self._learn(b, self._allowed(self._plan.requests_b))
        self._learn_tenants()
        await self._explore(b, [template.bare() for template in map(a.template, a.seen)])
        self._check_works(b, "b")
        self._learn_tenants()
        self._forget_leaks()
        await self._ask_for_what_b_has_not()
        await self._ask_as_nobody()
        return self.world

    def _seeds(self) -> list[Request]:
        recorded = self._allowed(self._plan.requests_a)
        described = [template.request for template in self._operations if not template.slots]
        return [*recorded, *self._allowed(described), *_parents(recorded)]

    def _allowed(self, requests: Iterable[Request]) -> list[Request]:
        may = [request for request in requests if self._plan.may_ask(request)]
        return [request for request in may if request.reads or self._plan.is_safe_post(request)]

    async def _explore(self, side: Side, templates: list[Template]) -> None:
        """Fill what needs ids with those seen so far, turn pages, and follow lists to their rows."""
        for _ in range(_ROUNDS):
            before = len(side.seen) + len(side.refused)
            wanted = [template for template in (*self._operations, *templates) if template.slots]
            for template in wanted:
                await self._learn(side, filled(template, side.harvest, side.exchanges, side.tenants))
            await self._learn(side, [page for found in side.exchanges for page in self._pages(side, found)])
            await self._learn(side, [row for found in side.exchanges for row in self._rows(side, found)])
            if len(side.seen) + len(side.refused) == before:
                break

    def _pages(self, side: Side, exchange: Exchange) -> list[Request]:
        turned = Counter(seen.path for seen in side.seen)[exchange.request.path]
        return next_pages(exchange, self._plan.operations) if turned <= _PAGES else []

    def _rows(self, side: Side, exchange: Exchange) -> list[Request]:
        """Return requests for the first rows of a list, as REST would have them, where none is known."""
        request = exchange.request
        if not request.reads or self._operations or side.template(request).slots:
            return []
        ids = [thing.id for thing in things(exchange) if thing.id and len(thing.own) > 1]
        rows = [
            Request("GET", f"{request.path.rstrip('/')}/-").with_segment(len(request.segments), id)
            for id in ids
        ]
        return self._allowed(rows[: self._plan.limits.examples])

    async def _learn(self, side: Side, requests: Iterable[Request]) -> None:
        await self._keep(side, self._sample(side, dict.fromkeys(requests)))

    async def _keep(self, side: Side, fresh: list[Request]) -> None:
        for found in await asyncio.gather(*(self._ask(side, request) for request in fresh)):
            if found is not None:
                side.seen[found.request] = found
                side.harvest.learn(found.exchange)

    def _sample(self, side: Side, requests: Iterable[Request]) -> list[Request]:
        """Return the requests that were not made, a few of each route."""
        known = Counter(side.template(request).route for request in side.seen)
        tried = Counter(side.template(request).route for request in side.refused)
        chosen = []
        for request in self._allowed(requests):
            route = side.template(request).route
            full = known[route] >= self._plan.limits.examples or tried[route] >= 2 * _ROUNDS
            if request not in side.seen and request not in side.refused and not full:
                known[route] += 1
                chosen.append(request)
        return chosen

    async def _ask(self, side: Side, request: Request) -> Seen | None:
        first = await self._fresh(request, side.who)
        second = await self._fresh(request, side.who) if first.ok else first
        if not (first.ok and second.ok):
            side.refused[request] = first.status if not first.ok else second.status
            return None
        again = {(leaf.keys, leaf.text) for leaf in leaves(second)}
        stable = tuple(leaf for leaf in leaves(first) if (leaf.keys, leaf.text) in again)
        return Seen(Exchange(request, first), stable)

    async def _fresh(self, request: Request, who: Who) -> Response:
        """Ask past any cache, so that one tenant's answer is not taken for the other's."""
        if request.method == "GET":
            response = await self._client.send(request.with_query("_", secrets.token_hex(4)), who)
            if response.ok:
                return response
        return await self._client.send(request, who)

    async def _ask_as_nobody(self) -> None:
        requests = self._first_of_each_route(self.world.a)
        answers = await asyncio.gather(*(self._client.send(request, Who.NOBODY) for request in requests))
        self.world.public = [
            Exchange(request, answer) for request, answer in zip(requests, answers, strict=True) if answer.ok
        ]

    def _first_of_each_route(self, side: Side) -> list[Request]:
        return list({side.template(request).route: request for request in side.seen}.values())

    def _learn_tenants(self) -> None:
        """Take the tenants' names from where a response names one alone."""
        a, b = _named(self.world.a), _named(self.world.b)
        self.world.a.tenants = self._plan.a.tenants() | frozenset(a - b)
        self.world.b.tenants = self._plan.b.tenants() | frozenset(b - a)

    async def _ask_for_what_b_has_not(self) -> None:
        """Ask for A's rows whose ids are not B's as well: where both have a row 1, that one shows nothing."""
        a, b = self.world.a, self.world.b
        templates = {found.route: found for found in map(a.template, list(a.seen)) if found.slots}
        for template in (*self._operations, *templates.values()):
            if template.slots:
                wanted = filled(template.bare(), a.harvest, a.exchanges, a.tenants, without=b.harvest)
                fresh = [
                    found for found in self._allowed(wanted) if found not in a.seen and found not in a.refused
                ]
                await self._keep(a, fresh[: self._plan.limits.examples])

    def _forget_leaks(self) -> None:
        """Take rows that say that they are A's out of what B has seen: they are no less A's for having leaked."""
        b, foreign = self.world.b, self.world.a.tenants
        b.harvest = Harvest()
        for request, seen in b.seen.items():
            response = seen.exchange.response
            if foreign and trees(response):
                body = json.dumps([_without(tree, foreign) for tree in trees(response)]).encode()
                response = replace(response, body=body, headers={**response.headers, "content-type": _JSON})
            b.seen[request] = replace(seen, exchange=Exchange(request, response))
            b.harvest.learn(b.seen[request].exchange)

    def _check_works(self, side: Side, name: str) -> None:
        if side.seen:
            return
        statuses = Counter(side.refused.values())
        if not statuses:
            raise ConfigurationError(
                f"There is nothing to ask as tenant {name} that only reads.",
                field="requests_a",
                fix="Record pages that show something, or describe them; for a POST that only reads, use --safe-post.",
            )
        if set(statuses) == {0}:
            raise ConfigurationError(
                f"The application at {self._plan.target} does not answer{self._client.trouble}.",
                field="target",
                fix="Check the address, and that it runs and can be reached from here; give its authority with --ca.",
            )
        listed = ", ".join(f"{status} {count} times" for status, count in sorted(statuses.items()))
        raise ConfigurationError(
            f"No request succeeded as tenant {name} (statuses: {listed}).",
            field=f"{name}.headers",
            fix="Sign in anew and give a fresh token; check that the paths are those below the base URL.",
        )


def _named(side: Side) -> set[str]:
    found: set[str] = set()
    for seen in side.seen.values():
        names = {leaf.text for leaf in seen.stable if TENANT_KEY.fullmatch(leaf.key) and leaf.text}
        found |= names if len(names) == 1 else set()
    return found


def _without(data: Any, tenants: frozenset[str]) -> Any:
    if isinstance(data, list):
        return [_without(item, tenants) for item in data if not _names(item, tenants)]
    if isinstance(data, dict):
        return {key: _without(value, tenants) for key, value in data.items()}
    return data


def _names(item: Any, tenants: frozenset[str]) -> bool:
    return isinstance(item, dict) and any(
        TENANT_KEY.fullmatch(str(key)) and str(value) in tenants for key, value in item.items()
    )


def _parents(requests: list[Request]) -> list[Request]:
    """Return requests for the lists that the rows asked for are probably in."""
    found = []
    for request in requests:
        for at, part in enumerate(request.segments):
            if at and is_id_like(part) and request.method == "GET":
                found.append(Request("GET", "/".join(request.path.split("/")[: at + 1])))
    return found
