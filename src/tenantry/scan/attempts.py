"""What B tries: requests made from A's own, each with the answer that B would get without the trick."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from tenantry.scan.credentials import TENANT_KEY
from tenantry.scan.cursors import parameters
from tenantry.scan.kinds import Kind
from tenantry.scan.messages import Request
from tenantry.scan.objects import label_of_key, things
from tenantry.scan.plan import matches
from tenantry.scan.routes import PAGING, Slot, Template, candidates, put
from tenantry.scan.scene import Scene
from tenantry.scan.survey import Seen
from tenantry.scan.values import Weight, is_unique

_TENANT_PARAMETERS = (
    "tenant_id",
    "tenant",
    "org_id",
    "organization_id",
    "account_id",
    "workspace_id",
    "company_id",
)
_EVERYONE = (("all", "true"), ("all_tenants", "true"), ("scope", "all"), ("include_all", "1"))
_TENANT_HEADERS = (
    "x-tenant-id",
    "x-tenant",
    "x-org-id",
    "x-organization-id",
    "x-account-id",
    "x-workspace-id",
    "x-company-id",
)
_SEARCHES = re.compile(r"q|query|search|term|filter|keyword|text|name|email|title|s", re.IGNORECASE)
_SORTS = re.compile(r"sort|sort_?by|order|order_?by|ordering", re.IGNORECASE)
_EXPANDS = re.compile(r"include|expand|fields|embed|with|populate|relations", re.IGNORECASE)
_MAX_EXPANDED = 6
_MAX_TERMS = 2
_PLACES = {"path": Kind.FOREIGN_ID_PATH, "query": Kind.FOREIGN_ID_QUERY, "body": Kind.FOREIGN_ID_BODY}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing to try as B.

    Attributes:
        kind: What it is, if the answer holds anything of A's.
        route: Of which route.
        detail: What about the request makes it an attempt.
        request: What B sends.
        source: A's own request that it was made from.
        plain: What B may ask for without the trick, whose answer then must not show the same.
        collides: Whether the ids in it could be B's as well.
    """

    kind: Kind
    route: str
    detail: str
    request: Request
    source: Seen
    plain: Request | None = None
    collides: bool = False


class Attempts:
    """Makes up what to try.

    Args:
        scene: Where.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._plan = scene.plan
        self._world = scene.world
        self._evidence = scene.evidence

    def all(self) -> list[Attempt]:
        """Return everything to try, in the order of what is likeliest to leak."""
        made = [attempt for seen in self._scene.sources() for attempt in self._foreign_ids(seen)]
        lists = [seen for seen in self._scene.sources() if self._template(seen).is_neutral]
        made += [attempt for seen in self._scene.sources() for attempt in self._recorded(seen)]
        for make in (self._plainly, self._tenants, self._searches, self._expansions, self._hosts):
            made += [attempt for seen in lists for attempt in make(seen)]
        made += [attempt for seen in self._rows_of_b() for attempt in self._expansions(seen)]
        return list({(attempt.kind, attempt.request): attempt for attempt in reversed(made)}.values())[::-1]

    def _rows_of_b(self) -> list[Seen]:
        seen = [one for one in self._world.b.seen.values() if self._world.b.template(one.request).slots]
        return [
            one
            for one in seen
            if one.request.method == "GET" and not matches(one.request.path, self._plan.shared)
        ]

    def _template(self, seen: Seen) -> Template:
        return self._world.a.template(seen.request)

    def _foreign_ids(self, seen: Seen) -> Iterator[Attempt]:
        slots = self._scene.foreign_slots(seen)
        if not slots:
            return
        collides = not any(is_unique(slot.value) for slot in slots)
        last = slots[-1]
        route, kind = self._template(seen).route, _PLACES[last.place]
        detail = (
            f"A's {last.labels[0] or 'id'} in the path" if last.place == "path" else f"A's id in {last.name}"
        )
        yield Attempt(kind, route, detail, seen.request, seen, None, collides)
        mixed = self._mixed(seen, slots)
        if mixed is not None:
            yield Attempt(kind, route, f"{detail}, below B's own", mixed, seen, None, collides)
        if last.place == "query":
            own = candidates(last, self._world.b.harvest, self._world.b.tenants)[:1]
            for value in own:
                both = put(seen.request, last, f"{value},{last.value}")
                yield Attempt(kind, route, f"{detail}, behind B's own", both, seen, None, collides)

    def _mixed(self, seen: Seen, slots: list[Slot]) -> Request | None:
        """Return the request with B's own ids in all places but the last."""
        request, b = seen.request, self._world.b
        for slot in slots[:-1]:
            own = candidates(slot, b.harvest, b.tenants)
            if not own:
                return None
            request = put(request, slot, own[0])
        return request if len(slots) > 1 else None

    def _plainly(self, seen: Seen) -> Iterator[Attempt]:
        yield Attempt(Kind.UNSCOPED, self._template(seen).route, "the same request as B", seen.request, seen)

    def _recorded(self, seen: Seen) -> Iterator[Attempt]:
        """Yield A's requests with A's cursors, words and wishes in them, as they are."""
        template = self._template(seen)
        if template.slots or template.is_neutral:
            return
        plain = template.bare().request
        names = [name for name, _ in seen.request.query if name not in dict(plain.query)]
        kind, detail = Kind.SEARCH, f"A's {', '.join(names) or 'body'}"
        for pattern, named in ((PAGING, Kind.CURSOR), (_EXPANDS, Kind.EXPANSION)):
            kind = named if any(pattern.fullmatch(name) for name in names) else kind
        yield Attempt(kind, template.route, detail, seen.request, seen, plain if names else None)

    def _tenants(self, seen: Seen) -> Iterator[Attempt]:
        if not seen.request.reads:
            return
        route, request = self._template(seen).route, seen.request
        described = [
            name for name in parameters(request, self._plan.operations) if TENANT_KEY.fullmatch(name)
        ]
        for tenant in sorted(self._world.a.tenants):
            for name in dict.fromkeys((*described, *_TENANT_PARAMETERS)):
                tried = request.with_query(name, tenant)
                yield Attempt(Kind.TENANT_PARAMETER, route, f"?{name}=A", tried, seen, request)
            for name in dict.fromkeys((*self._tenant_headers(), *_TENANT_HEADERS)):
                tried = request.with_header(name, tenant)
                yield Attempt(Kind.TENANT_HEADER, route, f"{name}: A", tried, seen, request)
        for name, value in _EVERYONE:
            tried = request.with_query(name, value)
            yield Attempt(Kind.TENANT_PARAMETER, route, f"?{name}={value}", tried, seen, request)

    def _tenant_headers(self) -> list[str]:
        names = [
            name.lower() for name, value in self._plan.a.headers.items() if value in self._world.a.tenants
        ]
        return [name for name in names if name not in ("authorization", "cookie")]

    def _hosts(self, seen: Seen) -> Iterator[Attempt]:
        if not seen.request.reads:
            return
        a, b = urlsplit(self._plan.base(self._plan.a)), urlsplit(self._plan.base(self._plan.b))
        hosts = (
            [a.netloc]
            if a.netloc != b.netloc
            else [f"{name}.{b.netloc}" for name in sorted(self._world.a.tenants)]
        )
        for host in hosts:
            for header in ("host", "x-forwarded-host"):
                tried = seen.request.with_header(header, host.lower())
                yield Attempt(
                    Kind.TENANT_HOST, self._template(seen).route, f"{header}: A's", tried, seen, seen.request
                )

    def _searches(self, seen: Seen) -> Iterator[Attempt]:
        if seen.request.method != "GET" or not any(thing.id for thing in things(seen.exchange)):
            return
        route, request = self._template(seen).route, seen.request
        known = parameters(request, self._plan.operations)
        names = [name for name in known if _SEARCHES.fullmatch(name)] or ["q", "search"]
        for term in self._terms(seen):
            for name in names:
                tried = request.with_query(name, term)
                yield Attempt(Kind.SEARCH, route, f"?{name}= with words of A's", tried, seen, request)
        for name in [name for name in known if _SORTS.fullmatch(name)] or ["sort", "order_by"]:
            for field in self._sortable(seen):
                yield Attempt(
                    Kind.SEARCH, route, f"?{name}={field}", request.with_query(name, field), seen, request
                )

    def _terms(self, seen: Seen) -> list[str]:
        """Return words of A's: one out of a longer text, so that the text around it is no echo, and a whole text."""
        marks = self._evidence.marks_of(seen.stable, seen.request) or list(self._evidence.marks.values())
        texts = [mark.text for mark in marks if mark.weight >= Weight.SPECIFIC and " " in mark.text]
        words = [max(re.findall(r"\w+", text), key=len, default="") for text in texts]
        whole = [mark.text for mark in marks if mark.weight >= Weight.SPECIFIC and "@" in mark.text]
        return [*list(dict.fromkeys(filter(None, words)))[:_MAX_TERMS], *whole[:1]]

    def _sortable(self, seen: Seen) -> list[str]:
        keys = [key for thing in things(seen.exchange) if thing.id for key in thing.own]
        return list(dict.fromkeys(keys))[:_MAX_TERMS]

    def _expansions(self, seen: Seen) -> Iterator[Attempt]:
        if seen.request.method != "GET":
            return
        route, request = self._template(seen).route, seen.request
        known = parameters(request, self._plan.operations)
        for name in [name for name in known if _EXPANDS.fullmatch(name)] or ["include", "expand"]:
            for related in self._related(seen):
                tried = request.with_query(name, related)
                yield Attempt(Kind.EXPANSION, route, f"?{name}={related}", tried, seen, request)

    def _related(self, seen: Seen) -> list[str]:
        keys = [key for thing in things(seen.exchange) for key in thing.own]
        stems = [stem for key in keys if (stem := label_of_key(key))]
        own = set(seen.request.segments)
        paths = sorted((one.segments for one in self._world.a.seen), key=len, reverse=True)
        words = [parts[-1] for parts in paths if parts[-1].isalpha() and parts[-1] not in own]
        return list(dict.fromkeys([*stems, *words]))[:_MAX_EXPANDED]
