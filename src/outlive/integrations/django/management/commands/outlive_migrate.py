"""`manage.py outlive_migrate`: brings the tables of Outlive up to date."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from outlive import sync
from outlive.integrations.django.configuration import url


class Command(BaseCommand):
    """See the module's text."""

    help = "Creates the tables of Outlive, or upgrades them to this version. Safe to repeat."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Migrate."""
        with sync.Outlive(url(), worker=False, migrate=True):
            self.stdout.write("the schema of Outlive is up to date")
