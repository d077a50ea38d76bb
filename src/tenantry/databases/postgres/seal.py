"""The seal: what names a connection's tenant, and why SQL cannot name another.

A tenant id in a session variable is no lock: injected SQL could set another id. So what is bound is a seal, an HMAC
(RFC 2104, over SHA-256) that only the SDK can make and that a ``SECURITY DEFINER`` function verifies once a
statement, with a key that the application's roles cannot read::

    v1|kid|expiry|slot|tenant|mac

    mac    = HMAC(key, "v1|kid|expiry|slot|tenant|" + system identifier + start of the backend, 8 bytes)
    expiry = seconds since 1970, by the server's clock, compared with the start of the transaction
    slot   = the backend's place in the server's table; the process there must be the one that asks

Slot and start together name one backend for all time: a later one with the same pid or slot started later. No field
before the MAC can hold a ``|`` and the last eight bytes have a fixed length, so two seals never share one message.
Before PostgreSQL 16 the slot is the backend's pid.

Behind a transaction pooler nobody knows which backend comes next. There the SDK sends a *ticket*, the same with
``t1`` for ``v1``, slot -1, no start of a backend and some seconds to live, and the server turns it into a seal::

    SELECT set_config('tenantry.seal', tenantry.bind($1), true)

**Replay.** What SQL can see is ``current_setting('tenantry.seal')``. A seal is void on every other backend. One made
from a ticket expires at the very microsecond its transaction began, so it is void in every later transaction as well.
The ticket travels as a bind parameter only: no setting holds it, ``pg_stat_activity`` does not show it, and no policy
accepts it. Expiry looks at the transaction's start, so that a long transaction is not cut in the middle.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tenantry.errors import ConfigurationError

SEAL_SETTING: Final = "tenantry.seal"
SEAL_SECONDS: Final = 600
TICKET_SECONDS: Final = 10
SQLSTATE_REJECTED: Final = "42501"
SQLSTATE_FENCED: Final = "TN001"  # a class that neither the standard nor PostgreSQL uses
MESSAGE_PREFIX: Final = "tenantry: "

_BLOCK = 64
_KID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SealKey:
    """A key for seals.

    Attributes:
        kid: Names the key: 1 to 32 of ``a-z 0-9 _ -``.
        secret: At least 32 random bytes.
    """

    kid: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _KID.fullmatch(self.kid):
            raise ConfigurationError(
                f"{self.kid!r} cannot name a seal key.", field="seal_key", fix="Use 1 to 32 of a-z 0-9 _ -."
            )
        if len(self.secret) < 32:
            raise ConfigurationError(
                "A seal key needs at least 32 bytes.", field="seal_key", fix="Let `tenantry init` make one."
            )

    @classmethod
    def generate(cls) -> SealKey:
        """Make a new random key with a new random name."""
        return cls("k" + secrets.token_hex(6), secrets.token_bytes(32))

    @classmethod
    def parse(cls, text: str) -> SealKey:
        """Read the form ``kid:base64``.

        Raises:
            ConfigurationError: If the text has another form. The text is not repeated: it is a secret.
        """
        kid, colon, encoded = text.strip().partition(":")
        try:
            secret = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not colon or not secret:
            raise ConfigurationError(
                "The seal key has the form kid:base64.",
                field="seal_key",
                fix="Copy TENANTRY_DATABASE_SEAL_KEY as `tenantry init` printed it.",
            )
        return cls(kid, secret)

    def export(self) -> str:
        """Return the form ``kid:base64``. It holds the secret."""
        return f"{self.kid}:{base64.b64encode(self.secret).decode()}"

    def pads(self) -> tuple[bytes, bytes]:
        """Return the inner and outer pad, each 64 bytes (RFC 2104, section 2)."""
        secret = self.secret if len(self.secret) <= _BLOCK else hashlib.sha256(self.secret).digest()
        block = secret.ljust(_BLOCK, b"\0")
        return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)


def parse_keys(text: str) -> tuple[SealKey, ...]:
    """Read one or more keys in the form ``kid:base64``, separated by commas, newest first."""
    return tuple(SealKey.parse(part) for part in text.split(",") if part.strip())


class Backend(NamedTuple):
    """One server process.

    Attributes:
        pid: Its process id.
        slot: Its place in the server's table of backends.
        started: When it started, in the server's eight bytes.
    """

    pid: int
    slot: int
    started: bytes


class Sealer:
    """Signs seals for one server.

    Args:
        keys: Newest first. The first one signs; the server also accepts the others until they are retired.
        system_identifier: What ``tenantry.session()`` says it is, so that a seal for one server is void on another.
    """

    __slots__ = ("_inner", "_kid", "_outer", "_system", "keys")

    def __init__(self, keys: Sequence[SealKey], system_identifier: str) -> None:
        if not keys:
            raise ConfigurationError(
                "No seal key was given.",
                field="seal_key",
                fix="Set TENANTRY_DATABASE_SEAL_KEY as `tenantry init` printed it.",
            )
        self.keys = tuple(keys)
        inner, outer = self.keys[0].pads()
        # The two pads are hashed once; a signature copies the states (RFC 2104, section 4).
        self._inner = hashlib.sha256(inner)
        self._outer = hashlib.sha256(outer)
        self._kid = self.keys[0].kid
        self._system = system_identifier.encode()

    def sign(self, tenant_id: str, backend: Backend | None, now: float) -> str:
        """Return a seal for ``backend``, or a ticket if it is ``None``.

        Args:
            tenant_id: A valid tenant id.
            backend: The server process that will hold the seal.
            now: Seconds since 1970 by the server's clock.
        """
        if backend is None:
            claim = f"t1|{self._kid}|{int(now) + TICKET_SECONDS}|-1|{tenant_id}|"
            holder = self._system
        else:
            claim = f"v1|{self._kid}|{int(now) + SEAL_SECONDS}|{backend.slot}|{tenant_id}|"
            holder = self._system + backend.started
        inner = self._inner.copy()
        inner.update(claim.encode() + holder)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return claim + outer.hexdigest()


def seal_tables() -> list[str]:
    """Return the statements that make the tables behind the functions, to be run as the owner.

    Nobody else may read the keys, and no tenant's role the fences.
    """
    return [
        """CREATE TABLE IF NOT EXISTS tenantry.seal_keys (
  kid text PRIMARY KEY CHECK (kid ~ '^[a-z0-9][a-z0-9_-]{0,31}$'),
  inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
  outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64),
  created_at timestamptz NOT NULL DEFAULT now(),
  retired_at timestamptz
)""",
        "REVOKE ALL ON TABLE tenantry.seal_keys FROM PUBLIC",
        # The tenants that no seal opens any more. No column tenant_id, since no tenant's row is in it.
        """CREATE TABLE IF NOT EXISTS tenantry.fences (
  id text PRIMARY KEY,
  created_at timestamptz NOT NULL DEFAULT now()
)""",
        "REVOKE ALL ON TABLE tenantry.fences FROM PUBLIC",
    ]


def seal_functions(system_identifier: str, version: int) -> list[str]:
    """Return the statements that make ``session()``, ``bind(text)`` and ``current_tenant()``, to be run as the owner.

    The owner needs the rights of the app and raw roles: only then the server tells it when their backends started.

    Args:
        system_identifier: Digits.
        version: The server's major version.
    """
    if not (system_identifier.isascii() and system_identifier.isdigit()):
        raise ValueError("a system identifier consists of digits")
    parts = {**(_BY_SLOT if version >= _STABLE_SLOTS else _BY_PID), "@system@": system_identifier}
    names = "tenantry.refuse(text[]), tenantry.session(), tenantry.bind(text), tenantry.current_tenant()"
    return [
        *(_filled(text, parts) for text in (_REFUSE, _SESSION, _BIND, _CURRENT_TENANT)),
        f"REVOKE ALL ON FUNCTION {names} FROM PUBLIC",
    ]


# Each call in an expression costs the server a look at its rights, so there are as few of them as will do: the check
# takes about 10 µs, a quarter of which an empty query in a function takes too. NULL fails every condition of a WHERE.
# Digests are compared by their own digests: the time that takes says nothing of the right one.
_PARTS: Final = {
    "@key@": "k.kid = part[2] AND k.retired_at IS NULL",
    "@mac@": "sha256(k.outer_pad || sha256(k.inner_pad || convert_to(@claim@ || '@system@', 'UTF8') || @holder@))",
    "@seconds@": str(6 * TICKET_SECONDS),
    "@sqlstate@": SQLSTATE_REJECTED,
    "@fenced@": SQLSTATE_FENCED,
    "@prefix@": MESSAGE_PREFIX,
}
# Since PostgreSQL 16 the numbers of backends stay the same, so the seal can say where its own is to be found. Before,
# the server has to search, which costs 5 µs more, and the pid stands in the seal instead.
_STABLE_SLOTS: Final = 16
_BY_SLOT: Final = {
    "@mine@": "pg_stat_get_backend_pid(part[4]::int4) = pg_backend_pid()",
    "@my slot@": "(SELECT s FROM pg_stat_get_backend_idset() s WHERE pg_stat_get_backend_pid(s) = pg_backend_pid())",
    "@started@": "pg_stat_get_backend_start(part[4]::int4)",
    "@my start@": "pg_stat_get_backend_start(slot)",
}
_BY_PID: Final = {
    "@mine@": "part[4]::int4 = pg_backend_pid()",
    "@my slot@": "pg_backend_pid()",
    "@started@": "(SELECT s.backend_start FROM pg_stat_get_activity(pg_backend_pid()) s)",
    "@my start@": "(SELECT s.backend_start FROM pg_stat_get_activity(pg_backend_pid()) s)",
}


def _filled(text: str, parts: Mapping[str, str]) -> str:
    for name, part in parts.items():
        text = text.replace(name, part)
    return text


def _function(text: str, **parts: str) -> str:
    """Fill in what several functions share."""
    return _filled(_filled(text, _PARTS), {f"@{name}@": part for name, part in parts.items()})


# A ticket is no seal: no backend has its slot, and what it signs lacks the start of one.
# PARALLEL RESTRICTED: a worker has a pid of its own. The leader evaluates `(SELECT tenantry.current_tenant())` and
# hands the value on, so a plan can still be parallel.
_CURRENT_TENANT: Final = _function(
    """CREATE OR REPLACE FUNCTION tenantry.current_tenant() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  seal text := current_setting('tenantry.seal', true);
  part text[];
  tenant text;
  fenced bool;
BEGIN
  IF seal IS NULL OR seal = '' THEN
    RETURN NULL;
  END IF;
  part := string_to_array(seal, '|');
  SELECT part[5], EXISTS (SELECT FROM tenantry.fences f WHERE f.id = part[5]) INTO tenant, fenced
  FROM tenantry.seal_keys k
  WHERE @key@
    AND @mine@
    AND transaction_timestamp() <= to_timestamp(part[3]::float8)
    AND sha256(@mac@) = sha256(decode(part[6], 'hex'));
  IF tenant IS NULL THEN
    PERFORM tenantry.refuse(part);
  ELSIF fenced THEN
    RAISE EXCEPTION USING ERRCODE = '@fenced@', MESSAGE = '@prefix@the tenant was deleted.', DETAIL = tenant;
  END IF;
  RETURN tenant;
END $function$""",
    claim="left(seal, -64)",
    holder="timestamptz_send(@started@)",
)

# First the ticket is verified, then the seal is signed.
_BIND: Final = _function(
    _function(
        """CREATE OR REPLACE FUNCTION tenantry.bind(ticket text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  part text[] := string_to_array(ticket, '|');
  slot int4 := @my slot@;
  claim text;
  mac bytea;
BEGIN
  PERFORM FROM tenantry.seal_keys k
  WHERE @key@
    AND part[1] = 't1'
    AND date_part('epoch', clock_timestamp()) BETWEEN part[3]::float8 - @seconds@ AND part[3]::float8
    AND sha256(@mac@) = sha256(decode(part[6], 'hex'));
  IF NOT FOUND THEN
    PERFORM tenantry.refuse(part);
  END IF;
  claim := concat('v1|', part[2], '|', extract(epoch FROM transaction_timestamp()), '|', slot, '|', part[5], '|');
  SELECT @sign@ INTO STRICT mac FROM tenantry.seal_keys k WHERE k.kid = part[2];
  RETURN claim || encode(mac, 'hex');
END $function$""",
        claim="left(ticket, -64)",
        holder="''::bytea",
        sign="@mac@",
    ),
    claim="claim",
    holder="timestamptz_send(@my start@)",
)

# Says why, once a seal was refused for whatever reason.
_REFUSE: Final = _function(
    """CREATE OR REPLACE FUNCTION tenantry.refuse(part text[]) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  reason text := 'is forged, or its key was retired';
BEGIN
  IF (cardinality(part) = 6 AND part[1] IN ('v1', 't1') AND part[3] ~ '^[0-9]{1,12}([.][0-9]{1,6})?$'
      AND part[4] ~ '^(-1|[0-9]{1,9})$') IS NOT TRUE THEN
    reason := 'is malformed';
  ELSIF part[1] = 'v1' AND part[4] IS DISTINCT FROM @my slot@::text THEN
    reason := 'was made for another connection';
  ELSIF part[3]::float8 < date_part('epoch', clock_timestamp()) THEN
    reason := 'has expired';
  END IF;
  RAISE EXCEPTION USING ERRCODE = '@sqlstate@', MESSAGE = '@prefix@the seal ' || reason || '.';
END $function$"""
)

_SESSION: Final = _function(
    """CREATE OR REPLACE FUNCTION tenantry.session(
  OUT system_identifier text, OUT pid int4, OUT slot int4, OUT started bytea, OUT now float8
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  system_identifier := '@system@';
  pid := pg_backend_pid();
  slot := @my slot@;
  started := timestamptz_send(@my start@);
  now := date_part('epoch', clock_timestamp());
END $function$"""
)
