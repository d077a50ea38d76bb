"""The addresses of the shop."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import views as auth
from django.contrib.staticfiles.views import serve
from django.urls import path

from examples.django_shop import views

urlpatterns = [
    path("", views.shelf, name="shelf"),
    path("products/<int:id>/", views.product, name="product"),
    path("products/<int:id>/sheet", views.sheet, name="sheet"),
    path("products/<int:id>/buy", views.buy, name="buy"),
    path("products.csv", views.export, name="export"),
    path("login/", auth.LoginView.as_view(template_name="django_shop/login.html"), name="login"),
    path("logout/", auth.LogoutView.as_view(next_page="/"), name="logout"),
    path("admin/", admin.site.urls),
    path("health", views.health),
    # A web server does this better; here it spares one.
    path("static/<path:path>", serve, {"insecure": True}),
]
