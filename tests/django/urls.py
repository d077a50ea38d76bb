"""The example's addresses, and views that do what the example's do not."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, connections, transaction
from django.http import FileResponse, Http404, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from examples.django_shop.models import Category
from examples.django_shop.urls import urlpatterns as shop
from tenantry import current_context
from tenantry.django import sdk

noted: list[Any] = []


def names() -> list[str]:
    return list(Category.objects.order_by("name").values_list("name", flat=True))


def seen(request: Any) -> JsonResponse:
    context = current_context()
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    return JsonResponse(
        {
            "names": names(),
            "ambient": context and context.tenant_id,
            "user": context and context.user_id,
            "pid": pid,
        }
    )


def write(request: Any) -> HttpResponse:
    """Write, and end as the query says."""
    Category.objects.create(name=request.GET["name"])
    transaction.on_commit(lambda: noted.append((request.GET["name"], names())))
    match request.GET.get("then"):
        case "raise":
            raise ZeroDivisionError
        case "500":
            return HttpResponse(status=500)
        case "404":
            raise Http404
        case "refused":
            sdk().tenant("acme").data.get("nothing", "1")
        case "swallow":
            with suppress(IntegrityError):
                Category.objects.create(name=request.GET["name"])
        case _:
            pass
    return HttpResponse("written")


def after(request: Any) -> HttpResponse:
    """Write once more after the commit, and note something after that commit too."""

    def work() -> None:
        Category.objects.create(name="after the commit")
        transaction.on_commit(lambda: noted.append(names()))

    transaction.on_commit(work)
    return HttpResponse("left")


def stream(request: Any) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        try:
            for name in (
                Category.objects.order_by("name").values_list("name", flat=True).iterator(chunk_size=1)
            ):
                yield f"{name}\n"
            context = current_context()
            yield f"as {context and context.tenant_id}\n"
            if request.GET.get("fail"):
                raise ZeroDivisionError
        finally:
            noted.append(names())

    return StreamingHttpResponse(lines())


class Rows(io.RawIOBase):
    """A file that is read from the database."""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self.tell_once:
            return b""
        self.tell_once = True
        return "\n".join(names()).encode()

    tell_once = False


def file(request: Any) -> FileResponse:
    return FileResponse(Rows(), filename="rows.txt")


def disk(request: Any) -> FileResponse:
    return FileResponse(open(__file__, "rb"), filename="urls.py")  # noqa: PTH123 - the response closes it


async def asynchronous(request: Any) -> JsonResponse:
    return JsonResponse({"names": [name async for name in Category.objects.values_list("name", flat=True)]})


async def asynchronous_stream(request: Any) -> StreamingHttpResponse:
    async def lines() -> Any:
        yield "never"

    return StreamingHttpResponse(lines())


def in_thread(request: Any) -> JsonResponse:
    """Query in a thread of one's own, whose connection nobody bound."""
    found: list[list[str]] = []

    def work() -> None:
        found.append(names())
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return JsonResponse({"names": found[0]})


def users(request: Any) -> JsonResponse:
    return JsonResponse({"users": list(User.objects.values_list("email", flat=True))})


_VIEWS: list[Callable[..., Any]] = [
    seen, write, after, stream, file, disk, asynchronous, asynchronous_stream, in_thread, users,
]  # fmt: skip
urlpatterns = [
    *shop,
    path("public", seen),
    *(path(view.__name__, view) for view in _VIEWS),
]
