"""``python -m examples.django_shop --database postgresql://postgres:…@localhost/shop``: try it out."""

from __future__ import annotations

import argparse
import os
import secrets
import sys

from examples.django_shop.provision import TENANTS, make_ready, migrate, stock


def main() -> None:
    """Prepare an empty database, and serve it by gunicorn."""
    parser = argparse.ArgumentParser(prog="python -m examples.django_shop")
    parser.add_argument(
        "--database", required=True, help="a superuser's address of an empty PostgreSQL database"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--prefix", default="shop", help="what the names of the roles begin with")
    options = parser.parse_args()
    make_ready(options.database, prefix=options.prefix)
    migrate()
    password = secrets.token_urlsafe(9)
    stock(password)
    for tenant in TENANTS:
        print(f"http://{tenant}.localhost:{options.port}/admin/ admin: password {password}", flush=True)
    # Who serves has no need of the owner's password.
    del os.environ["TENANTRY_DATABASE_OWNER_URL"]
    server = ["-m", "gunicorn", "--bind", f"127.0.0.1:{options.port}", "--workers", "2", "--threads", "2"]
    os.execv(sys.executable, [sys.executable, *server, "examples.django_shop.wsgi"])


if __name__ == "__main__":
    main()
