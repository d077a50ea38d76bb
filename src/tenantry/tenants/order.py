"""In which order the collections of a tenant can be emptied."""

from __future__ import annotations

from collections.abc import Sequence

from tenantry.errors import (
    ConfigurationError,
)
from tenantry.schema import Collection


def children_first(collections: Sequence[Collection]) -> Sequence[Collection]:
    """Return the tenant collections so that each comes before those it refers to."""
    tenant_owned = {item.name: item for item in collections if item.scope == "tenant"}
    ordered: dict[str, Collection] = {}

    def visit(collection: Collection, above: frozenset[str]) -> None:
        if collection.name in above:
            raise ConfigurationError(
                f"Collections refer to each other in a circle: {', '.join(sorted(above))}.",
                field="models",
                fix="Turn one reference of the circle off with Ref(…, enforced=False).",
            )
        for field in collection.fields.values():
            if field.ref is not None and field.ref.enforced and field.ref.collection != collection.name:
                target = tenant_owned.get(field.ref.collection)
                if target is not None and target.name not in ordered:
                    visit(target, above | {collection.name})
        ordered[collection.name] = collection

    for item in tenant_owned.values():
        if item.name not in ordered:
            visit(item, frozenset())
    return list(reversed(ordered.values()))
