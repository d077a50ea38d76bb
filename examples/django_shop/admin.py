"""The admin: nothing in it knows of tenants either."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db.models import F

from examples.django_shop.models import Category, Line, Order, Product, Tag


@admin.register(Category)
class CategoryAdmin(admin.ModelAdmin):
    search_fields = ["name"]


@admin.register(Tag)
class TagAdmin(admin.ModelAdmin):
    search_fields = ["word"]


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ["name", "sku", "price", "category"]
    list_filter = ["category", "tags"]
    search_fields = ["name", "sku"]
    autocomplete_fields = ["category"]
    filter_horizontal = ["tags"]
    date_hierarchy = "added"
    actions = ["discount"]

    @admin.action(description="Take a tenth off the price")
    def discount(self, request: Any, products: Any) -> None:
        changed = products.update(price=F("price") * Decimal("0.9"))
        self.message_user(request, f"{changed} cheaper")


class LineInline(admin.TabularInline):
    model = Line
    extra = 1
    autocomplete_fields = ["product"]


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["customer", "placed", "taken_by"]
    list_filter = ["taken_by"]
    inlines = [LineInline]
