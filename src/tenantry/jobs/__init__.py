"""Background jobs: each runs as the tenant for which it was enqueued, or does not run.

When a job is enqueued, the ambient tenant is signed into it; when it runs, on every try and in whatever process, the
signature is checked and the tenant is the ambient one again. One module for each runner:

- :mod:`tenantry.jobs.celery`
- :mod:`tenantry.jobs.arq`
- :mod:`tenantry.jobs.taskiq`
- :mod:`tenantry.jobs.procrastinate`

A task needs a tenant unless it is marked with :func:`untenanted`.
"""

from tenantry.jobs.tasks import enqueue_for, untenanted
from tenantry.tokens import JobKey, JobSigner

__all__ = ["JobKey", "JobSigner", "enqueue_for", "untenanted"]
