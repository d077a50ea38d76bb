"""What everything that is tried works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from tenantry.scan.client import Client
from tenantry.scan.evidence import Evidence
from tenantry.scan.messages import Request
from tenantry.scan.plan import Plan, matches
from tenantry.scan.report import Finding, Writer
from tenantry.scan.routes import Slot, candidates
from tenantry.scan.survey import Seen, World


@dataclass
class Scene:
    """A scan that has begun.

    Attributes:
        unsettled: Routes that were never answered but by outages and rate limits.
        findings: What was found so far.
    """

    plan: Plan
    client: Client
    world: World
    evidence: Evidence
    writer: Writer
    unsettled: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def sources(self) -> list[Seen]:
        """Return A's own requests, without those to shared data."""
        seen = self.world.a.seen.values()
        return [one for one in seen if not matches(one.request.path, self.plan.shared)]

    def route(self, request: Request) -> str:
        """Return the route of one of A's requests."""
        return self.world.a.template(request).route

    def leaks_at(self, route: str) -> bool:
        """Whether something was found there already."""
        return any(finding.route == route for finding in self.findings)

    def foreign_slots(self, seen: Seen) -> list[Slot]:
        """Return where a request of A's holds an id that is not B's too."""
        b = self.world.b
        if seen.request in b.seen:
            return []
        slots = self.world.a.template(seen.request).slots
        return [slot for slot in slots if slot.value not in candidates(slot, b.harvest, b.tenants)]
