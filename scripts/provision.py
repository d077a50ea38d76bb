"""Gets the servers that no wheel brings: PgBouncer. Tests that need a missing one say so themselves."""

from __future__ import annotations

import sys

from scripts import apt
from tests.servers.pgbouncer import find_program
from tests.servers.process import ServerUnavailable


def main() -> int:
    """Install what is missing, where possible; never fails."""
    if not _has_pgbouncer() and not (apt.install("pgbouncer") and _has_pgbouncer()):
        print("PgBouncer is missing and could not be installed; with root: apt-get install pgbouncer")
    return 0


def _has_pgbouncer() -> bool:
    try:
        find_program()
    except ServerUnavailable:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
