"""Job tokens: what names the tenant of a job that waits in a queue, and why nobody else can name another.

A queue is a shared place: whoever may write to it could name any tenant. So a job carries a token::

    t1.kid.payload.mac

    payload = base64url(JSON of tenant, user, claims, request id, time of issue, and the job it is for)
    mac     = HMAC-SHA256(key, "t1.kid.payload") (RFC 2104), base64url

The job it is for is the runner, the queue, the task's name, the job's id and a digest of its arguments: a token that
was taken out of one job opens no other, and a job whose arguments were changed is refused like one whose tenant was.
The MAC is over the text as it travels, so that no two texts are one token. A token is signed, not secret: whoever reads
the queue reads the claims.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import hashlib
import hmac
import re
import secrets
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tenantry.config import JobsConfig
from tenantry.context import TenantContext
from tenantry.errors import ConfigurationError, InvalidRecord, JobRejected
from tenantry.types import tenant_id

MAX_TOKEN_SIZE: Final = 16_384

_VERSION = "t1"
_PURPOSE = b"tenantry job v1"
_DIGEST_SIZE = 16
_KID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
_HOW_TO_MAKE = 'Make one: python -c "from tenantry.jobs import JobKey; print(JobKey.generate().export())".'


@dataclass(frozen=True, slots=True)
class JobKey:
    """A key for job tokens.

    Attributes:
        kid: Names the key: 1 to 32 of ``a-z 0-9 _ -``.
        secret: At least 32 random bytes.
    """

    kid: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _KID.fullmatch(self.kid) or len(self.secret) < 32:
            raise ConfigurationError(
                "A job key is named by 1 to 32 of a-z 0-9 _ - and has at least 32 bytes.",
                field="jobs.key",
                fix=_HOW_TO_MAKE,
            )

    @classmethod
    def generate(cls) -> JobKey:
        """Make a new random key with a new random name."""
        return cls("j" + secrets.token_hex(6), secrets.token_bytes(32))

    @classmethod
    def parse(cls, text: str) -> tuple[JobKey, ...]:
        """Read one or more keys in the form ``kid:base64``, separated by commas, newest first.

        Raises:
            ConfigurationError: If the text has another form. The text is not repeated: it is a secret.
        """
        return tuple(cls._parse_one(part.strip()) for part in text.split(",") if part.strip())

    @classmethod
    def _parse_one(cls, text: str) -> JobKey:
        kid, _, encoded = text.partition(":")
        try:
            return cls(kid, base64.b64decode(encoded, validate=True))
        except ValueError:
            raise ConfigurationError(
                "A job key has the form kid:base64, with at least 32 bytes.",
                field="jobs.key",
                fix=_HOW_TO_MAKE,
            ) from None

    def export(self) -> str:
        """Return the form ``kid:base64``. It holds the secret."""
        return f"{self.kid}:{base64.b64encode(self.secret).decode()}"


class JobReference(msgspec.Struct, frozen=True, array_like=True):
    """One job, as far as a token is bound to it.

    Attributes:
        runner: What runs it, such as ``celery``.
        task: The task's name.
        queue: The queue it waits in; empty where the runner has none.
        id: The job's id; empty where the queue gives it later.
        arguments: What :func:`digest` made of its arguments.
    """

    runner: str
    task: str
    queue: str
    id: str
    arguments: bytes


class _Payload(msgspec.Struct, frozen=True, array_like=True):
    tenant: str
    user: str | None
    claims: dict[str, Any]
    request_id: str | None
    issued_at: float
    job: JobReference


_decoder = msgspec.json.Decoder(_Payload)


class JobSigner:
    """Makes and opens job tokens.

    Args:
        keys: Newest first. The first one signs; all of them open.
        ttl: Seconds after which a token is refused, counted from when the job was first enqueued; ``None`` for never.
        clock: Returns the seconds since 1970.
    """

    def __init__(
        self, keys: Sequence[JobKey], *, ttl: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        if not keys:
            raise ConfigurationError(
                "No job key was given.",
                field="jobs.key",
                fix=f"{_HOW_TO_MAKE} Set TENANTRY_JOBS_KEY to it in every process.",
            )
        self._keys = {key.kid: hmac.digest(key.secret, _PURPOSE, hashlib.sha256) for key in keys}
        if len(self._keys) != len(keys):
            raise ConfigurationError("Two job keys have one name.", field="jobs.key", fix=_HOW_TO_MAKE)
        self._signing = keys[0].kid
        self._ttl = ttl
        self._clock = clock

    @classmethod
    def configured(cls, options: JobsConfig) -> JobSigner:
        """Return a signer with the keys of the configuration.

        Raises:
            ConfigurationError: It has none.
        """
        text = "" if options.key is None else options.key.get_secret_value()
        return cls(JobKey.parse(text), ttl=options.ttl)

    def sign(self, context: TenantContext, job: JobReference, *, replaces: str | None = None) -> str:
        """Return the token that lets ``job`` run for the tenant of ``context``.

        Args:
            context: The tenant, and on whose behalf.
            job: The job, as it will be when it runs.
            replaces: The token that an earlier try of the same job carried, so that a retry grows no younger.

        Raises:
            InvalidRecord: The claims are too long.
        """
        issued_at = self._first_issued(context, job, replaces)
        payload = _Payload(
            context.tenant_id, context.user_id, dict(context.claims), context.request_id, issued_at, job
        )
        text = f"{_VERSION}.{self._signing}.{_armored(msgspec.json.encode(payload))}"
        token = f"{text}.{self._mac(self._keys[self._signing], text)}"
        if len(token) > MAX_TOKEN_SIZE:
            raise InvalidRecord(
                f"the token of a job may have {MAX_TOKEN_SIZE:,} characters, and this has {len(token):,}.",
                field="claims",
                fix="Enqueue it with fewer claims.",
            )
        return token

    def open(
        self, token: object, job: JobReference, *, queues: Collection[str] | None = None
    ) -> TenantContext:
        """Return the context in which ``job`` runs.

        Args:
            token: What the job carries.
            job: The job, as it is now.
            queues: The queues that this worker serves, where it serves several. The job was signed for one of them.

        Raises:
            JobRejected: The token was not made by :meth:`sign` for this very job, or is too old.
        """
        payload = self._verified(token)
        _check_job(payload.job, job, queues)
        if self._ttl is not None and self._clock() >= payload.issued_at + self._ttl:
            raise JobRejected(
                f"{job.task!r} waited longer than {self._ttl:g} s since it was enqueued.",
                reason="expired",
                fix="Enqueue it again, or allow a longer time: jobs.ttl.",
            )
        return TenantContext(
            tenant_id=tenant_id(payload.tenant),
            user_id=payload.user,
            claims=payload.claims,
            request_id=payload.request_id,
        )

    def _verified(self, token: object) -> _Payload:
        if not isinstance(token, str) or len(token) > MAX_TOKEN_SIZE or not token.isascii():
            raise _malformed()
        text, _, mac = token.rpartition(".")
        version, _, rest = text.partition(".")
        kid, _, armored = rest.partition(".")
        if version != _VERSION or not _KID.fullmatch(kid):
            raise _malformed()
        key = self._keys.get(kid)
        if key is None:
            raise JobRejected(
                f"A job was signed with the key {kid!r}, which this worker does not know.",
                reason="unknown-key",
                fix="Give both sides the same jobs.key; keep the old key in it until the queues are empty.",
            )
        if not hmac.compare_digest(mac.encode(), self._mac(key, text).encode()):
            raise JobRejected("The token of a job is forged, or was changed on its way.", reason="forged")
        try:
            return _decoder.decode(base64.urlsafe_b64decode(armored + "=" * (-len(armored) % 4)))
        except ValueError as error:  # signed with our key, and yet no token of ours: another release made it
            raise _malformed() from error

    def _first_issued(self, context: TenantContext, job: JobReference, replaces: str | None) -> float:
        if replaces is not None:
            try:
                before = self._verified(replaces)
            except JobRejected:
                return self._clock()
            same = (before.tenant, before.job.runner, before.job.task, before.job.id)
            if job.id and same == (context.tenant_id, job.runner, job.task, job.id):
                return before.issued_at
        return self._clock()

    @staticmethod
    def _mac(key: bytes, text: str) -> str:
        return _armored(hmac.digest(key, text.encode(), hashlib.sha256))


def digest(*arguments: object) -> bytes:
    """Return 16 bytes that are the same for equal arguments, before a queue and behind it, and for no others.

    A queue may turn tuples into lists, ``2.0`` into ``2`` and keys into text; that changes nothing here.

    Raises:
        InvalidRecord: An argument is no JSON value, date, time, UUID, decimal or bytes.
    """
    try:
        frozen = msgspec.msgpack.encode(_canonical(arguments, "arguments"))
    except InvalidRecord:
        raise
    except RecursionError:
        raise InvalidRecord("nested too deeply.", field="arguments") from None
    except ValueError as error:  # half of a surrogate pair, an integer of thousands of digits
        raise InvalidRecord("a value cannot be written down.", field="arguments", fix=str(error)) from None
    return hashlib.sha256(frozen).digest()[:_DIGEST_SIZE]


def _canonical(value: object, path: str) -> Any:
    """Return ``value`` in lists and scalars. What is no scalar of JSON carries its kind, so no two kinds are equal."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # an enumeration's member is its value, as in JSON
    if isinstance(value, int):
        return ["number", _number(int.__repr__(value))]
    if isinstance(value, float):
        return ["number", _number(float.__repr__(value))]
    if isinstance(value, Mapping):
        pairs = [[_key(key), _canonical(item, f"{path}.{key}")] for key, item in value.items()]
        return ["map", sorted(pairs, key=_first)]
    if isinstance(value, list | tuple):
        return ["list", [_canonical(item, f"{path}[{index}]") for index, item in enumerate(value)]]
    return _scalar(value, path)


def _scalar(value: object, path: str) -> Any:
    if isinstance(value, bytes):
        return ["bytes", value]
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return ["time", value.isoformat()]
    if isinstance(value, uuid.UUID | decimal.Decimal):
        return [type(value).__name__, str(value)]
    raise InvalidRecord(
        f"a {type(value).__name__} cannot be an argument of a job that carries its tenant.",
        field=path,
        fix="Pass JSON values, dates, times, UUIDs, decimals or bytes.",
    )


def _number(text: str) -> str:
    """Return one text for each number, as PostgreSQL's jsonb turns ``2e3`` into ``2000`` and ``-0.0`` into ``0``."""
    number = decimal.Decimal(text)
    if not number.is_finite():
        return text
    sign, digits, exponent = number.as_tuple()
    written = "".join(map(str, digits))
    significant = written.rstrip("0")
    assert isinstance(exponent, int)
    shift = exponent + len(written) - len(significant)
    return f"{'-' if sign else ''}{significant}e{shift}" if significant else "0"


def _key(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    return msgspec.json.encode(key).decode() if isinstance(key, int | float | None) else str(key)


def _first(pair: list[Any]) -> str:
    return str(pair[0])


def _check_job(signed: JobReference, job: JobReference, queues: Collection[str] | None) -> None:
    if (signed.runner, signed.task) != (job.runner, job.task):
        raise JobRejected(
            f"{job.task!r} carries the token of a job of {signed.task!r} ({signed.runner}).",
            reason="other-task",
        )
    if signed.queue not in ((job.queue,) if queues is None else queues):
        raise JobRejected(
            f"{job.task!r} was enqueued in {signed.queue!r}, and this worker does not serve that queue.",
            reason="other-queue",
            fix="Enqueue it in the queue where it is to run; a job cannot be moved to another.",
        )
    if signed.id != job.id:
        raise JobRejected(f"{job.task!r} carries the token of another job.", reason="other-job")
    if not hmac.compare_digest(signed.arguments, job.arguments):
        raise JobRejected(
            f"The arguments of {job.task!r} are not those with which it was enqueued.",
            reason="other-arguments",
        )


def _malformed() -> JobRejected:
    return JobRejected("The token of a job is malformed.", reason="malformed")


def _armored(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
