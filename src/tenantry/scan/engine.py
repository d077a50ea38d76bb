"""Runs a scan from end to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import httpx

from tenantry.errors import ConfigurationError
from tenantry.scan.attempts import Attempts
from tenantry.scan.caches import Caches
from tenantry.scan.client import Client, OutOfRequests
from tenantry.scan.evidence import Evidence
from tenantry.scan.login import signed_in
from tenantry.scan.notes import notes
from tenantry.scan.oracles import Oracles
from tenantry.scan.plan import Plan
from tenantry.scan.posts import Posts
from tenantry.scan.report import Finding, Report, Writer, by_severity
from tenantry.scan.scene import Scene
from tenantry.scan.survey import Survey, World
from tenantry.scan.trial import Trial
from tenantry.scan.writes import Changes

T = TypeVar("T")
Found = Finding | list[Finding] | None
Progress = Callable[[str, int, int], object]
_AT_ONCE = 16


async def scan(
    plan: Plan,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    on_progress: Progress | None = None,
    show_values: bool = False,
) -> Report:
    """Replay A's requests as B, and report every answer that holds what is A's.

    Args:
        plan: What to scan, as whom.
        transport: In place of the network, such as ``httpx.ASGITransport(app)``.
        on_progress: Called with what is being done, how much of it is done, and of how much.
        show_values: Report A's values in full, not shortened.

    Raises:
        ConfigurationError: The plan cannot be carried out: the application is not there, or a tenant's credentials
            do not serve, or both see the same.
    """
    plan = await signed_in(plan, transport)
    async with Client(plan, transport=transport) as client:
        return await _Scan(plan, client, on_progress or _silent, show_values).run()


class _Scan:
    def __init__(self, plan: Plan, client: Client, progress: Progress, show_values: bool) -> None:
        self._plan = plan
        self._client = client
        self._progress = progress
        self._writer = Writer(plan.base(plan.b), (plan.a, plan.b), show_values)
        self._findings: list[Finding] = []
        self._attempts = 0
        self._routes: set[str] = set()
        self._unsettled: set[str] = set()
        self._notes: list[str] = []

    async def run(self) -> Report:
        complete = True
        try:
            await self._run()
        except OutOfRequests:
            complete = False
            self._notes.append(
                f"Stopped after {self._client.sent} requests; raise the limit to try the rest."
            )
        if self._unsettled:
            complete = False
            listed = ", ".join(sorted(self._unsettled))
            self._notes.append(f"Not settled, since the application was busy or away: {listed}.")
        return Report(
            by_severity(_once(self._findings)),
            tuple(dict.fromkeys(self._notes)),
            len(self._routes),
            self._attempts,
            self._client.sent,
            complete,
        )

    async def _run(self) -> None:
        self._progress("Learning what each tenant sees", 0, 0)
        world = await Survey(self._plan, self._client).run()
        evidence = Evidence(world, self._plan.owned)
        _check_apart(world, evidence, self._plan)
        scene = Scene(
            self._plan, self._client, world, evidence, self._writer, self._unsettled, self._findings
        )
        self._notes += notes(self._plan, world)
        caches, oracles, trial = Caches(scene), Oracles(scene), Trial(scene)
        sources = scene.sources()
        self._routes |= {scene.route(seen.request) for seen in sources}
        await self._try("Asking in turns", caches.of, sources)
        await self._try("Replaying as B", trial.of, Attempts(scene).all())
        await self._try("Asking for what exists", oracles.of, sources)
        if self._plan.writes:
            changes, posts = Changes(scene), Posts(scene)
            await self._try("Posting", posts.of, posts.drafts(), at_once=1)
            await self._try("Changing A's as B", changes.of, sources, at_once=1)

    async def _try(
        self,
        what: str,
        attempt: Callable[[T], Awaitable[Found]],
        things: Sequence[T],
        at_once: int = _AT_ONCE,
    ) -> None:
        for start in range(0, len(things), at_once):
            self._progress(what, start, len(things))
            chunk = things[start : start + at_once]
            for found in await asyncio.gather(*map(attempt, chunk)):
                self._findings += found if isinstance(found, list) else [found] if found is not None else []
            self._attempts += len(chunk)


def _check_apart(world: World, evidence: Evidence, plan: Plan) -> None:
    if world.a.tenants & world.b.tenants:
        both = ", ".join(sorted(world.a.tenants & world.b.tenants))
        raise _same(f"Both tenants' credentials are of the same tenant: {both}.")
    if not evidence.knows_a and not plan.owned:
        raise _same("Everything that A sees, B sees too.")


def _same(message: str) -> ConfigurationError:
    return ConfigurationError(
        message,
        field="b.headers",
        fix="Give the credentials of two tenants, and let A have data that B has not. If they have and all of it is "
        "shown to both, nothing keeps them apart: name a value that is A's with --owns, and it will be found.",
    )


def _once(findings: list[Finding]) -> list[Finding]:
    """Return one finding of each kind, route and detail."""
    return list({(found.kind, found.route, found.detail): found for found in reversed(findings)}.values())[
        ::-1
    ]


def _silent(what: str, done: int, total: int) -> None:
    pass
