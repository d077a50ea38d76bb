"""``manage.py as_tenant acme createsuperuser``: another command, run as one tenant."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenantry.django.binding import tenant
from tenantry.errors import TenantryError


class Command(BaseCommand):
    """Runs a command that knows nothing of tenants."""

    help = "Runs another command as one tenant, in one transaction: as_tenant acme createsuperuser --username admin"
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments."""
        parser.add_argument("tenant", help="the tenant's id")
        parser.add_argument("run", nargs=argparse.REMAINDER, help="the command, and all that it takes")

    def handle(self, *_: Any, **given: Any) -> None:
        """Run it."""
        if not given["run"]:
            raise CommandError("Say which command to run: as_tenant acme createsuperuser")
        try:
            with tenant(given["tenant"]):
                call_command(*given["run"])
        except TenantryError as error:
            raise CommandError(str(error)) from error
