"""The application: each request has a session that the database holds to the request's tenant."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import sqlalchemy as sa
from flask import Blueprint, Flask, Response, abort, current_app, g, jsonify, request
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from examples.flask_shop.models import Category, Product
from examples.shop.accounts import Accounts, Credentials
from examples.shop.products import NewProduct
from tenantry import TenantryError
from tenantry.http import problem
from tenantry.http.wsgi import CONTEXT, TenantMiddleware
from tenantry.sync import MultiTenantSDK

pages = Blueprint("pages", __name__)


class Offer(NewProduct):
    """A product as a client sends it, with the name of its category."""

    category: str = Field(min_length=1, max_length=100)


class Change(BaseModel):
    """What a client may change."""

    price: Decimal = Field(ge=0, max_digits=12, decimal_places=2)


@dataclass(frozen=True)
class Shop:
    """What the pages need.

    Attributes:
        sdk: Open, on the database of ``engine``.
        engine: Logs in as the raw role.
        accounts: Who may sign in.
    """

    sdk: MultiTenantSDK
    engine: sa.Engine
    accounts: Accounts

    def admit(self, tenant: str) -> None:
        """Refuse a tenant that may not be served."""
        with self.sdk.tenant(tenant):
            pass

    @contextmanager
    def session(self, tenant: str) -> Iterator[Session]:
        """Give a session that the database holds to a tenant."""
        with Session(self.engine) as session, self.sdk.bind(session, tenant):
            yield session


def build(sdk: MultiTenantSDK, engine: sa.Engine, accounts: Accounts) -> Flask:
    """Return the application."""
    app = Flask("shop")
    app.extensions["shop"] = shop = Shop(sdk, engine, accounts)
    app.register_blueprint(pages)
    served = TenantMiddleware(app.wsgi_app, admit=shop.admit, identity=accounts.resolver(), public=["/login"])
    app.wsgi_app = served  # type: ignore[method-assign]
    return app


def the_shop() -> Shop:
    return cast(Shop, current_app.extensions["shop"])


@pages.before_app_request
def open_session() -> None:
    context = request.environ.get(CONTEXT)
    if context is not None:  # a public path has no tenant, and so no session
        g.blocks = ExitStack()
        g.session = g.blocks.enter_context(the_shop().session(context.tenant_id))


@pages.teardown_app_request
def close_session(error: BaseException | None) -> None:
    blocks: ExitStack | None = g.pop("blocks", None)
    if blocks is not None:
        blocks.close()


@pages.post("/login")
def login() -> Any:
    token = the_shop().accounts.sign_in(Credentials.model_validate(request.get_json()))
    return jsonify(token=token) if token else abort(401)


@pages.get("/products")
def products() -> Any:
    found = sa.select(Product).order_by(Product.sku).limit(100)
    if "q" in request.args:
        found = found.where(Product.name.icontains(request.args["q"], autoescape=True))
    return jsonify([_shown(product) for product in g.session.scalars(found)])


@pages.post("/products")
def create() -> Any:
    offer = Offer.model_validate(request.get_json())
    category = g.session.scalar(sa.select(Category).where(Category.name == offer.category))
    category = category or Category(name=offer.category)
    made = Product(name=offer.name, sku=offer.sku, price=offer.price, category=category)
    g.session.add(made)
    g.session.commit()
    return jsonify(_shown(made)), 201


@pages.get("/products/<uuid:id>")
def product(id: uuid.UUID) -> Any:
    return jsonify(_shown(g.session.get(Product, id) or abort(404)))


@pages.patch("/products/<uuid:id>")
def change(id: uuid.UUID) -> Any:
    found = g.session.get(Product, id) or abort(404)
    found.price = Change.model_validate(request.get_json()).price
    g.session.commit()
    return jsonify(_shown(found))


@pages.delete("/products/<uuid:id>")
def delete(id: uuid.UUID) -> Any:
    g.session.delete(g.session.get(Product, id) or abort(404))
    g.session.commit()
    return "", 204


@pages.get("/products.csv")
def export() -> Response:
    """Stream all products. The session of the request is over when the first line is asked for."""
    lines = _lines(the_shop(), request.environ[CONTEXT].tenant_id)
    return Response(lines, mimetype="text/csv")


def _lines(shop: Shop, tenant: str) -> Iterator[str]:
    with shop.session(tenant) as session:
        rows = sa.select(Product.sku, Product.name, Product.price).order_by(Product.sku)
        for row in session.execute(rows.execution_options(yield_per=500)):
            line = io.StringIO()
            csv.writer(line).writerow(row)
            yield line.getvalue()


@pages.app_errorhandler(TenantryError)
def refused(error: TenantryError) -> Any:
    found = problem(error)
    return found.body, found.status, dict(found.headers)


@pages.app_errorhandler(ValidationError)
def invalid(error: ValidationError) -> Any:
    return Response(error.json(include_url=False, include_input=False), 422, mimetype="application/json")


@pages.app_errorhandler(IntegrityError)
def taken(error: IntegrityError) -> Any:
    return jsonify(detail="This number is taken."), 409


def _shown(product: Product) -> dict[str, Any]:
    return {
        "id": str(product.id),
        "name": product.name,
        "sku": product.sku,
        "price": str(product.price),
        "category": product.category.name,
    }
