"""What the catalogs say: whether roles, rights and tables are such that isolation holds.

Every check reads the catalogs only, which any role may do, and returns findings with the command that mends them. The
*errors* are those under which one tenant may reach another's rows: the SDK refuses to start with one of them. The
*warnings* are for ``tenantry doctor``.
"""

from __future__ import annotations
