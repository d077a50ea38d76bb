"""``python -m examples.flask_shop --database postgresql://postgres:…@localhost/shop``: try it out."""

from __future__ import annotations

import argparse
import asyncio
import os

import sqlalchemy as sa
from werkzeug.serving import make_server

from examples.flask_shop.app import build
from examples.flask_shop.models import MODELS
from examples.shop.serve import people
from tenantry.databases.postgres.provision import provision
from tenantry.sync import MultiTenantSDK


def main() -> None:
    """Prepare an empty database, and serve it."""
    parser = argparse.ArgumentParser(prog="python -m examples.flask_shop")
    parser.add_argument(
        "--database", required=True, help="a superuser's address of an empty PostgreSQL database"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--prefix", default="shop", help="what the names of the roles begin with")
    options = parser.parse_args()
    made = asyncio.run(provision(options.database, prefix=options.prefix))
    lines = (line.partition("=") for line in made.env().splitlines())
    os.environ.update({name: value for name, _, value in lines})
    raw = sa.make_url(made.urls["raw"]).set(drivername="postgresql+psycopg")
    with MultiTenantSDK.open(models=MODELS, schema="create") as sdk:
        for tenant in ("acme", "globex"):
            sdk.tenants.create(tenant)
        app = build(sdk, sa.create_engine(raw), people())
        server = make_server("127.0.0.1", options.port, app, threaded=True)
        print(f"Running on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
