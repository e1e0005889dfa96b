"""`manage.py outlive runs ls`: the command line of Outlive, on the database of the settings."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from outlive.cli import main
from outlive.integrations.django.configuration import url


class Command(BaseCommand):
    """See the module's text."""

    help = "The command line of Outlive: runs, db, doctor, …"

    def add_arguments(self, parser: CommandParser) -> None:
        """Take words of `call_command`."""
        parser.add_argument("args", nargs="*")

    def run_from_argv(self, argv: list[str]) -> None:
        """Hand everything on, options and --help included."""
        main(["--url", url(), *argv[2:]])

    def handle(self, *args: Any, **_options: Any) -> None:
        """Do the same from `call_command`."""
        main(["--url", url(), *args])
