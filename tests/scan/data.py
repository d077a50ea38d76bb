"""The rows of two companies and what belongs to everyone, different for each seed."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from typing import Any

WORDS = (
    "amber",
    "basalt",
    "cobalt",
    "dune",
    "ember",
    "fjord",
    "garnet",
    "harbor",
    "indigo",
    "jasper",
    "kelp",
    "onyx",
)
METHODS = ("Bank transfer", "Credit card", "Direct debit mandate")
TERMS = ("Payment due within thirty days", "Payment due on receipt of goods")
COUNTRIES = ("Germany", "United States", "New Zealand", "South Africa")


@dataclass
class Company:
    """One tenant's rows, by collection and id."""

    slug: str
    token: str
    rows: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def add(self, collection: str, id: Any, **values: Any) -> dict[str, Any]:
        row = {"id": id, **values}
        self.rows.setdefault(collection, {})[str(id)] = row
        return row


class Maker:
    """Makes the rows of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.countries = {
            str(number): {
                "id": number,
                "uuid": self.uuid(),
                "name": name,
                "motto": f"The motto of {name} in full",
            }
            for number, name in enumerate(COUNTRIES, 1)
        }
        self.companies = {slug: self.company(slug) for slug in ("acme", "globex")}

    def uuid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def words(self, count: int) -> str:
        return (
            " ".join(self.random.choices(WORDS, k=count)).capitalize() + f" {self.random.choice('abcdefgh')}"
        )

    def company(self, slug: str) -> Company:
        company = Company(slug, f"tok-{slug}-{self.random.getrandbits(64):016x}")
        customers = [self.customer(company) for _ in range(2)]
        for customer in customers:
            for _ in range(2):
                company.add("notes", self.uuid(), customer_id=customer["id"], text=self.words(5))
        for _ in range(3):
            company.add(
                "documents", self.uuid(), title=self.words(4), customer_id=self.random.choice(customers)["id"]
            )
            company.add("tasks", self.uuid(), title=self.words(3), tenant_id=slug, done=False)
            company.add(
                "contacts", self.uuid(), name=self.words(2), phone=str(self.random.randint(10**6, 10**7))
            )
        for number in range(1, 11 if slug == "acme" else 7):
            company.add("invoices", number, **self.invoice(number))
        # Both begin with the same sample, as new customers of many applications do.
        company.add("invoices", 1, **self.sample())
        return company

    def customer(self, company: Company) -> dict[str, Any]:
        name = self.words(2)
        return company.add(
            "customers",
            self.uuid(),
            name=name,
            email=f"{name.split()[0].lower()}{self.random.randint(0, 999)}@{company.slug}.example",
        )

    def invoice(self, number: int) -> dict[str, Any]:
        return {
            "number": f"INV-2026-{number:05}",
            "method": self.random.choice(METHODS),
            "terms_text": self.random.choice(TERMS),
            "total": round(self.random.uniform(10, 99_999), 2),
            "customer_name": self.words(2),
            "memo": self.words(6),
            "country_name": self.random.choice(COUNTRIES),
            "paid_at": f"2026-0{self.random.randint(1, 9)}-11T08:00:00Z",
        }

    def sample(self) -> dict[str, Any]:
        return {
            "number": "INV-2026-00001",
            "method": METHODS[0],
            "terms_text": TERMS[0],
            "total": 1234.5,
            "customer_name": "Sample customer limited",
            "memo": "This is a sample invoice for you to try",
            "country_name": COUNTRIES[0],
            "paid_at": "2026-01-01T00:00:00Z",
        }
