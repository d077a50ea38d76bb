"""Reads what a browser recorded: a HAR file, as "Save all as HAR" in its developer tools writes it."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tenantry.errors import ConfigurationError
from tenantry.scan.messages import Request

# What says in which form an answer is wanted. All else, above all cookies and tokens, belongs to who recorded it.
_KEPT = frozenset({"accept", "accept-language", "content-type", "x-requested-with", "api-version"})
_SECRET = re.compile(
    r"(?:access|auth|id|session)_?token|api_?key|auth|jwt|session(?:_?id)?|sid|signature|sig|password",
    re.IGNORECASE,
)
_ASSETS = (
    ".js",
    ".css",
    ".map",
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".svg",
    ".ico",
    ".woff",
    ".woff2",
    ".ttf",
    ".webp",
)


def read_har(path: Path | str, *, base_url: str) -> tuple[Request, ...]:
    """Return the requests of a HAR file that went to ``base_url``, each once, without anyone's credentials.

    Args:
        path: The file.
        base_url: The application. Requests to other origins, or to assets such as pictures, are left out.

    Raises:
        ConfigurationError: The file cannot be read, is no HAR, or holds no request to ``base_url``.
    """
    data = _load(Path(path))
    found = dict.fromkeys(_requests(data, base_url))
    if not found:
        raise _broken(
            f"{path} holds no request to {base_url}.",
            f"It has requests to: {', '.join(_hosts(data)) or 'nothing'}.",
        )
    return tuple(found)


def _load(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_bytes())["log"]["entries"]
    except OSError as error:
        raise _broken(f"{path} cannot be read: {error.strerror}.", "Give the path of a HAR file.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _broken(
            f"{path} is no HAR file.",
            'Record one with the browser\'s developer tools: Network, "Save all as HAR".',
        ) from error
    if not isinstance(entries, list):
        raise _broken(f"{path}: log.entries is no list.", "Record it anew.")
    return entries


def _requests(entries: list[Any], base_url: str) -> Iterator[Request]:
    for number, entry in enumerate(entries):
        try:
            request = _request(entry["request"], base_url)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            where = f"log.entries[{number}].request"
            raise _broken(
                f"{where} is not as a HAR has it.", "Take it out, or record the file anew."
            ) from error
        if request is not None:
            yield request


def _request(recorded: dict[str, Any], base_url: str) -> Request | None:
    url, base = urlsplit(recorded["url"]), urlsplit(base_url)
    prefix = base.path.rstrip("/")
    if (url.scheme, url.netloc) != (base.scheme, base.netloc) or not f"{url.path}/".startswith(f"{prefix}/"):
        return None
    if url.path.lower().endswith(_ASSETS) or recorded["method"].upper() in ("OPTIONS", "CONNECT", "TRACE"):
        return None
    headers = [(header["name"].lower(), str(header["value"])) for header in recorded.get("headers", [])]
    return Request(
        recorded["method"].upper(),
        url.path.removeprefix(prefix) or "/",
        tuple(
            pair for pair in parse_qsl(url.query, keep_blank_values=True) if not _SECRET.fullmatch(pair[0])
        ),
        tuple(sorted((name, value) for name, value in headers if name in _KEPT)),
        _body(recorded.get("postData")),
    )


def _body(posted: dict[str, Any] | None) -> bytes:
    text = (posted or {}).get("text") or ""
    if (posted or {}).get("encoding") == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError("postData.text") from error
    return str(text).encode()


def _hosts(entries: list[Any]) -> list[str]:
    urls = [urlsplit(str(entry["request"]["url"])) for entry in entries]
    return sorted({f"{url.scheme}://{url.netloc}" for url in urls})


def _broken(message: str, fix: str) -> ConfigurationError:
    return ConfigurationError(message, field="har", fix=fix)
