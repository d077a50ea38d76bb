"""``manage.py isolate``: run it after each ``migrate``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections, transaction

from tenantry.databases.postgres.policies import Roles
from tenantry.django.options import options
from tenantry.django.tables import isolate, tables_of
from tenantry.errors import TenantryError
from tenantry.sync import MultiTenantSDK

_RAW = "_raw"


class Command(BaseCommand):
    """Isolates the tables of a project."""

    help = "Makes each table of the project one of tenants' rows, of shared ones or an open one. Run it as the owner."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        parser.add_argument("--database", default="owner", help="the alias that logs in as the tables' owner")
        parser.add_argument(
            "--prefix", help="that of the roles [default: what DATABASES.default.USER begins with]"
        )

    def handle(self, *_: Any, **given: Any) -> None:
        """Do it, in one transaction."""
        alias = given["database"]
        if alias not in connections:
            raise CommandError(
                f"DATABASES has no {alias!r}; name the alias that logs in as the owner: --database"
            )
        roles = Roles.named(given["prefix"] or _prefix())
        try:
            with MultiTenantSDK.open(**{**options().sdk, "schema": "create"}):
                pass  # the directory of tenants has tables too
            tables = tables_of(options(), options().databases[0])
            with transaction.atomic(using=alias):
                isolate(connections[alias], tables, roles)
        except (TenantryError, DatabaseError) as error:
            raise CommandError(str(error)) from error
        for table in tables if given["verbosity"] else ():
            self.stdout.write(f"{table.kind:<10}{table.name}")


def _prefix() -> str:
    user = str(connections[options().databases[0]].settings_dict["USER"])
    if not user.endswith(_RAW):
        raise CommandError(f"The role {user!r} is not called …{_RAW}; say how the roles are called: --prefix")
    return user.removesuffix(_RAW)
