"""Tables of the SDK's own that hold rows of tenants: who may do what with them.

They are written by the system for one tenant, so that no SQL of a tenant's own, injected or not, makes itself a member
or reads the digest of a key. A purge empties them with the tenant's other tables.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tenantry.context import Context, SystemContext
from tenantry.errors import IsolationError
from tenantry.schema import Collection, KeyedModel, collection_of


def internal(
    model: type[KeyedModel],
    *,
    rights: tuple[Literal["SELECT", "INSERT"], ...] = (),
    across: tuple[tuple[str, ...], ...] = (),
) -> Collection:
    """Return the collection of a model of the SDK's own whose rows belong to tenants.

    Args:
        model: The model; its name begins with ``tenantry_`` and it is marked ``__control__``.
        rights: What a tenant's own statements may do with its rows.
        across: Groups of fields by which the system looks rows up across tenants.
    """
    return replace(collection_of(model), scope="tenant", rights=rights, across=across)


def administers(context: SystemContext, collection: Collection) -> bool:
    """Whether the system writes rows of this tenant collection: its own tables, for one tenant at a time."""
    return context.tenant_id is not None and collection.rights is not None


def check_rights(context: Context, collection: Collection, *, write: bool) -> None:
    """Refuse what a tenant's own statement may not do with a table of the SDK's own.

    Raises:
        IsolationError: It may not.
    """
    if collection.rights is None or isinstance(context, SystemContext):
        return
    if ("INSERT" if write else "SELECT") not in collection.rights:
        raise IsolationError(f"No tenant's own statement reaches {collection.name!r}.")
