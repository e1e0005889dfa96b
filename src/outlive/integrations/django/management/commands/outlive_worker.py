"""`manage.py outlive_worker`: executes runs until it is told to stop."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from outlive.cli.worker import serve
from outlive.integrations.django.configuration import fresh_connections, make_worker
from outlive.integrations.process import enclosed


class Command(BaseCommand):
    """See the module's text."""

    help = "Executes runs until Ctrl-C or SIGTERM."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Serve."""
        enclosed(fresh_connections, lambda: serve(make_worker()))
