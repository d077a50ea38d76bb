"""A request as every framework has it, so that one resolver serves them all."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tenantry.errors import ConfigurationError
from tenantry.http.problems import Refusal

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_HOST: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)


class Headers:
    """The headers of a request in the order in which they came. Names have no case."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items = tuple((name.lower(), value) for name, value in items)

    def all(self, name: str) -> list[str]:
        """Return every value under ``name``."""
        name = name.lower()
        return [value for found, value in self._items if found == name]

    def one(self, name: str) -> str | None:
        """Return the value under ``name``, or ``None`` if there is none.

        Raises:
            Refusal: 400, there are several: each reader on the way may have taken another one.
        """
        values = self.all(name)
        if len(values) > 1:
            raise Refusal(400, "repeated-header", f"The header {name} may be sent once.")
        return values[0] if values else None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)


class TrustedProxies:
    """The networks whose word on a request is taken: what they say in headers is what the client cannot.

    Args:
        networks: Addresses and CIDR blocks, such as ``10.0.0.0/8``. None trusts nobody.

    Raises:
        ConfigurationError: One is no network, or is every address there is.
    """

    def __init__(self, networks: Sequence[str] = ()) -> None:
        if isinstance(networks, str):
            raise ConfigurationError("proxies is a list of networks.", field="proxies")
        self._networks = tuple(map(_network, networks))

    def __contains__(self, address: object) -> bool:
        if not self._networks or not isinstance(address, str):
            return False
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._networks)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no network.", field="proxies", fix="Write it like 10.0.0.0/8 or 192.0.2.7."
        ) from error
    if network.prefixlen == 0:
        raise ConfigurationError(
            f"{text} trusts every client.", field="proxies", fix="Name the networks of your own proxies."
        )
    return network


@dataclass(frozen=True, slots=True)
class RequestView:
    """What a resolver and a naming see of a request.

    Attributes:
        method: The method, or ``GET`` for a WebSocket.
        scheme: ``http``, ``https``, ``ws`` or ``wss``.
        path: The decoded path below the application's root.
        query: The query string as it came, without the question mark.
        headers: The headers.
        client: The address of the peer of the connection: a proxy's, where there is one.
        proxies: Whose word is taken on the host.
        native: The request of the framework: an ASGI scope, or a WSGI environ.
    """

    method: str
    scheme: str
    path: str
    query: str = ""
    headers: Headers = field(default_factory=Headers)
    client: str | None = None
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    native: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def by_proxy(self) -> bool:
        """Whether a trusted proxy sent it."""
        return self.client in self.proxies

    @property
    def host(self) -> str | None:
        """The host's name in lower case, without port and final dot; ``None`` if the request has none.

        ``X-Forwarded-Host`` counts if a trusted proxy sent the request, and is otherwise not looked at.

        Raises:
            Refusal: 400, there are several, or it is no host.
        """
        given = self.headers.one("X-Forwarded-Host") if self.by_proxy else None
        if given is None:
            given = self.headers.one("Host")
        if not given:
            return None
        found = _HOST.fullmatch(given.strip())
        if found is None:
            raise Refusal(400, "invalid-host", "The header Host is not a host.")
        return found[1].removesuffix(".").lower()

    @property
    def request_id(self) -> str | None:
        """The correlation id that the client sent, if it can be one."""
        given = self.headers.all("X-Request-ID")
        return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else None


_REQUEST_ID: Final = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)


def header_name(name: str) -> str:
    """Return ``name`` if it can name a header.

    Raises:
        ConfigurationError: It cannot, or holds an underscore, which gateways drop or take for a hyphen.
    """
    if not _TOKEN.fullmatch(name) or "_" in name:
        raise ConfigurationError(
            f"{name!r} cannot name a header.",
            field="header",
            fix="Write it like X-Tenant-ID, without underscores.",
        )
    return name
