"""Models, their markers, and the collections that are made of them.

A :class:`Model` is declared once and drives tables, policies, validation and typed results. At run time
the other layers only see :class:`Collection` and :class:`Field`.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import functools
import re
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from tenantry import _values
from tenantry.errors import FieldHidden, InvalidRecord, SchemaError
from tenantry.types import Record, uuid7

M = TypeVar("M", bound="KeyedModel")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}", re.ASCII)
CARRIED = frozenset({"id", "version", "created_at", "updated_at"})
FIXED = CARRIED | {"tenant_id"}
MARK = "deleted_at"
_TAKEN = {
    "tenantry": "the SDK's own",
    "sqlite_": "SQLite's own",
    "pg_": "PostgreSQL's own",
    "json_each": "SQLite's own",
}
_MAX_DIGITS = 90
_MAX_WEIGHT = 100
_RESERVED = frozenset({"tenant_id", "and", "or", "not"})


@dataclass(frozen=True, slots=True)
class Searchable:
    """Marks a text field for full-text search.

    Attributes:
        weight: How much a word counts that stands in this field, a whole number from 1 to 100.
    """

    weight: int = 1


class Unique:
    """Marks a field whose value is unique within its tenant."""


class Indexed:
    """Marks a field that filters or sorts often; its index begins with the tenant."""


class PII:
    """Marks personal data, for export, erasure and masking."""


class Encrypted:
    """Marks a field to be stored encrypted. Refused until a key provider is configured."""


@dataclass(frozen=True, slots=True)
class RenamedFrom:
    """Marks a field that had another name, so that a migration renames its column instead of dropping it.

    It has no effect once the column is renamed, and may stay.

    Attributes:
        name: The former name.
    """

    name: str


class Shared:
    """Mixed into a model, ``class Airport(Shared, Model)``: reference data that every tenant reads and none writes."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Marks a field that holds the id of a row of another collection of the same tenant, or of a shared one.

    Attributes:
        collection: The name of the collection referred to.
        enforced: Whether the database refuses an id that does not exist. Turn it off for data that names
            rows which are missing; ``include=`` then yields nothing for them.
        on_delete: What happens to this row when the one referred to is deleted.
        relation: The name under which ``include=`` knows it; by default the field without ``_id``.
    """

    collection: str
    enforced: bool = True
    on_delete: Literal["restrict", "cascade"] = "restrict"
    relation: str | None = None


class Kind(enum.Enum):
    """What a column holds. Every database stores each kind without loss and orders it alike."""

    TEXT = "text"
    INT = "int"
    DECIMAL = "decimal"
    FLOAT = "float"
    BOOL = "bool"
    DATE = "date"
    DATETIME = "datetime"
    UUID = "uuid"
    JSON = "json"
    BYTES = "bytes"
    ENUM = "enum"
    LIST = "list"


UNORDERED = frozenset({Kind.JSON, Kind.LIST, Kind.BYTES, Kind.ENUM, Kind.BOOL})

_SCALARS: dict[type, Kind] = {
    str: Kind.TEXT,
    bool: Kind.BOOL,
    int: Kind.INT,
    Decimal: Kind.DECIMAL,
    float: Kind.FLOAT,
    dt.datetime: Kind.DATETIME,
    dt.date: Kind.DATE,
    uuid.UUID: Kind.UUID,
    bytes: Kind.BYTES,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a collection.

    Attributes:
        name: Its name, in the model and in the database.
        kind: What it holds.
        nullable: Whether it may be ``None``.
        digits: For decimals, the number of digits in all.
        places: For decimals, the number of digits behind the point.
        fixed_places: Whether values always come back with ``places`` digits behind the point.
        enum: For enums, the class.
        item: For lists, what each element is.
        revive: Turns the stored JSON back into what the model declares, if that is not plain JSON.
        normalise: Checks a value and returns its canonical form. Raises ``ValueError`` or ``TypeError``.
    """

    name: str
    kind: Kind
    nullable: bool = False
    unique: bool = False
    indexed: bool = False
    searchable: bool = False
    weight: int = 1
    pii: bool = False
    ref: Ref | None = None
    renamed_from: str | None = None
    digits: int = 38
    places: int = 9
    fixed_places: bool = False
    enum: type[enum.Enum] | None = None
    item: Field | None = None
    revive: pydantic.TypeAdapter[Any] | None = None
    normalise: Callable[[Any], Any] = dataclasses.field(
        default=_values.text, compare=False, hash=False, repr=False
    )

    def from_json(self, value: Any) -> Any:
        """Return the canonical value that stands as ``value`` in JSON; bytes stand there in base64."""
        return base64.b64decode(value) if self.kind is Kind.BYTES else self.normalise(value)

    @property
    def relation(self) -> str | None:
        """The name under which ``include=`` knows this reference."""
        if self.ref is None:
            return None
        return self.ref.relation or self.name.removesuffix("_id")


TENANT = Field("tenant_id", Kind.TEXT)
"""The column that every row of a tenant has and no model declares."""


class KeyedModel(BaseModel):
    """The root of every model, for those that declare an ``id`` of their own: a ``str``, an ``int`` or a ``UUID``.

    Class attributes:
        __collection__: The name of the collection and its table.
        __unique__: Groups of fields that are unique together within a tenant.
        __indexes__: Groups of fields to index; each index begins with the tenant.
        __renamed_from__: The former name of the collection, so that a migration renames its table.
    """

    model_config = ConfigDict(extra="forbid")

    __collection__: ClassVar[str] = ""
    __unique__: ClassVar[tuple[tuple[str, ...], ...]] = ()
    __indexes__: ClassVar[tuple[tuple[str, ...], ...]] = ()
    __control__: ClassVar[bool] = False
    __renamed_from__: ClassVar[str] = ""

    if TYPE_CHECKING:
        id: Any
    else:

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields:
                raise FieldHidden(
                    "the access policy keeps this field from the user who read the row.",
                    path=f"{type(self).__name__}.{name}",
                    action="read",
                    collection=self.__collection__,
                )
            return super().__getattr__(name)

    version: int = 0
    created_at: dt.datetime = pydantic.Field(default_factory=lambda: dt.datetime.now(dt.UTC))
    updated_at: dt.datetime = pydantic.Field(default_factory=lambda: dt.datetime.now(dt.UTC))


class Model(KeyedModel):
    """What most models derive from: ``id`` is a UUIDv7; ``version``, ``created_at``, ``updated_at`` come with it."""

    id: uuid.UUID = pydantic.Field(default_factory=uuid7)


class SoftDelete(BaseModel):
    """Mixed into a model, ``class Order(SoftDelete, Model)``: ``delete`` marks its rows, which can be restored.

    A marked row is found by no read that does not ask for it, and its unique values are free for others.
    """

    deleted_at: Annotated[dt.datetime | None, Indexed] = None


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """What a model comes down to: a name, fields, and who may reach its rows.

    Attributes:
        scope: ``tenant`` (each row belongs to one tenant), ``shared`` (tenants read, the system writes) or
            ``control`` (the SDK's own; no tenant reaches it).
        soft: Whether rows are marked when they are deleted.
        rights: For a table of the SDK's own that holds rows of tenants: what a tenant's own statements may do with
            its rows. The rest is for the system, narrowed to the tenant.
        across: Groups of fields that are looked up across tenants, so that their indexes do not begin with the tenant.
            For tables of the SDK's own.
    """

    name: str
    model: type[KeyedModel]
    fields: Mapping[str, Field]
    scope: Literal["tenant", "shared", "control"]
    unique: tuple[tuple[str, ...], ...]
    indexes: tuple[tuple[str, ...], ...]
    plain: bool
    renamed_from: str | None = None
    soft: bool = False
    rights: tuple[Literal["SELECT", "INSERT"], ...] | None = None
    across: tuple[tuple[str, ...], ...] = ()

    @property
    def carried(self) -> frozenset[str]:
        """The fields that the SDK sets, and no caller."""
        return CARRIED | {MARK} if self.soft else CARRIED

    @property
    def key(self) -> Field:
        """The field ``id``."""
        return self.fields["id"]

    def to_record(self, instance: KeyedModel) -> Record:
        """Return the canonical record of ``instance``.

        Raises:
            InvalidRecord: A value cannot be stored; carries the field.
        """
        values = instance.__dict__
        for name in self.fields:
            if name not in values:
                getattr(instance, name)  # says that it was hidden
        return {name: self.normalise(field, values[name]) for name, field in self.fields.items()}

    def normalise(self, field: Field, value: Any) -> Any:
        """Return the canonical form of one value, or raise :class:`InvalidRecord`."""
        if value is None:
            if field.nullable:
                return None
            raise InvalidRecord("is required.", field=field.name)
        try:
            if field.revive is not None:
                value = field.revive.dump_python(value, mode="json")
            return field.normalise(value)
        except (ValueError, TypeError) as error:
            raise InvalidRecord(str(error), field=field.name) from None

    def _revive(self, record: Record) -> None:
        for name, field in self.fields.items():
            if field.revive is not None and record.get(name) is not None:
                try:
                    record[name] = field.revive.validate_python(record[name])
                except pydantic.ValidationError as error:
                    raise invalid_record(error, prefix=name) from None

    def validate_changes(self, changes: Mapping[str, Any]) -> Record:
        """Return ``changes`` to some fields as canonical values, each checked as its field declares.

        Raises:
            InvalidRecord: A field is unknown, never changes, or refuses its value.
        """
        checked: Record = {}
        for name, value in changes.items():
            field = self.fields.get(name)
            if field is None or name in self.carried:
                known = name in FIXED or field is not None
                raise InvalidRecord("never changes." if known else "is not a field.", field=str(name))
            try:
                value = _validator(self.model, name).validate_python(value)
            except pydantic.ValidationError as error:
                raise invalid_record(error, prefix=name) from None
            checked[name] = self.normalise(field, value)
        return checked

    def validate(self, values: Mapping[str, Any]) -> KeyedModel:
        """Return ``values`` as an instance of the model, or raise :class:`InvalidRecord`."""
        try:
            return self.model.model_validate(dict(values))
        except pydantic.ValidationError as error:
            raise invalid_record(error) from None

    def instantiate(self, record: Record) -> KeyedModel:
        """Return a stored record as an instance of the model. Takes ownership of ``record``.

        The values were validated on their way in and the columns are typed, so they are not validated again.
        """
        if not self.plain:
            self._revive(record)
        instance = self.model.__new__(self.model)
        put = object.__setattr__
        put(instance, "__dict__", record)
        put(instance, "__pydantic_fields_set__", set(record))
        put(instance, "__pydantic_extra__", None)
        put(instance, "__pydantic_private__", None)
        if not self.plain and self.model.__pydantic_post_init__:
            instance.model_post_init(None)  # it makes the private attributes
        return instance


@functools.cache
def _validator(model: type[KeyedModel], name: str) -> pydantic.TypeAdapter[Any]:
    info = model.model_fields[name]
    annotated: Any = Annotated[info.annotation, info]
    return pydantic.TypeAdapter(annotated)


def invalid_record(error: pydantic.ValidationError, prefix: str = "") -> InvalidRecord:
    """Return the first fault of a pydantic error as an :class:`InvalidRecord`, without the value itself."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    return InvalidRecord(first["msg"], field=(prefix + path).lstrip(".") or "record")


def collection_of(declared: type[object]) -> Collection:
    """Return the collection that a model, or a mapped class with :class:`~tenantry.orm.TenantMixin`, declares.

    Raises:
        SchemaError: The model cannot be declared like this; says which field and why.
    """
    return _collection(_model_of(declared))


@functools.cache
def _collection(model: type[KeyedModel]) -> Collection:
    name = model.__collection__
    if not _NAME.fullmatch(name):
        raise SchemaError(
            f"{model.__name__}.__collection__ is {name!r}.",
            field="__collection__",
            fix="Set it to a name of a-z, 0-9 and _ that begins with a letter, at most 48 characters.",
        )
    for prefix, owner in _TAKEN.items():
        if name.startswith(prefix) and not model.__control__:
            raise SchemaError(f"Collection {name!r}: names that begin with {prefix!r} are {owner}.")
    if "id" not in model.model_fields:
        raise SchemaError(
            f"{model.__name__} declares no id.", field="id", fix="Derive it from Model, or declare id: str."
        )
    # id first, then the model's own fields, then what every row carries: as people like to read a row
    soft = issubclass(model, SoftDelete)
    marks = [MARK] if soft else []
    own = [name for name in model.model_fields if name not in CARRIED and name not in marks]
    names = ["id", *own, "version", "created_at", "updated_at", *marks]
    fields = {name: _field(model, name, model.model_fields[name]) for name in names}
    if model.model_config.get("extra") == "allow":
        raise SchemaError(
            f"{model.__name__} allows extra fields, which no column would hold.", field="model_config"
        )
    if fields["id"].kind not in (Kind.UUID, Kind.TEXT, Kind.INT) or fields["id"].nullable:
        raise SchemaError(f"{model.__name__}.id must be a UUID, str or int.", field="id")
    singles = tuple((key,) for key, field in fields.items() if field.unique)
    indexed = tuple((key,) for key, field in fields.items() if field.indexed or field.ref)
    _check_groups(model, fields)
    return Collection(
        name=name,
        model=model,
        fields=types.MappingProxyType(fields),
        scope="control" if model.__control__ else "shared" if issubclass(model, Shared) else "tenant",
        unique=singles + tuple(map(tuple, model.__unique__)),
        indexes=tuple(dict.fromkeys(indexed + tuple(map(tuple, model.__indexes__)))),
        plain=not model.__pydantic_post_init__ and all(field.revive is None for field in fields.values()),
        renamed_from=model.__renamed_from__ or None,
        soft=soft,
    )


def _model_of(declared: Any) -> type[KeyedModel]:
    if isinstance(declared, type) and issubclass(declared, KeyedModel):
        return declared
    if not hasattr(declared, "__tenantry_model__"):
        raise SchemaError(
            f"{declared!r} is not a model.",
            field="models",
            fix="Derive it from tenantry.Model, or a declarative class of SQLAlchemy from tenantry.orm.TenantMixin.",
        )
    model: type[KeyedModel] = declared.__tenantry_model__()
    return model


def _check_groups(model: type[KeyedModel], fields: Mapping[str, Field]) -> None:
    declared: dict[str, Any] = {"__unique__": model.__unique__, "__indexes__": model.__indexes__}
    for attribute, listed in declared.items():
        where = f"{model.__name__}.{attribute}"
        for group in listed:
            if not group or isinstance(group, str):
                raise SchemaError(
                    f"{where} has {group!r}.", field=attribute, fix='Write groups: (("a", "b"),).'
                )
            for name in group:
                if name not in fields:
                    raise SchemaError(f"{where} names {name!r}.", field=attribute)
                if fields[name].kind in (Kind.JSON, Kind.LIST):
                    raise SchemaError(
                        f"{where}: a {fields[name].kind.value} field cannot be in it.", field=name
                    )
    relations = [field.relation for field in fields.values() if field.relation]
    for relation in relations:
        if relations.count(relation) > 1:
            raise SchemaError(
                f"{model.__name__} has two references named {relation!r}.",
                fix="Name one: Ref(…, relation=…).",
            )


def _field(model: type[KeyedModel], name: str, info: FieldInfo) -> Field:
    where = f"{model.__name__}.{name}"
    if not _NAME.fullmatch(name) or name in _RESERVED:
        reason = "every row has it already" if name == "tenant_id" else "it cannot be a column"
        raise SchemaError(f"{where}: this field name is refused ({reason}).", field=name)
    annotation, markers, nullable = _unwrap(info.annotation)
    markers = [*info.metadata, *markers]

    def marked(marker: type) -> bool:
        return any(item is marker or isinstance(item, marker) for item in markers)

    if marked(Encrypted):
        raise SchemaError(
            f"{where}: Encrypted needs a key provider and none is configured.",
            field=name,
            fix="Store a value that you encrypted yourself as bytes.",
        )
    field = _typed(name, annotation, where, markers)
    if marked(Searchable) and field.kind is not Kind.TEXT:
        raise SchemaError(f"{where}: Searchable needs a text field.", field=name)
    if (marked(Unique) or marked(Indexed)) and field.kind in (Kind.JSON, Kind.LIST):
        raise SchemaError(f"{where}: a {field.kind.value} field cannot be unique or indexed.", field=name)
    return dataclasses.replace(
        field,
        nullable=nullable or annotation in (Any, object),
        unique=marked(Unique),
        indexed=marked(Indexed),
        searchable=marked(Searchable),
        weight=_weight(name, where, markers),
        pii=marked(PII),
        ref=next((item for item in markers if isinstance(item, Ref)), None),
        renamed_from=next((item.name for item in markers if isinstance(item, RenamedFrom)), None),
    )


def _weight(name: str, where: str, markers: Sequence[object]) -> int:
    weight: object = next((item.weight for item in markers if isinstance(item, Searchable)), 1)
    if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= _MAX_WEIGHT:
        raise SchemaError(f"{where}: the weight must be a whole number from 1 to {_MAX_WEIGHT}.", field=name)
    return weight


def _unwrap(annotation: Any) -> tuple[Any, list[Any], bool]:
    """Strip ``Annotated`` and ``| None``: the bare type, the markers met on the way, whether it is nullable."""
    markers: list[Any] = []
    nullable = False
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            annotation, *found = typing.get_args(annotation)
            for item in found:
                markers.extend(item.metadata if isinstance(item, FieldInfo) else [item])
        elif origin in (typing.Union, types.UnionType):
            options = [option for option in typing.get_args(annotation) if option is not type(None)]
            if len(options) != 1 or len(options) == len(typing.get_args(annotation)):
                return annotation, markers, nullable
            annotation, nullable = options[0], True
        else:
            return annotation, markers, nullable


def _typed(name: str, annotation: Any, where: str, markers: list[Any]) -> Field:
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum(name, annotation, where)
    kind = _SCALARS.get(annotation) if isinstance(annotation, type) else None
    if kind is Kind.DECIMAL:
        return _decimal(name, where, markers)
    if kind is not None:
        return Field(name, kind, normalise=_values.NORMALISE[kind.value])
    if typing.get_origin(annotation) is list:
        inner, inner_markers, nullable = _unwrap(typing.get_args(annotation)[0])
        if inner in _SCALARS and not nullable:
            item = _typed(name, inner, where, inner_markers)
            return Field(name, Kind.LIST, item=item, normalise=_values.list_of(item.normalise))
    return _json(name, annotation, where)


def _enum(name: str, annotation: type[enum.Enum], where: str) -> Field:
    values = [member.value for member in annotation]
    if not all(isinstance(value, str) for value in values):
        raise SchemaError(f"{where}: the values of an enum field must be text.", field=name)
    return Field(name, Kind.ENUM, enum=annotation, normalise=_values.enum_of(annotation))


def _decimal(name: str, where: str, markers: list[Any]) -> Field:
    declared = next((item.decimal_places for item in markers if hasattr(item, "decimal_places")), None)
    places = 9 if declared is None else declared
    # Without decimal_places the digits may stand on either side of the point; pydantic counts them then.
    stated = next((item.max_digits for item in markers if getattr(item, "max_digits", None)), 38)
    digits = 38 if declared is None else stated
    if not 0 <= places <= digits <= _MAX_DIGITS or stated > _MAX_DIGITS:
        raise SchemaError(
            f"{where}: max_digits must be at least decimal_places, and at most {_MAX_DIGITS}.", field=name
        )
    return Field(
        name,
        Kind.DECIMAL,
        digits=digits,
        places=places,
        fixed_places=declared is not None,
        normalise=_values.decimal_of(digits, places, fixed=declared is not None),
    )


def _json(name: str, annotation: Any, where: str) -> Field:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.SecretStr | pydantic.SecretBytes):
        raise SchemaError(
            f"{where}: {annotation.__name__} would be stored as asterisks.",
            field=name,
            fix="Store str or bytes, and keep it out of logs with Field(repr=False).",
        )
    try:
        revive = None if _is_plain(annotation) else pydantic.TypeAdapter(annotation)
    except pydantic.PydanticSchemaGenerationError as error:
        raise SchemaError(f"{where}: {annotation!r} is not a type that can be stored.", field=name) from error
    return Field(name, Kind.JSON, revive=revive, normalise=_values.json)


def _is_plain(annotation: Any) -> bool:
    """Whether values of this type are plain JSON already, so that nothing has to be revived."""
    if annotation in (dict, list, Any, object, str, int, float, bool, type(None)):
        return True
    parts = typing.get_args(annotation)
    known = typing.get_origin(annotation) in (dict, list, typing.Union, types.UnionType)
    return known and all(map(_is_plain, parts))
