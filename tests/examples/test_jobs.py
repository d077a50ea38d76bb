"""The example of background jobs runs, and does what it says."""

from __future__ import annotations

import pytest

from examples.jobs.__main__ import run


async def test_every_invoice_of_an_active_tenant_was_reminded_of_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await run() == {"acme": [1, 1, 1], "globex": [1, 1], "initech": [0]}
    told = capsys.readouterr().out
    assert "Without a tenant: The task 'examples.jobs.app:remind' needs a tenant" in told
    assert "Tenants tonight: 2" in told
    assert "Attempts: {'acme': 4, 'globex': 3}" in told
