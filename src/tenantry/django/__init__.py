"""Django on PostgreSQL's row-level security: each request is served as one tenant, and models stay as they are.

::

    INSTALLED_APPS = ["tenantry.django", "django.contrib.admin", …]
    MIDDLEWARE = ["tenantry.django.TenantMiddleware", "django.contrib.sessions.middleware.SessionMiddleware", …]
    TENANTRY = {"HOST": "example.com"}  # acme.example.com is served as acme

    with tenant("acme"):  # in a management command, a task, a test
        Product.objects.count()
"""

from tenantry.errors import MissingExtra

try:
    import django as _django  # noqa: F401 - whether it is there
except ModuleNotFoundError as error:
    if error.name != "django":
        raise
    raise MissingExtra("django", "django") from error

from tenantry.django.binding import sdk, tenant
from tenantry.django.middleware import TenantMiddleware

__all__ = ["TenantMiddleware", "sdk", "tenant"]
