"""Paths that are served without a tenant."""

from __future__ import annotations

from collections.abc import Sequence

from tenantry.errors import ConfigurationError


class PublicPaths:
    """A set of paths: ``/health`` is that one, ``/static/`` is every path below it.

    Args:
        paths: The paths, each beginning with a slash.

    Raises:
        ConfigurationError: One does not, or would be every path.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        if isinstance(paths, str):
            raise ConfigurationError("public is a list of paths.", field="public")
        for path in paths:
            if not path.startswith("/") or "*" in path:
                raise ConfigurationError(
                    f"{path!r} is no path.",
                    field="public",
                    fix="Write one like /health, or /static/ for all below it.",
                )
        self._exact = frozenset(paths)
        # "/" is the start page, not everything below it
        self._below = tuple(path for path in paths if path.endswith("/") and path != "/")

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str):
            return False
        return path in self._exact or path.startswith(self._below)
