"""An application on SQLAlchemy that knows nothing of tenantry: 23 tables, with what is hard to adopt."""

from __future__ import annotations

import datetime as dt
import enum
import uuid

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ORGANIZATIONS = ("acme", "globex", "initech")


class Base(DeclarativeBase):
    pass


class Role(enum.Enum):
    ADMIN = "admin"
    MEMBER = "member"


class State(enum.Enum):
    OPEN = "open"
    DONE = "done"


class Organization(Base):
    __tablename__ = "organizations"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    slug: Mapped[str] = mapped_column(sa.Text, unique=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("organizations.id"))
    main_contact_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("contacts.id", use_alter=True, name="organizations_main_contact_fk")
    )


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)


class Membership(Base):
    __tablename__ = "memberships"
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), primary_key=True)
    org_id: Mapped[int] = mapped_column(sa.ForeignKey("organizations.id"), primary_key=True)
    role: Mapped[Role]


class Contact(Base):
    __tablename__ = "contacts"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[int] = mapped_column(sa.ForeignKey("organizations.id"))
    manager_id: Mapped[int | None] = mapped_column(sa.ForeignKey("contacts.id"))
    name: Mapped[str]


class Address(Base):
    __tablename__ = "addresses"
    id: Mapped[int] = mapped_column(primary_key=True)
    contact_id: Mapped[int] = mapped_column(sa.ForeignKey("contacts.id", ondelete="CASCADE"))
    country_code: Mapped[str] = mapped_column(sa.ForeignKey("ref.countries.code"))


class Project(Base):
    __tablename__ = "projects"
    __table_args__ = (sa.UniqueConstraint("org_id", "name"), sa.UniqueConstraint("code"))
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[int] = mapped_column(sa.ForeignKey("organizations.id"))
    lead_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"))
    name: Mapped[str]
    code: Mapped[str]


class Task(Base):
    __tablename__ = "tasks"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id", ondelete="CASCADE"))
    assignee_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"))
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("tasks.id"))
    state: Mapped[State]
    title: Mapped[str]


class Comment(Base):
    __tablename__ = "task_comments"
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(sa.ForeignKey("tasks.id", ondelete="CASCADE"))
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    text: Mapped[str]


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[int] = mapped_column(sa.ForeignKey("organizations.id"))
    name: Mapped[str]


class ProjectTag(Base):
    __tablename__ = "project_tags"
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("projects.id"), primary_key=True)
    tag_id: Mapped[int] = mapped_column(sa.ForeignKey("tags.id"), primary_key=True)


class Attachment(Base):
    __tablename__ = "attachments"
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int | None] = mapped_column(sa.ForeignKey("tasks.id"))
    name: Mapped[str]


class Token(Base):
    __tablename__ = "api_tokens"
    token: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[int] = mapped_column(sa.ForeignKey("organizations.id"))


class Setting(Base):
    __tablename__ = "settings"
    org_id: Mapped[int] = mapped_column(sa.ForeignKey("organizations.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Session(Base):
    __tablename__ = "sessions"
    id: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[str]


class Plan(Base):
    __tablename__ = "plans"
    __table_args__ = {"schema": "billing"}  # noqa: RUF012 - SQLAlchemy's own way
    code: Mapped[str] = mapped_column(primary_key=True)


class Subscription(Base):
    __tablename__ = "subscriptions"
    __table_args__ = {"schema": "billing"}  # noqa: RUF012
    org_id: Mapped[int] = mapped_column(sa.ForeignKey("organizations.id"), primary_key=True)
    plan_code: Mapped[str] = mapped_column(sa.ForeignKey("billing.plans.code"))


class Invoice(Base):
    __tablename__ = "invoices"
    __table_args__ = {"schema": "billing"}  # noqa: RUF012
    org_id: Mapped[int] = mapped_column(sa.ForeignKey("organizations.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    currency: Mapped[str] = mapped_column(sa.ForeignKey("ref.currencies.code"))


class InvoiceLine(Base):
    __tablename__ = "invoice_lines"
    __table_args__ = (
        sa.ForeignKeyConstraint(["org_id", "number"], ["billing.invoices.org_id", "billing.invoices.number"]),
        {"schema": "billing"},
    )
    org_id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


class Payment(Base):
    __tablename__ = "payments"
    __table_args__ = (
        sa.ForeignKeyConstraint(["payer", "invoice"], ["billing.invoices.org_id", "billing.invoices.number"]),
        {"schema": "billing"},
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    payer: Mapped[int]
    invoice: Mapped[int]


class Country(Base):
    __tablename__ = "countries"
    __table_args__ = {"schema": "ref"}  # noqa: RUF012
    code: Mapped[str] = mapped_column(primary_key=True)


class Currency(Base):
    __tablename__ = "currencies"
    __table_args__ = {"schema": "ref"}  # noqa: RUF012
    code: Mapped[str] = mapped_column(primary_key=True)


class AuditEvent(Base):
    __tablename__ = "audit_events"
    __table_args__ = {"postgresql_partition_by": "RANGE (at)"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(sa.DateTime(timezone=True), primary_key=True)
    org_id: Mapped[int] = mapped_column(sa.ForeignKey("organizations.id"))
    what: Mapped[str]


TIME_ENTRIES = sa.Table(
    "time_entries",  # a log without a primary key
    Base.metadata,
    sa.Column("task_id", sa.ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("user_id", sa.ForeignKey("users.id"), nullable=False),
    sa.Column("minutes", sa.Integer, nullable=False),
)

BEFORE = "CREATE SCHEMA billing; CREATE SCHEMA ref"
AFTER = """
CREATE TABLE audit_events_2025 PARTITION OF audit_events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE audit_events_2026 PARTITION OF audit_events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE VIEW open_tasks AS SELECT t.id, t.title FROM tasks t WHERE t.state = 'OPEN';
CREATE MATERIALIZED VIEW project_sizes AS SELECT project_id, count(*) AS tasks FROM tasks GROUP BY project_id;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := NEW.name || '!'; RETURN NEW; END $$;
CREATE TRIGGER contacts_touch BEFORE UPDATE ON contacts FOR EACH ROW EXECUTE FUNCTION touch();
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN PERFORM FROM projects WHERE id = NEW.project_id; RETURN NEW; END $$;
CREATE TRIGGER tasks_look BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION look();
GRANT USAGE ON SCHEMA billing, ref TO {web};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, billing, ref TO {web};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public, billing, ref TO {web};
GRANT SELECT ON ref.countries, open_tasks, project_sizes, audit_events_2025 TO PUBLIC;
"""
DATA = """
INSERT INTO ref.countries VALUES ('NZ'), ('DE'), ('JP');
INSERT INTO ref.currencies VALUES ('NZD'), ('EUR');
INSERT INTO billing.plans VALUES ('free'), ('pro');
INSERT INTO organizations (slug, name) SELECT s, initcap(s) FROM unnest(ARRAY['acme', 'globex', 'initech']) s;
UPDATE organizations SET parent_id = 1 WHERE id = 2;
INSERT INTO users (email) SELECT 'user' || i || '@example.com' FROM generate_series(1, 30) i;
INSERT INTO memberships SELECT i, 1 + i % 3, 'MEMBER' FROM generate_series(1, 30) i;
INSERT INTO memberships SELECT i, 1 + (i + 1) % 3, 'ADMIN' FROM generate_series(1, 5) i;
INSERT INTO contacts (org_id, name) SELECT 1 + i % 3, 'contact ' || i FROM generate_series(1, 60) i;
UPDATE contacts SET manager_id = id - 3 WHERE id > 3;
UPDATE organizations o SET main_contact_id = (SELECT min(c.id) FROM contacts c WHERE c.org_id = o.id);
INSERT INTO addresses (contact_id, country_code) SELECT 1 + i % 60, 'NZ' FROM generate_series(1, 90) i;
INSERT INTO projects (org_id, lead_id, name, code) SELECT 1 + i % 3, 1 + i % 30, 'project ' || i, 'P' || i
  FROM generate_series(1, 30) i;
INSERT INTO tasks (project_id, assignee_id, state, title)
  SELECT 1 + i % 30, nullif(i % 31, 0), CASE WHEN i % 2 = 0 THEN 'OPEN' ELSE 'DONE' END::state, 'task ' || i
  FROM generate_series(1, 600) i;
UPDATE tasks SET parent_id = id - 30 WHERE id > 30;
INSERT INTO task_comments (task_id, author_id, text) SELECT 1 + i % 600, 1 + i % 30, 'text ' || i
  FROM generate_series(1, 900) i;
INSERT INTO tags (org_id, name) SELECT 1 + i % 3, 'tag ' || i FROM generate_series(1, 15) i;
INSERT INTO project_tags SELECT p.id, t.id FROM projects p JOIN tags t USING (org_id) WHERE (p.id + t.id) % 2 = 0;
INSERT INTO attachments (task_id, name) SELECT 1 + i % 600, 'file ' || i FROM generate_series(1, 50) i;
INSERT INTO api_tokens SELECT 'token' || i, 1 + i % 3 FROM generate_series(1, 9) i;
INSERT INTO settings SELECT 1 + i % 3, 'key' || i, 'x' FROM generate_series(1, 12) i;
INSERT INTO sessions SELECT 's' || i, '{}' FROM generate_series(1, 5) i;
INSERT INTO billing.subscriptions SELECT id, 'pro' FROM organizations;
INSERT INTO billing.invoices SELECT 1 + i % 3, i, 'EUR' FROM generate_series(1, 45) i;
INSERT INTO billing.invoice_lines SELECT org_id, number, n, 10 FROM billing.invoices, generate_series(1, 3) n;
INSERT INTO billing.payments SELECT gen_random_uuid(), org_id, number FROM billing.invoices WHERE number % 2 = 0;
INSERT INTO audit_events (at, org_id, what)
  SELECT timestamptz '2025-01-01 00:00Z' + i * interval '2 days', 1 + i % 3, 'event ' || i
  FROM generate_series(1, 300) i;
INSERT INTO time_entries SELECT 1 + i % 600, 1 + i % 30, i FROM generate_series(1, 700) i;
REFRESH MATERIALIZED VIEW project_sizes;
"""

# What a careful engineer would write down: how the rows of each table find their organization, in her own words.
VISIBLE = {
    "public.organizations": "SELECT id FROM organizations WHERE id = {id}",
    "public.memberships": "SELECT user_id FROM memberships WHERE org_id = {id}",
    "public.contacts": "SELECT id FROM contacts WHERE org_id = {id}",
    "public.addresses": "SELECT a.id FROM addresses a JOIN contacts c ON c.id = a.contact_id WHERE c.org_id = {id}",
    "public.projects": "SELECT id FROM projects WHERE org_id = {id}",
    "public.tasks": "SELECT t.id FROM tasks t JOIN projects p ON p.id = t.project_id WHERE p.org_id = {id}",
    "public.task_comments": "SELECT c.id FROM task_comments c JOIN tasks t ON t.id = c.task_id "
    "JOIN projects p ON p.id = t.project_id WHERE p.org_id = {id}",
    "public.tags": "SELECT id FROM tags WHERE org_id = {id}",
    "public.project_tags": "SELECT t.project_id FROM project_tags t JOIN projects p ON p.id = t.project_id "
    "WHERE p.org_id = {id}",
    "public.attachments": "SELECT a.id FROM attachments a JOIN tasks t ON t.id = a.task_id "
    "JOIN projects p ON p.id = t.project_id WHERE p.org_id = {id}",
    "public.api_tokens": "SELECT token FROM api_tokens WHERE org_id = {id}",
    "public.settings": "SELECT key FROM settings WHERE org_id = {id}",
    "billing.subscriptions": "SELECT org_id FROM billing.subscriptions WHERE org_id = {id}",
    "billing.invoices": "SELECT number FROM billing.invoices WHERE org_id = {id}",
    "billing.invoice_lines": "SELECT number FROM billing.invoice_lines WHERE org_id = {id}",
    "billing.payments": "SELECT id FROM billing.payments WHERE payer = {id}",
    "public.audit_events": "SELECT id FROM audit_events WHERE org_id = {id}",
    "public.time_entries": "SELECT minutes FROM time_entries e JOIN tasks t ON t.id = e.task_id "
    "JOIN projects p ON p.id = t.project_id WHERE p.org_id = {id}",
}
SHARED = {"billing.plans", "ref.countries", "ref.currencies"}
OPEN = {"public.users", "public.sessions"}
