"""A process that migrates: `python -m tests.alembic.worker INI [allow]`, with the URLs in the environment."""

from __future__ import annotations

import sys
from pathlib import Path

from tenantry.alembic import Migrations


def main() -> None:
    print("applied", len(Migrations(Path(sys.argv[1])).upgrade(allow="allow" in sys.argv)), flush=True)


if __name__ == "__main__":
    main()
