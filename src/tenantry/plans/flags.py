"""Feature flags: a default, what a plan says, and what one tenant was given."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from tenantry.errors import ConfigurationError, InvalidRecord, UnknownFlag

Source = Literal["default", "rollout", "plan", "override"]
_STEPS: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Flag:
    """A feature that tenants have or have not, or have in one of several ways.

    Attributes:
        name: Its name.
        default: What a tenant has that nothing else was said of. Its type is the flag's.
        choices: The values it may have; by default any of its type.
        rollout: Percent of tenants, or of their users where one is named, that have a flag whose default is ``False``.
            Whom it is on for at one percentage, it stays on for at a higher one.
        description: What it is for.
    """

    name: str
    default: Any = False
    choices: Sequence[Any] = ()
    rollout: float = 0.0
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.name:
            raise ConfigurationError("A flag needs a name.", field="flags")
        rollout = self.rollout
        if isinstance(rollout, bool) or not 0 <= rollout <= 100:
            raise ConfigurationError(
                f"{self.name}: a roll-out is 0 to 100 percent.", field=f"flags.{self.name}"
            )
        if rollout and self.default is not False:
            raise ConfigurationError(
                f"{self.name}: only a flag whose default is False can be rolled out.",
                field=f"flags.{self.name}",
            )
        try:
            self.checked(self.default)
        except InvalidRecord as error:
            raise ConfigurationError(str(error), field=f"flags.{self.name}") from None

    def checked(self, value: Any) -> Any:
        """Return ``value`` if the flag may have it.

        Raises:
            InvalidRecord: It may not.
        """
        wanted = type(self.default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise InvalidRecord(f"expected {wanted.__name__}, got {type(value).__name__}.", field=self.name)
        if self.choices and value not in self.choices:
            listed = ", ".join(map(repr, self.choices))
            raise InvalidRecord(
                f"{value!r} is none of its choices.", field=self.name, fix=f"Known: {listed}."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRecord("must be finite.", field=self.name)
        try:
            msgspec.json.encode(value)
        except (TypeError, msgspec.EncodeError, ValueError, RecursionError) as error:
            raise InvalidRecord(f"cannot be stored as JSON: {error}.", field=self.name) from None
        return value

    def rolled_out(self, tenant_id: str, user_id: str | None) -> bool:
        """Whether the roll-out has reached a tenant, or one user of it. The same answer in every process."""
        who = f"{self.name}\0{tenant_id}\0{user_id or ''}".encode("utf-8", "surrogatepass")
        place = int.from_bytes(hashlib.blake2b(who, digest_size=8).digest())
        return place * 100 < self.rollout * _STEPS


class Override(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value that one tenant was given.

    Attributes:
        value: The value.
        reason: Why.
        until: When it ends; ``None`` for never.
    """

    value: Any
    reason: str | None = None
    until: dt.datetime | None = None

    def holds(self, now: dt.datetime) -> bool:
        """Whether it has not ended."""
        return self.until is None or now < self.until


class FlagValue(msgspec.Struct, frozen=True):
    """A flag's value for one tenant.

    Attributes:
        name: The flag.
        value: Its value.
        source: Where that comes from: ``default``, ``rollout``, ``plan`` or ``override``.
        reason: Why it was overridden.
        until: When the override ends.
    """

    name: str
    value: Any
    source: Source
    reason: str | None = None
    until: dt.datetime | None = None


class FlagValues(Mapping[str, Any]):
    """The flags of one tenant, as of one moment. Asking one takes microseconds and waits for nothing."""

    def __init__(
        self,
        flags: Mapping[str, Flag],
        of_plan: Mapping[str, Any],
        overrides: Mapping[str, Override],
        *,
        tenant_id: str,
        user_id: str | None,
        now: dt.datetime,
    ) -> None:
        self._flags = flags
        self._of_plan = of_plan
        self._overrides = overrides
        self._tenant_id = tenant_id
        self._user_id = user_id
        self._now = now

    def explain(self, name: str) -> FlagValue:
        """Return a flag's value and where it comes from.

        Raises:
            UnknownFlag: No such flag is declared.
        """
        flag = known_flag(self._flags, name)
        override = self._overrides.get(name)
        if override is not None and override.holds(self._now) and _fits(flag, override.value):
            return FlagValue(name, override.value, "override", override.reason, override.until)
        if name in self._of_plan:
            return FlagValue(name, self._of_plan[name], "plan")
        if flag.rollout and flag.rolled_out(self._tenant_id, self._user_id):
            return FlagValue(name, True, "rollout")
        return FlagValue(name, flag.default, "default")

    def enabled(self, name: str) -> bool:
        """Whether a flag of true or false is on.

        Raises:
            UnknownFlag: No such flag is declared.
            InvalidRecord: Its values are others.
        """
        value = self[name]
        if not isinstance(value, bool):
            raise InvalidRecord(
                f"its values are no bool but {type(value).__name__}.", field=name, fix="Ask for its value."
            )
        return value

    def __getitem__(self, name: str) -> Any:
        return self.explain(name).value

    def __contains__(self, name: object) -> bool:
        return name in self._flags

    def __iter__(self) -> Iterator[str]:
        return iter(self._flags)

    def __len__(self) -> int:
        return len(self._flags)


def known_flag(flags: Mapping[str, Flag], name: str) -> Flag:
    """Return a declared flag.

    Raises:
        UnknownFlag: There is none of this name.
    """
    found = flags.get(name)
    if found is None:
        raise UnknownFlag(
            str(name), known=list(flags), suggestion=next(iter(get_close_matches(str(name), flags, 1)), None)
        )
    return found


def stored_overrides(stored: Mapping[str, Any]) -> Mapping[str, Override]:
    """Return the overrides that the directory keeps of a tenant."""
    return MappingProxyType({name: msgspec.convert(item, Override) for name, item in stored.items()})


def _fits(flag: Flag, value: Any) -> bool:
    """An override from before the flag changed its type or choices is passed over, not obeyed."""
    try:
        flag.checked(value)
    except InvalidRecord:
        return False
    return True
