"""What every bound manager of one SDK shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tenantry.coalescer import Coalescer
from tenantry.context import SystemContext
from tenantry.cursors import CursorSigner
from tenantry.errors import (
    UnknownCollection,
)
from tenantry.hooks import Hooks
from tenantry.ports import Database
from tenantry.resilience.retry import Retry
from tenantry.schema import Collection, KeyedModel


class Admission(Protocol):
    """Says whether a tenant may be served; see :class:`tenantry.tenants.TenantLease`."""

    def admits(self, tenant_id: str) -> bool:
        """Whether it may, as far as is known without looking."""

    async def admit(self, tenant_id: str) -> None:
        """Look, and raise unless it may."""


@dataclass(frozen=True, slots=True, eq=False)
class Runtime:
    """What every bound :class:`DataManager` of one SDK shares."""

    database: Database
    collections: Mapping[str, Collection]
    models: Mapping[type[KeyedModel], Collection]
    lease: Admission
    hooks: Hooks
    cursors: CursorSigner
    coalescer: Coalescer | None
    logs: Mapping[str, Collection] = field(default_factory=dict)
    systems: set[SystemContext] = field(default_factory=set)
    retry: Retry = field(default_factory=lambda: Retry(attempts=1, seconds=0.0))
    raw: bool = True  # whether SQL of the caller's own may run, of which no hook sees what it writes
    batch_size: int = 1_000

    def collection(self, target: object) -> tuple[Collection, bool]:
        """Return the collection that ``target``, a model or a name, stands for, and whether it was a model."""
        typed = isinstance(target, type)
        if isinstance(target, type):
            found = self.models.get(target)
        else:
            found = self.collections.get(target) if isinstance(target, str) else None
        if found is None:
            name = target if isinstance(target, str) else getattr(target, "__name__", repr(target))
            raise UnknownCollection(str(name)[:80], list(self.collections))
        return found, typed
