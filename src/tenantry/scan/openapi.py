"""Reads what an application says of itself: an OpenAPI 3 document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tenantry.errors import ConfigurationError, MissingExtra

_METHODS = ("get", "head", "post", "put", "patch", "delete")
_MAX_REFS = 50
PARAMETER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the document.

    Attributes:
        method: Upper case.
        template: The path, with parameters in braces.
        query: The names of its query parameters.
        required: Values for those query parameters that must be there; an empty one must be found first.
        fields: The names of the fields of its body, if that is JSON.
    """

    method: str
    template: str
    query: tuple[str, ...] = ()
    required: tuple[tuple[str, str], ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters in its path."""
        return tuple(PARAMETER.findall(self.template))


def read_openapi(source: Path | str | Mapping[str, Any], *, base_url: str = "") -> tuple[Operation, ...]:
    """Return the operations of an OpenAPI 3 document, in JSON or YAML.

    Args:
        source: The file, or the document itself.
        base_url: The application. Where it has no path, the path of the document's first server is put before each.

    Raises:
        ConfigurationError: The document cannot be read, is of another version, or refers to what is not in it.
        MissingExtra: It is YAML, and PyYAML is not installed.
    """
    document = source if isinstance(source, Mapping) else _load(Path(source))
    version = str(document.get("openapi", ""))
    if not version.startswith("3."):
        other = document.get("swagger", "none")
        raise _broken(
            f"This is no OpenAPI 3 document (its version is {version or other}).", "Convert it to OpenAPI 3."
        )
    paths = document.get("paths")
    if not isinstance(paths, Mapping) or not paths:
        raise _broken("The document describes no paths.", "Export it from the running application.")
    prefix = "" if urlsplit(base_url).path.strip("/") else _server_path(document)
    return tuple(
        operation
        for path, item in paths.items()
        for operation in _Reader(document).operations(prefix + path, item)
    )


class _Reader:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def operations(self, path: str, item: Any) -> Iterator[Operation]:
        item = self._resolved(item, path)
        for method in _METHODS:
            if method in item:
                where = f"paths.{path}.{method}"
                yield self._operation(method, path, item, self._resolved(item[method], where), where)

    def _operation(self, method: str, path: str, item: Any, operation: Any, where: str) -> Operation:
        listed = [*item.get("parameters", []), *operation.get("parameters", [])]
        parameters = [self._resolved(parameter, where) for parameter in listed]
        query = [parameter for parameter in parameters if parameter.get("in") == "query"]
        return Operation(
            method.upper(),
            path,
            tuple(dict.fromkeys(str(parameter["name"]) for parameter in query)),
            tuple((str(p["name"]), self._example(p, where)) for p in query if p.get("required")),
            tuple(self._fields(operation.get("requestBody", {}), where)),
        )

    def _example(self, parameter: Mapping[str, Any], where: str) -> str:
        schema = self._resolved(parameter.get("schema", {}), where)
        for value in (
            parameter.get("example"),
            schema.get("example"),
            schema.get("default"),
            *schema.get("examples", []),
            *schema.get("enum", []),
        ):
            if isinstance(value, str | int | float):
                return str(value).lower() if isinstance(value, bool) else str(value)
        return {"integer": "1", "number": "1", "boolean": "true"}.get(str(schema.get("type")), "")

    def _fields(self, body: Any, where: str) -> Iterator[str]:
        content = self._resolved(body, where).get("content", {})
        schema = self._resolved(content.get("application/json", {}).get("schema", {}), where)
        for part in (schema, *(self._resolved(part, where) for part in schema.get("allOf", []))):
            for name, described in part.get("properties", {}).items():
                if not self._resolved(described, where).get("readOnly"):
                    yield str(name)

    def _resolved(self, node: Any, where: str) -> Any:
        for _ in range(_MAX_REFS):
            if not isinstance(node, Mapping):
                raise _broken(f"{where} is not as OpenAPI has it.", "Check the document with a validator.")
            if "$ref" not in node:
                return node
            node = self._follow(str(node["$ref"]), where)
        raise _broken(f"{where}: its $ref leads in a circle.", "Mend the document.")

    def _follow(self, reference: str, where: str) -> Any:
        found: Any = self._document
        if not reference.startswith("#/"):
            raise _broken(
                f"{where}: $ref {reference!r} leads out of the document.", "Bundle it into one file."
            )
        for part in reference[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or key not in found:
                raise _broken(
                    f"{where}: $ref {reference!r} leads nowhere.", "Mend the document, or bundle its parts."
                )
            found = found[key]
        return found


def _load(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(f"{path} cannot be read.", "Give the path of an OpenAPI document.") from error
    document = _parsed(text, path)
    if not isinstance(document, Mapping):
        raise _broken(f"{path} is no OpenAPI document.", "Give one in JSON or YAML.")
    return document


def _parsed(text: str, path: Path) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _broken(f"{path} is broken JSON: {error}.", "Export it anew.") from error
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingExtra("yaml", "scan") from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise _broken(
            f"{path} is broken YAML: {' '.join(str(error).split())}.", "Mend or export it anew."
        ) from error


def _server_path(document: Mapping[str, Any]) -> str:
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers else {}
    url = str(first.get("url", "")) if isinstance(first, Mapping) else ""
    return "" if PARAMETER.search(url) else urlsplit(url).path.rstrip("/")


def _broken(message: str, fix: str) -> ConfigurationError:
    return ConfigurationError(message, field="openapi", fix=fix)
