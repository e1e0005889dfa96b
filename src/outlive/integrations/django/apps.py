"""The entry of INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.signals import request_started


class OutliveConfig(AppConfig):
    """Brings the management commands, and with OUTLIVE["WORKER"] opens the app at the first request of a process."""

    name = "outlive.integrations.django"
    label = "outlive"
    verbose_name = "Outlive"

    def ready(self) -> None:
        """Settings can be read from here on."""
        from outlive.integrations.django import configuration, get_app

        if configuration.executes_runs():
            request_started.connect(lambda **_: get_app(), weak=False, dispatch_uid="outlive")
