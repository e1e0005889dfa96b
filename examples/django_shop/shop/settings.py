"""Runs live in the database of the project: there is nothing more to set."""

import os
from urllib.parse import urlsplit

SECRET_KEY = "of the example"  # noqa: S105
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["outlive.integrations.django", "shop"]
MIDDLEWARE = ["outlive.integrations.django.middleware.ErrorAnswers"]

_url = urlsplit(os.environ.get("SHOP_DATABASE", ""))
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path[1:],
        "USER": _url.username,
        "HOST": _url.hostname,
        "PORT": _url.port,
    }
    if _url.scheme == "postgresql"
    else {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.abspath("shop.db"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},  # who will write waits for his turn, instead of failing later
    }
}
