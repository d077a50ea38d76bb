"""One revision for what is one transaction, and one more for what is done online, step by step."""

from __future__ import annotations

from typing import Any, Final

from alembic import util
from alembic.operations import ops

from tenantry.alembic.online import OnlineOp

SKIP_EMPTY: Final = "tenantry_skip_empty"


def split_online(context: Any, revision: Any, directives: list[ops.MigrationScript]) -> None:
    """Move what is done online into a revision of its own, for Alembic's ``process_revision_directives``.

    An operation outside of a transaction commits what stands before it. In a revision of its own nothing does, so that
    a process that is killed leaves a revision that ran wholly or can be run again.
    """
    script = directives[0]
    upgrade = script.upgrade_ops
    if upgrade is None or script.downgrade_ops is None:
        return
    if upgrade.is_empty() and context.config.attributes.get(SKIP_EMPTY):
        directives.clear()
        return
    online = [item for item in upgrade.ops if isinstance(item, OnlineOp)]
    if not online or len(online) == len(upgrade.ops):
        return
    upgrade.ops[:] = [item for item in upgrade.ops if not isinstance(item, OnlineOp)]
    upgrade.reverse_into(script.downgrade_ops)
    second = ops.UpgradeOps(online, upgrade_token=upgrade.upgrade_token)
    downgrade = ops.DowngradeOps([], downgrade_token=script.downgrade_ops.downgrade_token)
    directives.append(
        ops.MigrationScript(
            rev_id=util.rev_id(),
            message=f"{script.message or 'change'} online",
            upgrade_ops=second,
            downgrade_ops=second.reverse_into(downgrade),
            head=script.rev_id,
            imports=script.imports,
            version_path=script.version_path,
        )
    )
