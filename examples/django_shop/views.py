"""The pages of the shop."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from examples.django_shop.models import Order, Product


def health(_: HttpRequest) -> HttpResponse:
    """Answer without a tenant."""
    return HttpResponse("ok", content_type="text/plain")


def shelf(request: HttpRequest) -> HttpResponse:
    """List the products; anybody who comes to the shop's host may look."""
    products = Product.objects.select_related("category").order_by("sku")
    asked = request.GET.get("q")
    if asked:
        products = products.filter(name__icontains=asked)
    return render(request, "django_shop/shelf.html", {"products": products[:100], "asked": asked or ""})


def product(request: HttpRequest, id: int) -> HttpResponse:
    """Show one product."""
    return render(request, "django_shop/product.html", {"product": get_object_or_404(Product, pk=id)})


@login_required
def export(_: HttpRequest) -> StreamingHttpResponse:
    """Stream all products, however many there are."""
    return StreamingHttpResponse(_lines(), content_type="text/csv")


def _lines() -> Iterator[str]:
    yield "sku,name,price\r\n"
    for row in Product.objects.order_by("sku").values_list("sku", "name", "price").iterator(chunk_size=500):
        line = io.StringIO()
        csv.writer(line).writerow(row)
        yield line.getvalue()


@login_required
def sheet(_: HttpRequest, id: int) -> FileResponse:
    """Send the data sheet of a product."""
    found = get_object_or_404(Product, pk=id)
    if not found.sheet:
        raise Http404
    return FileResponse(found.sheet.open("rb"), as_attachment=True)


@login_required
@require_POST
def buy(request: Any, id: int) -> HttpResponse:
    """Put a product into a new order, or all of it into none."""
    with transaction.atomic():
        order = Order.objects.create(customer=request.POST.get("customer", "somebody"), taken_by=request.user)
        order.lines.create(product=get_object_or_404(Product, pk=id), count=1)
    return redirect("shelf")
