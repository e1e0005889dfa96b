"""A workflow as a tool: name, description and schemas, and what goes through them in both directions.

Pure: knows no server and no run. Invariant: arguments reach the workflow as its hints declare them, or not at all.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
from mcp_types import CallToolResult, TextContent, Tool

from outlive.codec.jsontext import JsonCodec
from outlive.codec.payload import decode_arguments
from outlive.codec.plain import ENCODER, is_pydantic, name_class
from outlive.definitions import spec_of
from outlive.errors import DecodeFailed, UsageError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")  # MCP 2025-11-25, server/tools, "Tool Names"
_REFERENCE = "#/$defs/{}"
_PLAIN = JsonCodec()


class WorkflowTool:
    """A workflow, called as a tool."""

    def __init__(self, workflow: Any) -> None:
        self.workflow = workflow
        self._spec = spec_of(workflow)
        self.name = self._spec.name
        self._parameters = list(self._spec.shape.signature.parameters.values())
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"workflow {self.name!r} cannot be a tool: its name has 1 to 128 letters, digits, '_', '-' and '.'; "
                "give it another one with @workflow(name=…)"
            )
        for one in self._parameters:
            if one.kind is one.VAR_POSITIONAL:
                raise UsageError(
                    f"workflow {self.name!r} cannot be a tool: what comes in by *{one.name} has no name; take a list"
                )

    @cached_property
    def description(self) -> Tool:
        """What a client is told of the tool. The hints are read now, when all of the workflow's module exists."""
        return Tool(
            name=self.name,
            description=inspect.getdoc(self._spec.function) or f"Runs {self.name}.",
            input_schema=self._input_schema(),
            output_schema=self._output[0],
        )

    def _input_schema(self) -> dict[str, Any]:
        hints = [self._spec.shape.hints.get(one.name, Any) for one in self._parameters]
        schemas, definitions = _describe(hints)
        made: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
        for parameter, schema in zip(self._parameters, schemas, strict=True):
            if parameter.kind is parameter.VAR_KEYWORD:
                made["additionalProperties"] = schema
            else:
                made["properties"][parameter.name] = schema | _default_of(parameter)
        made["required"] = [
            one.name for one in self._parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD
        ]
        return made | ({"$defs": definitions} if definitions else {})

    @cached_property
    def _output(self) -> tuple[dict[str, Any] | None, bool]:
        """The schema of results, None where no type is declared; and whether they are wrapped, to be objects."""
        hint = self._spec.shape.result
        if hint in (Any, None, type(None)):
            return None, False
        (schema,), definitions = _describe([hint])
        named = definitions.get(schema.get("$ref", "").rpartition("/")[2], schema)
        within = {"$defs": definitions} if definitions else {}
        if named.get("type") == "object":
            return named | within, False
        wrapped = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
        return wrapped | within, True

    def read(self, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of a call as the workflow takes them. Raises DecodeFailed where they do not fit."""
        first = [one.name for one in self._parameters if one.kind is one.POSITIONAL_ONLY and one.name in given]
        rest = {name: value for name, value in given.items() if name not in first}
        where = f"arguments of tool {self.name}"
        try:
            args, kwargs = self._spec.shape.bind(tuple(given[name] for name in first), rest)
        except TypeError as problem:
            raise DecodeFailed(f"{where}: {problem}") from problem
        text = json.dumps({"args": args, "kwargs": kwargs})
        try:
            return decode_arguments(_PLAIN, self._spec.shape, text, where=where)
        except DecodeFailed as failed:
            raise DecodeFailed(str(failed).partition("; what is stored")[0]) from failed  # nothing is, this time

    def result(self, value: Any) -> CallToolResult:
        """Give what a client is told of a run's result, which is plain JSON data."""
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        content = [] if value is None else [TextContent(type="text", text=text)]
        structured = {"result": value} if self._output[1] else value if isinstance(value, dict) else None
        return CallToolResult(content=[*content], structured_content=structured)


def failure(sentence: str) -> CallToolResult:
    """Give the result of a call that failed, in words for whoever called."""
    return CallToolResult(content=[TextContent(type="text", text=sentence)], is_error=True)


def _default_of(parameter: inspect.Parameter) -> dict[str, Any]:
    if parameter.default is parameter.empty:
        return {}
    try:
        return {"default": json.loads(ENCODER.encode(parameter.default))}
    except (TypeError, ValueError):  # it is Python's, not JSON's: the function gives it all the same
        return {}


def _describe(hints: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Give the JSON Schema of each type, and the definitions that these refer to; {} for a type that has none."""
    definitions: dict[str, Any] = {}

    def of_model(cls: Any) -> dict[str, Any]:
        if not is_pydantic(cls):
            raise NotImplementedError
        place = name_class(cls)  # what two models define by one name are two things
        schema: dict[str, Any] = cls.model_json_schema(ref_template=_REFERENCE.format(f"{place}.{{model}}"))
        definitions.update({f"{place}.{name}": one for name, one in schema.pop("$defs", {}).items()})
        return schema

    def components(types: Sequence[Any]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
        return msgspec.json.schema_components(types, schema_hook=of_model, ref_template=_REFERENCE.format("{name}"))

    known = []
    for hint in hints:
        try:
            components([hint])
        except Exception:  # noqa: BLE001 - a type that cannot be described, for whatever reason it gives
            hint = Any
        known.append(hint)
    schemas, named = components(known)
    return list(schemas), definitions | named
