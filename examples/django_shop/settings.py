"""The project. Its secrets and addresses come from the environment; ``__main__`` sets them for a look around."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def database(url: str) -> dict[str, Any]:
    """Return an entry of DATABASES by its address."""
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname,
        "PORT": parts.port,
    }


# The raw role serves, and persistent connections are as good as new ones. The owner migrates.
DATABASES = {"default": {**database(os.environ["TENANTRY_DATABASE_RAW_URL"]), "CONN_MAX_AGE": 60}}
if "TENANTRY_DATABASE_OWNER_URL" in os.environ:
    DATABASES["owner"] = database(os.environ["TENANTRY_DATABASE_OWNER_URL"])

SECRET_KEY = os.environ["SHOP_SECRET_KEY"]
DEBUG = False
DOMAIN = os.environ.get("SHOP_DOMAIN", "localhost")
ALLOWED_HOSTS = [DOMAIN, f".{DOMAIN}"]
TENANTRY = {"HOST": DOMAIN, "PUBLIC": ["/health", "/static/"]}

INSTALLED_APPS = [
    "tenantry.django",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "examples.django_shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "tenantry.django.TenantMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "examples.django_shop.urls"
WSGI_APPLICATION = "examples.django_shop.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
STATIC_URL = "/static/"
MEDIA_ROOT = Path(os.environ.get("SHOP_MEDIA", "media"))
