"""What the help desk does, as a program of its own: Django keeps its settings for the life of a process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.databases.postgres.adopt.desk.settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402 - Django must be set up first
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402

from tenantry.databases.postgres.seal import Backend, Sealer, parse_keys  # noqa: E402
from tests.databases.postgres.adopt.desk import models  # noqa: E402

MODELS = [
    "Organization",
    "Membership",
    "Team",
    "Customer",
    "Label",
    "Ticket",
    "Message",
    "Attachment",
    "Survey",
    "Article",
    "Revision",
    "Note",
    "Invoice",
    "InvoiceLine",
    "Webhook",
]


def fill() -> None:
    """Make the tables and put something in each."""
    call_command(
        "migrate", "auth", verbosity=0
    )  # what has no migrations comes before what has, and refers to it
    call_command("migrate", run_syncdb=True, verbosity=0)
    models.Country.objects.bulk_create([models.Country(code=code) for code in ("NZ", "DE")])
    plan = models.Plan.objects.create(name="pro")
    users = [User.objects.create_user(f"user{number}", password=None) for number in range(12)]
    for user in users:
        models.Profile.objects.create(user=user)
    for number, slug in enumerate(("acme", "globex", "initech")):
        organization = models.Organization.objects.create(slug=slug, name=slug.title(), plan=plan)
        own = [user for at, user in enumerate(users) if at % 3 == number or at == 0]
        _fill_organization(organization, own, 10 + number)


def _fill_organization(organization: Any, users: list[Any], size: int) -> None:
    models.Membership.objects.bulk_create(
        [models.Membership(user=user, organization=organization) for user in users]
    )
    team = models.Team.objects.create(organization=organization)
    models.Team.objects.create(organization=organization, parent=team).members.set(users)
    label = models.Label.objects.create(organization=organization, name="urgent")
    models.Webhook.objects.create(organization=organization, url="https://example.com")
    parent = None
    for number in range(size):
        parent = _ticket(organization, users, label, parent, number)
    article = models.Article.objects.create(organization=organization, title="How to")
    models.Revision.objects.create(article=article, text="like this")
    models.Note.objects.create(about=article, text="good")
    invoice = models.Invoice.objects.create(organization=organization, number=1)
    models.InvoiceLine.objects.create(invoice=invoice, amount=10)


def _ticket(organization: Any, users: list[Any], label: Any, parent: Any, number: int) -> Any:
    email = f"{organization.slug}{number}@example.com"
    customer = models.Customer.objects.create(organization=organization, country_id="NZ", email=email)
    ticket = models.Ticket.objects.create(
        organization=organization,
        customer=customer,
        assignee=users[0],
        parent=parent,
        title=f"ticket {number}",
    )
    ticket.labels.add(label)
    ticket.watchers.set(users[:2])
    message = models.Message.objects.create(ticket=ticket, author=users[-1], text="hello")
    models.Attachment.objects.create(message=message, name="file")
    models.Survey.objects.create(ticket=ticket, stars=5)
    models.Note.objects.create(about=ticket, text="look")
    models.Note.objects.create(about=customer, text="nice")
    return ticket


def count() -> dict[str, int]:
    """Count the rows of each model that can be seen, unbound."""
    return {name: getattr(models, name).objects.count() for name in MODELS}


def count_as(tenant: str) -> dict[str, int]:
    """Count the rows of each model that a tenant sees."""
    with bound(tenant):
        return count()


def work_as(tenant: str) -> dict[str, Any]:
    """Do as a tenant what the application does all day, and say what came of it."""
    with bound(tenant):
        organization = models.Organization.objects.get()
        users = list(User.objects.filter(membership__organization=organization).order_by("id"))
        ticket = _ticket(organization, users, models.Label.objects.get(), None, 1000)
        found = models.Ticket.objects.filter(labels__name="urgent", customer__country_id="NZ").count()
        return {
            "slug": organization.slug,
            "tickets": found,
            "notes": [
                note.about.pk == ticket.pk
                for note in models.Note.objects.filter(object_id=ticket.pk, text="look")
            ],
            "deleted": ticket.delete()[0],
        }


def log_in() -> str:
    """Look somebody up and keep a session, before any tenant is known."""
    from django.contrib.sessions.backends.db import SessionStore

    session = SessionStore()
    session["user"] = User.objects.get(username="user1").pk
    session.save()
    return str(SessionStore(session.session_key)["user"])


@contextmanager
def bound(tenant: str) -> Iterator[None]:
    """Bind the connection to a tenant for one transaction."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT system_identifier, pid, slot, started, now FROM tenantry.session()")
            system, pid, slot, started, now = cursor.fetchone()
            sealer = Sealer(parse_keys(os.environ["TENANTRY_DATABASE_SEAL_KEY"]), system)
            seal = sealer.sign(tenant, Backend(pid, slot, bytes(started)), now)
            cursor.execute("SELECT set_config('tenantry.seal', %s, true)", [seal])
        yield


if __name__ == "__main__":
    jobs: dict[str, Callable[..., Any]] = {
        job.__name__: job for job in (fill, count, count_as, work_as, log_in)
    }
    print(json.dumps(jobs[sys.argv[1]](*sys.argv[2:])))
