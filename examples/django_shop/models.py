"""The shop's models: plain Django, without a word of tenants."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import models

from examples.django_shop.files import place_of


class Category(models.Model):
    name = models.CharField(max_length=100, unique=True)

    class Meta:
        verbose_name_plural = "categories"

    def __str__(self) -> str:
        return str(self.name)


class Tag(models.Model):
    word = models.SlugField(unique=True)

    def __str__(self) -> str:
        return str(self.word)


class Product(models.Model):
    name = models.CharField(max_length=200)
    sku = models.CharField(max_length=40, unique=True)
    price = models.DecimalField(max_digits=12, decimal_places=2)
    category = models.ForeignKey(Category, models.PROTECT)
    tags = models.ManyToManyField(Tag, blank=True)
    sheet = models.FileField(upload_to=place_of, blank=True)
    added = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return str(self.name)


class Order(models.Model):
    customer = models.CharField(max_length=200)
    taken_by = models.ForeignKey(User, models.PROTECT, null=True, blank=True)
    placed = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"order {self.pk} of {self.customer}"


class Line(models.Model):
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, models.PROTECT)
    count = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["order", "product"], name="one_line_a_product")]
