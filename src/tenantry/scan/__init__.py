"""Finds out whether one tenant of a running application can reach another's data, over HTTP.

::

    plan = Plan(
        "https://staging.example.com",
        a=Credentials({"Authorization": f"Bearer {token_of_acme}"}),
        b=Credentials({"Authorization": f"Bearer {token_of_globex}"}),
        requests_a=read_har("acme.har", base_url="https://staging.example.com"),
    )
    report = await scan(plan)

The application need not use tenantry, nor be written in Python.
"""

from tenantry.errors import MissingExtra

try:
    from tenantry.scan.application import load_application, served
    from tenantry.scan.engine import scan
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "httpx":
        raise
    raise MissingExtra("httpx", "scan") from error
from tenantry.scan.credentials import Credentials, Login
from tenantry.scan.har import read_har
from tenantry.scan.kinds import Kind, Severity
from tenantry.scan.messages import Request
from tenantry.scan.openapi import Operation, read_openapi
from tenantry.scan.plan import Limits, Plan
from tenantry.scan.report import Finding, Report

__all__ = [
    "Credentials",
    "Finding",
    "Kind",
    "Limits",
    "Login",
    "Operation",
    "Plan",
    "Report",
    "Request",
    "Severity",
    "load_application",
    "read_har",
    "read_openapi",
    "scan",
    "served",
]
