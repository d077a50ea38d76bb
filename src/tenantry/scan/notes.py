"""What a reader of the report should know beside the leaks."""

from __future__ import annotations

from collections.abc import Iterator

from tenantry.scan.messages import Request
from tenantry.scan.plan import Plan
from tenantry.scan.survey import Seen, World
from tenantry.scan.volatile import same_values


def notes(plan: Plan, world: World) -> list[str]:
    """Return what was not tried, and why, and what looks odd without being a leak."""
    return [*_unsent(plan), *_unreached(world), *_alike(world), *_nameless(world), *_public(world)]


def _unsent(plan: Plan) -> Iterator[str]:
    recorded = [request for request in plan.requests_a if not plan.may_ask(request)]
    posts = {request.path for request in recorded if request.method == "POST"}
    others = [request for request in recorded if request.method != "POST" and not request.reads]
    if posts:
        yield f"Not sent, since a POST may write: {_listed(posts)}. If one only reads, say so with --safe-post."
    if others:
        paths = {request.path for request in others}
        yield f"Not sent, since they write: {_listed(paths)}. To try them on staging, add --writes."


def _unreached(world: World) -> Iterator[str]:
    failed = {request.path for request, status in world.a.refused.items() if status in (401, 403)}
    if failed:
        yield f"A may not read, so nothing could be learnt there: {_listed(failed)}."


def _alike(world: World) -> Iterator[str]:
    """Name what both tenants see alike: reference data, or a list that nobody filters."""
    same = [seen.request for seen in world.a.seen.values() if _is_alike(world, seen)]
    paths = {request.path for request in same}
    if paths:
        yield (
            f"Both tenants see the same at {_listed(paths)}. If that is not everyone's data, name a value of A's in it "
            "with --owns."
        )


def _is_alike(world: World, seen: Seen) -> bool:
    other = world.b.seen.get(seen.request)
    if other is None or not seen.stable or any(_is(seen.request, found.request) for found in world.public):
        return False
    return same_values(seen.exchange.response, other.exchange.response, seen.request, seen.volatile)


def _is(one: Request, other: Request) -> bool:
    return one.path == other.path


def _nameless(world: World) -> Iterator[str]:
    if not world.a.tenants:
        yield "A's tenant has no name here, so none was put in parameters, headers and hosts; give it with --tenant-a."


def _public(world: World) -> Iterator[str]:
    paths = {found.request.path for found in world.public}
    if paths:
        yield f"Answered without any credentials: {_listed(paths)}. What is shown there counts as public."


def _listed(paths: set[str]) -> str:
    first = sorted(paths)[:8]
    more = len(paths) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
