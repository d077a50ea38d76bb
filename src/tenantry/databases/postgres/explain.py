"""How PostgreSQL runs a query."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tenantry.ports import Plan


async def explain(connection: Any, text: str, args: Sequence[Any], seconds: float) -> Plan:
    """Run a statement of ours once more and return how its rows were found.

    Args:
        connection: In a transaction that is bound to the tenant and may not write.
        text: The statement.
        args: Its values, which go no further than to the server.
        seconds: After which the server gives it up.
    """
    await connection.execute(f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}")
    explained = f"EXPLAIN (ANALYZE, TIMING OFF, BUFFERS OFF, FORMAT JSON) {text}"
    found = await connection.fetchval(explained, *args)
    return plan_of(json.loads(found)[0]["Plan"])


def plan_of(root: dict[str, Any]) -> Plan:
    """Return what is kept of a plan: no condition, since conditions hold values."""
    nodes = list(_nodes(root))
    scans = [node for node in nodes if "Relation Name" in node or node["Node Type"] == "Bitmap Index Scan"]
    tables = [node for node in scans if "Relation Name" in node]
    kept = sum(_rows(node, "Actual Rows") for node in tables)
    removed = sum(
        _rows(node, "Rows Removed by Filter") + _rows(node, "Rows Removed by Index Recheck")
        for node in tables
    )
    return Plan(
        node=tables[0]["Node Type"] if tables else root["Node Type"],
        index=next((node["Index Name"] for node in scans if "Index Name" in node), None),
        scanned=round(kept + removed),
        kept=round(kept),
        sorts=any("Sort" in node["Node Type"] for node in nodes),
    )


def _rows(node: dict[str, Any], name: str) -> float:
    """Return a number that the server gives as the average of each loop."""
    return float(node.get(name, 0)) * float(node.get("Actual Loops", 1))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        if child.get("Parent Relationship") != "InitPlan":  # the policy's own question, once a statement
            yield from _nodes(child)
