"""SQLAlchemy's declarative models as collections, equal to :class:`~tenantry.schema.Model`.

::

    class Product(TenantMixin, Base):
        __tablename__ = "products"
        name: Mapped[Annotated[str, Searchable]]
        price: Mapped[Decimal] = mapped_column(Numeric(12, 2))

    async with MultiTenantSDK.open(url, models=[Product]) as sdk, sdk.tenant("acme").session() as session:
        session.add(Product(name="Laptop", price=Decimal("1299.00")))
        await session.commit()

The table is the one that a ``Model`` would have: every key begins with ``tenant_id``, which the database fills in and
no mapped class needs to know. To the ORM ``id`` is the key, for within a session there is one tenant.
"""

from __future__ import annotations

import datetime as dt
import types
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import pydantic
import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Mapper, declared_attr, mapped_column

from tenantry.errors import SchemaError
from tenantry.schema import CARRIED, MARK, Indexed, KeyedModel, Ref, Shared, SoftDelete, Unique
from tenantry.types import uuid7

Groups = tuple[tuple[str, ...], ...]

_PLAIN: Mapping[type[Any], Any] = {
    sa.Uuid: uuid.UUID,
    sa.Boolean: bool,
    sa.Float: float,
    sa.Integer: int,
    sa.String: str,
    sa.Date: dt.date,
    sa.JSON: Any,
    sa.LargeBinary: bytes,
}
_ON_DELETE = {None: "restrict", "RESTRICT": "restrict", "NO ACTION": "restrict", "CASCADE": "cascade"}


class _Row:
    """The columns that every row carries beside its id. The database keeps them."""

    version: Mapped[int] = mapped_column(
        sa.BigInteger,
        server_default=sa.FetchedValue(),
        server_onupdate=sa.FetchedValue(),
        sort_order=1_000,
    )
    created_at: Mapped[dt.datetime] = mapped_column(
        sa.DateTime(timezone=True), server_default=sa.FetchedValue(), sort_order=1_001
    )
    updated_at: Mapped[dt.datetime] = mapped_column(
        sa.DateTime(timezone=True),
        server_default=sa.FetchedValue(),
        server_onupdate=sa.FetchedValue(),
        sort_order=1_002,
    )

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805  # SQLAlchemy hands it the class
        """A row that was changed meanwhile raises ``StaleDataError``; the new version comes back with the write."""
        if any("__mapper__" in vars(base) for base in type.mro(cast("type[Any]", cls))[1:]):
            return {}  # refused below, with a better message than SQLAlchemy's
        return {"version_id_col": cls.version, "version_id_generator": False, "eager_defaults": True}

    @classmethod
    def __tenantry_model__(cls) -> type[KeyedModel]:
        mapper: Mapper[Any] | None = sa.inspect(cls, raiseerr=False)
        if mapper is None:
            raise SchemaError(
                f"{cls.__name__} is not mapped.",
                field="models",
                fix="Derive it from your declarative base too.",
            )
        table = mapper.local_table
        if not isinstance(table, sa.Table) or mapper.inherits is not None or table.schema is not None:
            raise SchemaError(
                f"{cls.__name__} must have a table of its own, without a schema or inheritance.",
                field=cls.__name__,
            )
        if "tenantry_model" not in table.info:
            table.info["tenantry_model"] = _model_of(cls, mapper, table)
        model: type[KeyedModel] = table.info["tenantry_model"]
        return model


class KeyedTenantMixin(_Row):
    """Makes a declarative model one of tenant rows, for those that declare an ``id`` of their own."""


class TenantMixin(KeyedTenantMixin):
    """Makes a declarative model one of tenant rows, with a UUIDv7 as its ``id``."""

    id: Mapped[uuid.UUID] = mapped_column(sa.Uuid, primary_key=True, default=uuid7, sort_order=-1)


class SoftDeleteMixin:
    """Beside :class:`TenantMixin`: ``acme.data.delete`` marks rows, and its reads leave marked ones out.

    A session is a user's own SQL: it sees marked rows, and ``session.delete`` deletes for good. Write
    ``where(Order.deleted_at.is_(None))`` there.
    """

    deleted_at: Mapped[dt.datetime | None] = mapped_column(
        sa.DateTime(timezone=True), index=True, sort_order=1_003
    )


class SharedMixin(_Row):
    """Makes a declarative model, which declares its ``id``, one of reference data: tenants read it, none writes."""


def _model_of(mapped: type[_Row], mapper: Mapper[Any], table: sa.Table) -> type[KeyedModel]:
    """Return a mapped class as a model of tenantry, from which its collection and its table are made.

    Raises:
        SchemaError: It declares something that the table would not have; names it and the fix.
    """
    hints = _hints(mapped, mapper)
    fields: dict[str, Any] = {}
    soft = issubclass(mapped, SoftDeleteMixin)
    carried = CARRIED - {"id"} | ({MARK} if soft else set())
    for attribute in mapper.column_attrs:
        column, where = attribute.columns[0], f"{mapped.__name__}.{attribute.key}"
        if not isinstance(column, sa.Column):  # an expression
            continue
        if column.name != attribute.key:
            raise SchemaError(f"{where} has a column of another name.", field=attribute.key)
        if column.name not in carried:
            fields[str(column.name)] = _field(where, column, _markers(hints.get(column.name)))
    marks: list[type[Any]] = [Shared] if issubclass(mapped, SharedMixin) else []
    marks += [SoftDelete] if soft else []
    unique, indexes = _groups(mapped.__name__, table)
    namespace = {"__collection__": str(table.name), "__unique__": unique, "__indexes__": indexes}
    base = types.new_class(
        mapped.__name__, (*marks, KeyedModel), exec_body=lambda body: body.update(namespace)
    )
    return pydantic.create_model(mapped.__name__, __base__=base, __module__=mapped.__module__, **fields)


def _hints(mapped: type[Any], mapper: Mapper[Any]) -> Mapping[str, Any]:
    """Return what each attribute is declared as, markers included."""
    classes = {known.class_.__name__: known.class_ for known in mapper.registry.mappers}
    try:
        return get_type_hints(mapped, localns=classes, include_extras=True)
    except NameError as error:
        raise SchemaError(
            f"{mapped.__name__}: {error}.",
            field=mapped.__name__,
            fix="Import what its annotations name also at run time.",
        ) from error


def _markers(hint: Any) -> list[Any]:
    """Return the markers in ``Mapped[Annotated[…]]`` that are not SQLAlchemy's own."""
    inner = get_args(hint)[0] if get_args(hint) else None
    markers = get_args(inner)[1:] if get_origin(inner) is Annotated else ()
    return [marker for marker in markers if not hasattr(marker, "__clause_element__")]


def _field(where: str, column: sa.Column[Any], markers: list[Any]) -> tuple[Any, Any]:
    """Return the annotation and the default of a column."""
    annotation = _type(where, column.type)
    declared = {Unique: column.unique, Indexed: column.index}
    markers = [*markers, *(marker for marker, is_so in declared.items() if is_so)]
    markers += [_reference(where, key) for key in column.foreign_keys]
    if column.nullable:
        annotation = annotation | None if annotation is not Any else Any
    for marker in markers:
        annotation = Annotated[annotation, marker]
    return annotation, _default(where, column)


def _type(where: str, kind: sa.types.TypeEngine[Any]) -> Any:
    if isinstance(kind, sa.Enum):
        members = kind.enum_class
        if members is None or kind.native_enum or kind.enums != [member.value for member in members]:
            raise SchemaError(
                f"{where}: an Enum is stored by its values, as text.",
                field=where.rpartition(".")[2],
                fix="Enum(Colour, native_enum=False, values_callable=lambda e: [m.value for m in e]).",
            )
        return members
    if isinstance(kind, sa.Numeric) and kind.asdecimal:
        places = pydantic.Field(max_digits=kind.precision or 38, decimal_places=kind.scale)
        return Annotated[Decimal, places] if kind.scale is not None else Decimal
    if isinstance(kind, sa.DateTime) and kind.timezone:
        return dt.datetime
    if isinstance(kind, sa.ARRAY) and (kind.dimensions or 1) == 1:
        item = _type(where, kind.item_type)
        return list[item]  # type: ignore[valid-type]
    for known, python in _PLAIN.items():
        if isinstance(kind, known):
            return python
    raise SchemaError(
        f"{where}: {kind!r} is not a type that a collection has.",
        field=where.rpartition(".")[2],
        fix="DateTime needs timezone=True; of the others take text, numbers, dates, Uuid, JSON, LargeBinary or ARRAY.",
    )


def _reference(where: str, key: sa.ForeignKey) -> Ref:
    table, _, column = key.target_fullname.rpartition(".")
    on_delete = _ON_DELETE.get(key.ondelete.upper() if key.ondelete else None)
    if (
        column != "id"
        or on_delete is None
        or (key.constraint is not None and len(key.constraint.columns) > 1)
    ):
        raise SchemaError(
            f"{where}: a reference names the id of another table, and its ondelete is CASCADE or RESTRICT.",
            field=where.rpartition(".")[2],
            fix="Leave ondelete out: the ORM itself sets references to None that it can.",
        )
    return Ref(table, on_delete="cascade" if on_delete == "cascade" else "restrict")


def _default(where: str, column: sa.Column[Any]) -> Any:
    if column.server_default is not None or column.computed is not None:
        raise SchemaError(
            f"{where}: a default of the server would not be in the table.",
            field=column.name,
            fix="Give it a default= of Python's.",
        )
    default: Any = column.default
    if default is not None and default.is_scalar:
        return default.arg
    if default is not None and default.is_callable:
        return pydantic.Field(default_factory=lambda: default.arg(None))
    return None if column.nullable else ...


def _groups(owner: str, table: sa.Table) -> tuple[Groups, Groups]:
    """Return the groups of columns that are unique together, and those that are indexed together."""
    unique: list[tuple[str, ...]] = []
    indexes: list[tuple[str, ...]] = []
    for constraint in table.constraints:
        if isinstance(constraint, sa.UniqueConstraint) and len(constraint.columns) > 1:
            unique.append(tuple(constraint.columns.keys()))
        elif isinstance(constraint, sa.CheckConstraint):
            raise SchemaError(
                f"{owner}: a CHECK constraint would not be in the table.", field="__table_args__"
            )
    for index in table.indexes:
        names = tuple(str(column.name) for column in index.columns)
        if len(names) != len(index.expressions):
            raise SchemaError(
                f"{owner}: an index over an expression would not be in the table.", field="__table_args__"
            )
        if len(names) > 1 or index.unique:
            (unique if index.unique else indexes).append(names)
    return tuple(unique), tuple(indexes)
