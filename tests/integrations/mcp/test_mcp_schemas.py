"""What a client is told of the types of a workflow, and what comes through as it was told."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date
from typing import Any, TypedDict

import jsonschema
import pytest
from pydantic import BaseModel, Field

from outlive import workflow
from outlive.integrations.mcp.tool import WorkflowTool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(TypedDict):
    width: int


class Part(BaseModel):
    name: str
    parts: list[Part] = []


class Box(BaseModel):
    inner: Part = Field(alias="in")


class Strange:
    def __init__(self, value: int) -> None:
        self.value = value


@dataclass
class Order:
    day: date
    colours: set[Colour]


@workflow
async def everything(
    order: Order, box: Box, /, size: Size, strange: Strange | None = None, *, note: str | None = None, **more: int
) -> Box:
    """Never executed."""
    return box


GIVEN: dict[str, Any] = {
    "order": {"day": "2026-05-01", "colours": ["red"]},
    "box": {"in": {"name": "a", "parts": [{"name": "b"}]}},
    "size": {"width": 3},
    "also": 7,
}


def test_types_are_described_and_read() -> None:
    tool = WorkflowTool(everything)
    schema = tool.description.input_schema
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["required"] == ["order", "box", "size"]
    assert schema["additionalProperties"] == {"type": "integer"}
    assert schema["properties"]["strange"] == {"default": None}
    jsonschema.validate(GIVEN, schema)
    args, kwargs = tool.read(GIVEN)
    assert args == (Order(date(2026, 5, 1), {Colour.RED}), Box(**GIVEN["box"]), {"width": 3})
    assert kwargs == {"also": 7}


@pytest.mark.parametrize(
    "change",
    [
        {"order": {"day": "yesterday", "colours": []}},
        {"order": {"day": "2026-05-01", "colours": ["green"]}},
        {"box": {"in": {"name": "a", "parts": [{"name": 7}]}}},
        {"size": {}},
        {"also": "seven"},
    ],
    ids=["date", "enum", "model", "missing", "rest"],
)
def test_what_the_workflow_refuses_the_schema_refuses(change: dict[str, Any]) -> None:
    tool = WorkflowTool(everything)
    given = GIVEN | change
    if "yesterday" not in str(change):  # validators look at formats only if asked
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(given, tool.description.input_schema)
    with pytest.raises(Exception, match="arguments of tool everything"):
        tool.read(given)


def test_results_fit_what_was_told() -> None:
    tool = WorkflowTool(everything)
    told = tool.description.output_schema
    assert told is not None
    assert told["type"] == "object"
    result = tool.result({"in": {"name": "a", "parts": []}})
    jsonschema.validate(result.structured_content, told)


@pytest.mark.parametrize(
    ("hint", "value", "structured"),
    [
        (int, 7, {"result": 7}),
        (list[str], ["a"], {"result": ["a"]}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (Any, {"a": 1}, {"a": 1}),
        (Any, [1], None),
        (None, None, None),
        (str | None, None, {"result": None}),
    ],
    ids=str,
)
def test_results_are_objects(hint: Any, value: Any, structured: Any) -> None:
    async def function() -> Any:
        """Never executed."""

    function.__annotations__["return"] = hint
    tool = WorkflowTool(workflow(name="typed")(function))
    result = tool.result(value)
    assert result.structured_content == structured
    if tool.description.output_schema is not None:
        jsonschema.validate(structured, tool.description.output_schema)
    assert (result.content == []) is (value is None)
