"""`outlive agents chat`: talk to a durable agent on the terminal, in a conversation that survives it."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
import uuid
from types import ModuleType
from typing import Any

import click
from click.core import ParameterSource

from outlive import Outlive, sync
from outlive.cli.agents import agents
from outlive.cli.settings import Settings, common_options, person, signed
from outlive.cli.worker import import_object
from outlive.errors import UsageError

_KILLED = 130


@agents.command()
@click.argument("target", metavar="MODULE[:AGENT]")
@click.option("--id", "run_id", metavar="ID", help="The conversation: a new one, or one to go on with.")
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="A role in which you approve; may be repeated.")
@signed
@common_options
def chat(settings: Settings, target: str, run_id: str | None, roles: tuple[str, ...], by: str | None) -> int:
    """Talk to a durable agent, or to what `conversation` has made of it; this process works for it meanwhile.

    Leave with Ctrl-C or /quit and come back with --id: nothing is lost, and nothing is said twice, also after a kill.
    """
    if settings.json:
        raise UsageError("a chat is for people; programs use say, events and `outlive runs stream ID agent.events`")
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")  # which it prints on terminals, into the conversation
    talk, module = _find_conversation(target)
    app = _make_app(settings, talk, module)
    chosen = run_id or f"chat-{uuid.uuid4().hex[:8]}"
    logging.getLogger("outlive").setLevel(logging.ERROR)  # what a person has to know is on the screen
    again = _come_back(settings, target, chosen, roles, by)
    return asyncio.run(_chat(app, talk, chosen, roles, by, again))


async def _chat(app: Outlive, talk: Any, run_id: str, roles: tuple[str, ...], by: str | None, again: str) -> int:
    from outlive.cli.chatting import Chat

    async with app:
        run = await app.start(talk, id=run_id)
        known = "conversation" if run.created else "back in conversation"
        click.echo(f"{known} {run.id}; /end ends it, Ctrl-C leaves it", err=True)
        left = await Chat(app, talk, run, roles, person(by)).talk()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, os._exit, _KILLED)
        click.echo(left.says, err=True)
        if not (await run.status()).final:
            click.echo(f"come back: {again}", err=True)
    return left.code


def _come_back(settings: Settings, target: str, run_id: str, roles: tuple[str, ...], by: str | None) -> str:
    """Give the command that comes back, as it was given; what the environment says it will say again."""
    words = ["outlive", "agents", "chat", target, "--id", run_id]
    words += (word for role in roles for word in ("--role", role))
    if by is not None and click.get_current_context().get_parameter_source("by") is ParameterSource.COMMANDLINE:
        words += ["--by", by]
    if settings.url and settings.url != os.environ.get("OUTLIVE_URL"):
        words += ["--url", settings.url]
    return shlex.join(words)


def _find_conversation(target: str) -> tuple[Any, ModuleType]:
    """Give the conversation that the command line names, and its module."""
    found = import_object(target)  # which puts the folder on the path
    from outlive.agents import Conversation, DurableAgent, conversation

    module: ModuleType = found if isinstance(found, ModuleType) else import_object(target.partition(":")[0])
    made = {name: one for name, one in vars(module).items() if isinstance(one, Conversation)}
    if isinstance(found, Conversation):
        return found, module
    if isinstance(found, DurableAgent):
        own = next((one for one in made.values() if one.agent is found), None)
        return own or conversation(found), module
    if not isinstance(found, ModuleType):
        raise UsageError(f"{target} is {found!r}, not a durable agent, durable(agent), or a conversation with one")
    durables = {name: one for name, one in vars(module).items() if isinstance(one, DurableAgent)}
    choice = made or durables
    if len(choice) != 1:
        names = ", ".join(f"{target}:{name}" for name in choice) or "it has none"
        raise UsageError(f"say which agent of the module {target!r} you want to talk to: {names}")
    (name,) = choice
    return _find_conversation(f"{target}:{name}")


def _make_app(settings: Settings, talk: Any, module: ModuleType) -> Outlive:
    """Make an app that serves the conversation and its module, as the module's own app would."""
    apps = [one._real if isinstance(one, sync.Outlive) else one for one in vars(module).values() if _is_app(one)]
    if not apps:
        return Outlive(settings.require_url(), include=[talk, module])
    own, options = apps[0], apps[0]._options
    include = None if own._include is None else [talk, module, *own._include]
    return Outlive(settings.url or own._url, include=include, codec=options.codec, lease=options.lease_s, name="chat")


def _is_app(one: Any) -> bool:
    return isinstance(one, Outlive | sync.Outlive)
