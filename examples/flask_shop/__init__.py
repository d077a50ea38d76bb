"""A shop on Flask, with SQLAlchemy's own sessions."""
