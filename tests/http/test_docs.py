"""What the documentation shows is what runs; without FastAPI installed the error says what to install."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI

import tenantry.http
from tenantry import MultiTenantSDK, TenantHandle
from tests.http.shop import Product


class User:
    organisation = "acme"
    id = "u_17"


def test_every_exported_name_exists() -> None:
    for name in tenantry.http.__all__:
        assert getattr(tenantry.http, name).__doc__


async def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = str(tenantry.http.__doc__).partition("::\n")[2].partition("\n\nThe tenant")[0]
    names = {
        **{name: getattr(tenantry.http, name) for name in tenantry.http.__all__},
        "Annotated": Annotated,
        "Depends": Depends,
        "FastAPI": FastAPI,
        "MultiTenantSDK": MultiTenantSDK,
        "Product": Product,
        "TenantHandle": TenantHandle,
        "User": User,
        "signed_in": User,
    }
    exec(textwrap.dedent(text), names)  # noqa: S102 - it is our own documentation
    sdk, app = names["sdk"], names["app"]
    async with app.router.lifespan_context(app):
        await sdk.tenants.create("acme")
        await sdk.tenant("acme").data.create(Product(name="Laptop", sku="L1"))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://shop.example"
        ) as client:
            assert [row["sku"] for row in (await client.get("/products")).json()] == ["L1"]


@pytest.mark.parametrize("package", ["fastapi", "starlette"])
def test_without_fastapi_the_error_says_what_to_install(package: str) -> None:
    code = textwrap.dedent(f"""
        import sys
        sys.modules[{package!r}] = None
        import tenantry
        try:
            from tenantry.http import current_tenant
        except tenantry.TenantryError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "fastapi is not installed. Install it with: pip install 'tenantry[fastapi]'\n"


@pytest.mark.parametrize("package", ["joserfc", "httpx"])
def test_without_a_library_for_tokens_the_error_says_what_to_install(package: str) -> None:
    code = textwrap.dedent(f"""
        import sys
        sys.modules[{package!r}] = None
        import tenantry
        try:
            from tenantry.http import JWKS
        except tenantry.TenantryError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{package} is not installed. Install it with: pip install 'tenantry[jwt]'\n"


def test_the_shared_parts_need_no_framework() -> None:
    code = textwrap.dedent("""
        import sys
        from tenantry.http import APIKeyResolver, TenantMiddleware, by_host, lifespan
        import tenantry.http
        print({"fastapi", "starlette", "httpx", "joserfc", "litestar"} & set(sys.modules))
        try:
            tenantry.http.nonsense
        except AttributeError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nmodule 'tenantry.http' has no attribute 'nonsense'\n"


def test_the_sdk_itself_imports_no_web_framework() -> None:
    code = "import sys, tenantry; print({'fastapi', 'starlette', 'typer', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
