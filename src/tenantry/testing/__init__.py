"""For tests of what is built on tenantry, and of adapters that are not part of it.

``assert_isolated`` tries to break the isolation of an application's own models; the pytest plugin
``tenantry.testing.plugin`` gives fixtures; :mod:`tenantry.testing.conformance` and :mod:`tenantry.testing.machine`
prove an adapter.
"""

from tenantry.testing.isolation import assert_isolated

__all__ = ["assert_isolated"]
