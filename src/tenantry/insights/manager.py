"""What the counts say, and the indexes that follow."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from tenantry.errors import Unsupported
from tenantry.insights.advice import Adviser
from tenantry.insights.counts import Counted
from tenantry.insights.report import Finding, Report, ShapeReport
from tenantry.insights.store import RETENTION
from tenantry.insights.unused import unused, unused_finding
from tenantry.insights.watch import Watch, now
from tenantry.ports import Catalog, Indexes, Progress
from tenantry.schema import Collection

UNUSED_AFTER = dt.timedelta(days=14)


class Insights:
    """What the queries of an application cost, by shape, and what would make them cheaper.

    Args:
        watch: Counts the operations.
        collections: The collections of the models.
        slow: From how many seconds on a query is slow.
    """

    def __init__(self, watch: Watch, collections: Mapping[str, Collection], slow: float) -> None:
        self._watch = watch
        self._collections = collections
        self._slow = slow

    async def report(
        self, *, since: dt.timedelta | None = None, unused_after: dt.timedelta = UNUSED_AFTER
    ) -> Report:
        """Return what was counted, and what follows from it.

        Args:
            since: How far back to look at the counts of all processes, in whole hours and at most 8 days; by default,
                those of this process alone since it was opened.
            unused_after: How long an index must have been watched before it is called unused.
        """
        watch = self._watch
        tenants: dict[str, Mapping[str, int]] = {}
        if since is None:
            start, processes = watch.began, 1
            totals = list(watch.collector.totals())
            counted = [item for item, _ in totals]
            tenants = {item.shape.text: frequent for item, frequent in totals}
        else:
            await self.flush()
            start = now() - min(since, RETENTION)
            found, processes = await watch.store.load(start)
            counted = list(found.values())
        counted.sort(key=lambda item: -item.counts.seconds)
        findings = await self._findings(counted, unused_after)
        return Report(
            since=start,
            processes=processes,
            shapes=tuple(ShapeReport.of(item, tenants.get(item.shape.text)) for item in counted),
            findings=tuple(findings),
            unnamed=watch.collector.unnamed,
            failures=watch.failures,
        )

    async def flush(self) -> None:
        """Have the slowest query that waits explained, and write the counts now.

        The same is done every ``performance.insights_interval`` seconds. A failure is counted, and never raised.
        """
        await self._watch.explain()
        await self._watch.save()

    async def apply(self, findings: Sequence[Finding], progress: Progress | None = None) -> list[Finding]:
        """Make the indexes that findings advise, and drop those that they call unused, while others write.

        Args:
            findings: Those to act on; others than ``missing-index`` and ``unused-index`` are passed over.
            progress: Is told what is being done.

        Returns:
            The findings that were acted on; one whose index was there already is not among them.

        Raises:
            Unsupported: The database has no indexes.
            ConfigurationError: The owner's URL is not set.
            OperationTimeout: Somebody held on to a table, or another run is under way.
        """
        database = self._watch.database
        if not isinstance(database, Indexes):
            raise Unsupported(f"This database ({database.name}) has no indexes.")
        done = []
        for finding in findings:
            index = finding.index
            if index is not None and finding.code == "missing-index":
                made = await database.create_index(index, progress or _silent)
                done += [finding] if made else []
            elif index is not None and finding.code == "unused-index":
                await database.drop_index(index)
                done.append(finding)
        self._watch.sampler.begin_anew()
        return done

    async def _findings(self, counted: list[Counted], unused_after: dt.timedelta) -> list[Finding]:
        database = self._watch.database
        if not isinstance(database, Indexes):
            return Adviser(self._collections, self._slow, None).findings(counted, None)
        catalog = await database.indexes()
        found = Adviser(self._collections, self._slow, database).findings(counted, catalog)
        return found + await self._unused(database, catalog, unused_after)

    async def _unused(self, database: Indexes, catalog: Catalog, after: dt.timedelta) -> list[Finding]:
        if catalog.since is None:
            return []
        own = [index for index in catalog.indexes if index.table in self._collections]
        current = now()
        seen = await self._watch.store.observed(catalog, current)
        found = unused(Catalog(tuple(own), catalog.since), seen, current, after)
        return [unused_finding(index, database.drop_statement(index), seen[index.name][0]) for index in found]


def _silent(what: str, share: float | None) -> None:
    """Tell nobody."""
