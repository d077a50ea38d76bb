"""What queries cost and what makes them cheaper, for synchronous code.

Written by `python -m scripts.sync`; do not edit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from tenantry import insights as asynchronous
from tenantry.insights.manager import UNUSED_AFTER
from tenantry.insights.report import Finding, Report
from tenantry.ports import Progress
from tenantry.sync.bound import Bound


class Insights(Bound[asynchronous.Insights]):
    """What the queries of an application cost, by shape, and what would make them cheaper.

    Args:
        watch: Counts the operations.
        collections: The collections of the models.
        slow: From how many seconds on a query is slow.
    """

    def report(
        self, *, since: dt.timedelta | None = None, unused_after: dt.timedelta = UNUSED_AFTER
    ) -> Report:
        """Return what was counted, and what follows from it.

        Args:
            since: How far back to look at the counts of all processes, in whole hours and at most 8 days; by default,
                those of this process alone since it was opened.
            unused_after: How long an index must have been watched before it is called unused.
        """
        return self._run(lambda it: it.report(since=since, unused_after=unused_after))

    def flush(self) -> None:
        """Have the slowest query that waits explained, and write the counts now.

        The same is done every ``performance.insights_interval`` seconds. A failure is counted, and never raised.
        """
        self._run(lambda it: it.flush())

    def apply(self, findings: Sequence[Finding], progress: Progress | None = None) -> list[Finding]:
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
        return self._run(lambda it: it.apply(findings, progress))
