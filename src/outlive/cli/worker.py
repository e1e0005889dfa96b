"""`outlive worker`: executes runs until it is told to stop.

SIGTERM and the first Ctrl-C stop it gently: nothing new is claimed, steps in flight get the app's
grace, then the runs are released to other workers. A second one ends the process at once,
which loses nothing either; the runs then wait for a takeover.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from outlive import Outlive, sync
from outlive.cli.settings import OK, Settings, common_options
from outlive.definitions import Definition
from outlive.errors import OutliveError, UsageError

_KILLED = 130
_LINGER_S = 0.5  # for threads that are about to end


@click.command()
@click.argument("target", metavar="MODULE[:APP]")
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME",
    help="Only runs of this queue, and those in none; may be repeated. Default: as the app says.",
)
@common_options
def worker(settings: Settings, target: str, queues: tuple[str, ...]) -> None:
    """Execute runs until Ctrl-C or SIGTERM.

    MODULE:APP names an Outlive object, or a function that gives one. MODULE alone serves the
    definitions of that module. The database is that of --url, else the app's own.
    """
    serve(find_app(target, settings, queues))


def serve(app: Outlive) -> None:
    """Execute runs until this process is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(app))


def find_app(target: str, settings: Settings, queues: tuple[str, ...] = ()) -> Outlive:
    """Import what the command line names and give the app, as the command line wants it."""
    found = import_target(target)
    if isinstance(found, ModuleType) and not settings.url and (apps := _list_apps(found)):
        raise UsageError(f"no database: pass --url or set OUTLIVE_URL, or name the app: {target}:{apps[0]}")
    app = found if isinstance(found, Outlive) else Outlive(settings.require_url(), include=[found])
    if not app._options.worker:
        raise UsageError(f"{target} is a client (worker=False) and executes nothing")
    app._adjust(settings.url, queues or None)
    return app


def import_target(target: str) -> Outlive | ModuleType:
    """Import what MODULE or MODULE:APP names."""
    found = import_object(target)
    if isinstance(found, ModuleType):
        return found
    app = _make(target, found) if _is_factory(found) else found
    if isinstance(app, sync.Outlive):
        app = app._real
    if not isinstance(app, Outlive):
        raise UsageError(f"{target} is {found!r}, not an Outlive object or a function that gives one without arguments")
    return app


def import_object(target: str) -> Any:
    """Import a module, or what it calls by the name behind the colon."""
    module_name, _, attribute = target.partition(":")
    if not module_name:
        raise UsageError(f"{target!r} names no module; say MODULE or MODULE:APP")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(f"module {module_name!r} cannot be imported", error) from error
        raise UsageError(f"no module {module_name!r} in {Path.cwd()} or on PYTHONPATH") from None
    except OutliveError:
        raise
    except Exception as error:
        raise _broken(f"module {module_name!r} cannot be imported", error) from error
    if not attribute:
        return module
    if not hasattr(module, attribute):
        apps = ", ".join(_list_apps(module))
        raise UsageError(f"module {module_name!r} has no {attribute!r}" + (f"; its apps: {apps}" if apps else ""))
    return getattr(module, attribute)


def _make(target: str, factory: Any) -> Any:
    try:
        return factory()
    except OutliveError:
        raise
    except Exception as error:
        raise _broken(f"{target}() fails", error) from error


def _broken(what: str, error: Exception) -> UsageError:
    """Tell what the user's own code raised, and where in it."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__) and not frame.filename.startswith("<frozen importlib")
    ]
    where = "".join(traceback.format_list(frames)).rstrip()
    return UsageError(f"{what}: {type(error).__name__}: {error}" + (f"\n{where}" if where else ""))


def _is_factory(found: Any) -> bool:
    if not callable(found) or isinstance(found, type | Definition):
        return False
    try:
        inspect.signature(found).bind()
    except TypeError:
        return False
    return True


def _list_apps(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, Outlive | sync.Outlive)]


async def _serve(app: Outlive) -> None:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(_KILLED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    async with app:
        click.echo(f"worker {app.name} is running (process {os.getpid()}); Ctrl-C stops it", err=True)
        await stop.wait()
        click.echo("stopping: steps in flight may finish; Ctrl-C again ends at once", err=True)
    leaving = threading.Timer(_LINGER_S, _leave)
    leaving.daemon = True
    leaving.start()


def _leave() -> None:
    """End the process though threads of steps go on, which nobody can stop and Python waits for: all is released."""
    me, main = threading.current_thread(), threading.main_thread()
    if all(thread.daemon or thread in (me, main) for thread in threading.enumerate()):
        return
    try:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(OK)
