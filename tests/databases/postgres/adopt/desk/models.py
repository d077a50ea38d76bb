from __future__ import annotations

import uuid

from django.contrib.auth.models import User
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Plan(models.Model):
    name = models.CharField(max_length=50, unique=True)


class Country(models.Model):
    code = models.CharField(max_length=2, primary_key=True)


class Organization(models.Model):
    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=100)
    plan = models.ForeignKey(Plan, models.PROTECT, null=True)


class Profile(models.Model):
    user = models.OneToOneField(User, models.CASCADE)
    bio = models.TextField(default="")


class Membership(models.Model):
    user = models.ForeignKey(User, models.CASCADE)
    organization = models.ForeignKey(Organization, models.CASCADE)

    class Meta:
        unique_together = (("user", "organization"),)


class Team(models.Model):
    organization = models.ForeignKey(Organization, models.CASCADE)
    parent = models.ForeignKey("self", models.CASCADE, null=True)
    members = models.ManyToManyField(User)


class Customer(models.Model):
    organization = models.ForeignKey(Organization, models.CASCADE)
    country = models.ForeignKey(Country, models.PROTECT)
    email = models.EmailField(unique=True)


class Label(models.Model):
    organization = models.ForeignKey(Organization, models.CASCADE)
    name = models.CharField(max_length=50)

    class Meta:
        unique_together = (("organization", "name"),)


class Ticket(models.Model):
    organization = models.ForeignKey(Organization, models.CASCADE)
    customer = models.ForeignKey(Customer, models.CASCADE)
    assignee = models.ForeignKey(User, models.SET_NULL, null=True)
    parent = models.ForeignKey("self", models.SET_NULL, null=True)
    labels = models.ManyToManyField(Label)
    watchers = models.ManyToManyField(User, related_name="+")
    title = models.CharField(max_length=100)


class Message(models.Model):
    ticket = models.ForeignKey(Ticket, models.CASCADE)
    author = models.ForeignKey(User, models.SET_NULL, null=True)
    text = models.TextField()


class Attachment(models.Model):
    message = models.ForeignKey(Message, models.CASCADE, null=True)
    name = models.CharField(max_length=100)


class Survey(models.Model):
    ticket = models.OneToOneField(Ticket, models.CASCADE, primary_key=True)
    stars = models.IntegerField()


class Article(models.Model):
    organization = models.ForeignKey(Organization, models.CASCADE)
    title = models.CharField(max_length=100)


class Revision(models.Model):
    article = models.ForeignKey(Article, models.CASCADE)
    text = models.TextField()


class Note(models.Model):
    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.PositiveBigIntegerField()
    about = GenericForeignKey("content_type", "object_id")
    text = models.TextField()


class Invoice(models.Model):
    organization = models.ForeignKey(Organization, models.CASCADE)
    number = models.IntegerField()


class InvoiceLine(models.Model):
    invoice = models.ForeignKey(Invoice, models.CASCADE)
    amount = models.DecimalField(max_digits=9, decimal_places=2)


class Webhook(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    organization = models.ForeignKey(Organization, models.CASCADE)
    url = models.URLField()
