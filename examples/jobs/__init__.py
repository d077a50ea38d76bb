"""Background jobs with taskiq: each runs as the tenant that enqueued it. Run it with ``python -m examples.jobs``."""
