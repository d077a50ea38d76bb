"""Signs the tenants' users in."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import httpx

from tenantry.errors import ConfigurationError
from tenantry.scan.client import Client
from tenantry.scan.credentials import Credentials, Login
from tenantry.scan.messages import Request, Response, Who
from tenantry.scan.plan import Plan

_COOKIE = re.compile(r"(?:^|, )([\w!#$%&'*+.^`|~-]+)=([^;,]*)")


async def signed_in(plan: Plan, transport: httpx.AsyncBaseTransport | None) -> Plan:
    """Return the plan with what signing in gave.

    Raises:
        ConfigurationError: A login was refused, or did not give what it should.
    """
    return replace(
        plan, a=await _session(plan, "a", plan.a, transport), b=await _session(plan, "b", plan.b, transport)
    )


async def _session(
    plan: Plan, name: str, credentials: Credentials, transport: httpx.AsyncBaseTransport | None
) -> Credentials:
    if credentials.login is None:
        return credentials
    async with Client(plan, transport=transport, base=plan.base(credentials)) as client:
        return await _signed_in(client, name, credentials, credentials.login)


async def _signed_in(client: Client, name: str, credentials: Credentials, login: Login) -> Credentials:
    request = Request("POST", f"/{login.path.lstrip('/')}")
    if login.form:
        body = urlencode(dict(login.data)).encode()
        request = replace(request, body=body).with_header("content-type", "application/x-www-form-urlencoded")
    else:
        request = request.with_json(dict(login.data))
    response = await client.send(request, Who.NOBODY)
    if response.status >= 400 or not response.settled:
        raise _failed(
            name, f"The login was answered with {response.status or 'nothing'}.", "Check its path and data."
        )
    headers = _bearer(name, login.token, response) if login.token else _cookies(name, response)
    return replace(credentials, headers={**credentials.headers, **headers}, login=None)


def _bearer(name: str, pointer: str, response: Response) -> dict[str, str]:
    found: Any = response.data
    for key in pointer.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str) or not found:
        raise _failed(
            name, f"The login's answer has no {pointer}.", "Say where the token is, as in data.token."
        )
    return {"Authorization": f"Bearer {found}"}


def _cookies(name: str, response: Response) -> dict[str, str]:
    found = _COOKIE.findall(response.headers.get("set-cookie", ""))
    if not found:
        raise _failed(name, "The login's answer set no cookie.", "Say with `token` where in it the token is.")
    return {"Cookie": "; ".join(f"{key}={value}" for key, value in found)}


def _failed(name: str, message: str, fix: str) -> ConfigurationError:
    return ConfigurationError(message, field=f"{name}.login", fix=fix)
