"""Outlive without an event loop: apps and handles for plain programs, functions for plain workflow bodies.

`app` and `run` are generated from the async classes, so that both faces say the
same; a house test compares.
"""

from outlive.sync.app import Outlive
from outlive.sync.body import (
    Promise,
    ask_user,
    continue_as_new,
    durable,
    emit,
    info,
    now,
    on_call,
    on_rollback,
    patched,
    promise,
    publish,
    random,
    receive,
    send,
    shielded,
    sleep,
    sleep_until,
    start,
    uuid,
)
from outlive.sync.face import RunList
from outlive.sync.run import Run

__all__ = ["Outlive", "Promise", "Run", "RunList"]
__all__ += [
    "ask_user",
    "continue_as_new",
    "durable",
    "emit",
    "info",
    "now",
    "on_call",
    "on_rollback",
    "patched",
    "promise",
    "publish",
]
__all__ += ["random", "receive", "send", "shielded", "sleep", "sleep_until", "start", "uuid"]
