"""The example behind its gunicorn, and browsers that keep cookies and fill in forms."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120


class Shop:
    """A running example: where it listens, and the administrators' password."""

    def __init__(self, port: int, password: str) -> None:
        self.port = port
        self.password = password

    def browser(self, tenant: str) -> Browser:
        return Browser(self.port, tenant)

    @contextmanager
    def admin(self, tenant: str) -> Iterator[Browser]:
        """Give the browser of a tenant's administrator, who has logged in."""
        with self.browser(tenant) as browser:
            answer = browser.submit("/admin/login/", username="admin", password=self.password)
            assert answer.status_code == 302, answer.text
            yield browser


class Browser(httpx.Client):
    """Speaks to one tenant's host. Cookies are kept by hand: the address is the same for all hosts."""

    def __init__(self, port: int, tenant: str) -> None:
        host = {"Host": f"{tenant}.localhost:{port}"}
        super().__init__(base_url=f"http://127.0.0.1:{port}", headers=host, timeout=SECONDS)
        self.tenant = tenant

    def submit(self, path: str, form: Mapping[str, Any] | None = None, **fields: Any) -> httpx.Response:
        """Open a form, fill it in, and send it. ``None`` leaves a field out."""
        page = self.get(path)
        assert page.status_code == 200, (path, page.status_code, page.headers.get("Location"))
        filled = {**fields_of(page.text), **(form or {}), **fields}
        files = {name: value for name, value in filled.items() if isinstance(value, tuple)}
        data = {n: v for n, v in filled.items() if v is not None and not isinstance(v, tuple)}
        return self.post(path, data=data, files=files or None)


class _Fields(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Any] = {}
        self._select: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name")
        if (
            tag == "input"
            and name
            and given.get("type") not in ("submit", "file", "checkbox", "radio", "search")
        ):
            self.found[name] = given.get("value") or ""
        elif tag == "input" and name and given.get("type") == "checkbox" and "checked" in given:
            self.found[name] = given.get("value") or "on"
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in given and given.get("value"):
            self.found.setdefault(self._select, [])
            self.found[self._select].append(given["value"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = None


def fields_of(page: str) -> dict[str, Any]:
    """Return the fields of a page's forms as a browser would send them."""
    parser = _Fields()
    parser.feed(page)
    return parser.found


@contextmanager
def running(program: str, database: str, folder: Path, *arguments: str) -> Iterator[tuple[str, int]]:
    """Start an example as it says, and give what it printed and its port."""
    command = [sys.executable, "-u", "-m", program, "--database", database, "--port", "0", *arguments]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    printed = ""
    try:
        for line in process.stdout:
            printed += line
            found = re.search(r"(?:Listening at: |Running on )http://127\.0\.0\.1:(\d+)", line)
            if found:
                break
        else:
            raise AssertionError(printed)
        rest: list[str] = []
        reader = threading.Thread(target=lambda: rest.extend(process.stdout or ()))
        reader.start()
        yield printed, int(found[1])
    finally:
        process.terminate()
        process.wait(SECONDS)
    reader.join()
    process.stdout.close()
    assert "Traceback" not in "".join(rest), "".join(rest)


def _environment(folder: Path) -> dict[str, str]:
    import os

    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TENANTRY_", "DJANGO_"))
    }
    return {**kept, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "SHOP_MEDIA": str(folder / "media")}
