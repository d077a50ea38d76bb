"""The conformance suite: what every database must do, so that a stranger's adapter can prove itself.

Register the adapter, name the database, and collect the tests::

    from tenantry.registry import ADAPTERS
    from tenantry.testing.conformance import Conformance

    ADAPTERS["mydb"] = "mypackage.adapter:MyAdapter"


    class TestMine(Conformance):
        config = {"url": "mydb://localhost/test"}

A database that has to be made first is given by a fixture of the class instead::

    class TestMine(Conformance):
        @pytest.fixture(scope="class")
        @classmethod
        def database_config(cls, tmp_path_factory):
            return {"url": f"mydb:///{tmp_path_factory.mktemp('mine')}/data"}

It needs ``pip install 'tenantry[testing]'``. What an adapter does not claim in its ``capabilities`` is skipped, and the
skip says which.
"""

from __future__ import annotations

from tenantry.testing.conformance.access import Access
from tenantry.testing.conformance.administration import Administration
from tenantry.testing.conformance.aggregates import Aggregates
from tenantry.testing.conformance.bulk import Bulk
from tenantry.testing.conformance.constraints import Constraints
from tenantry.testing.conformance.deletes import Deletes
from tenantry.testing.conformance.filters import Filters
from tenantry.testing.conformance.insights import Insights
from tenantry.testing.conformance.isolation import Isolation
from tenantry.testing.conformance.pages import Pages
from tenantry.testing.conformance.plans import Plans
from tenantry.testing.conformance.ports import Ports
from tenantry.testing.conformance.rows import Rows
from tenantry.testing.conformance.search import Searches
from tenantry.testing.conformance.streams import Streams
from tenantry.testing.conformance.tenants import Tenants
from tenantry.testing.conformance.transactions import Transactions
from tenantry.testing.conformance.transfers import Transfers
from tenantry.testing.conformance.values import Values


class Conformance(
    Values,
    Filters,
    Rows,
    Bulk,
    Pages,
    Streams,
    Aggregates,
    Searches,
    Constraints,
    Deletes,
    Transactions,
    Tenants,
    Administration,
    Transfers,
    Plans,
    Isolation,
    Ports,
    Access,
    Insights,
):
    """Every property that a database must have, each as a test."""


__all__ = ["Conformance"]
