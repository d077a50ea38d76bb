"""What each user of a tenant may do: roles, rules, conditions on rows, hidden fields.

::

    policy = AccessPolicy(
        Role("viewer", allow("read", Product, Order, fields=hide("cost"))),
        Role(
            "seller",
            allow(["read", "update"], Order, where=lambda order, user: order.owner == user.id, fields=["status"]),
            inherits=["viewer"],
        ),
        Role("admin", allow_all()),
    )
    sdk = MultiTenantSDK.open(url, models=[Product, Order], access=policy)
"""

from tenantry.security.access.explanation import AccessExplanation
from tenantry.security.access.policy import (
    AccessPolicy,
    ClaimedRoles,
    Role,
    RoleSource,
    allow,
    allow_all,
    deny,
    hide,
)

__all__ = [
    "AccessExplanation",
    "AccessPolicy",
    "ClaimedRoles",
    "Role",
    "RoleSource",
    "allow",
    "allow_all",
    "deny",
    "hide",
]
