"""Which runs a query means, as one statement over row numbers: the same parts for both stores.

A query is answered by walks, each along one index in the order of rows and ended by the limit, so
that what a page costs does not grow with history. What chooses the index is the condition that is
likely to leave the fewest runs. Pure: makes text and parameters from the blocks of a store's
search.sql. Invariant: the text depends on which conditions there are, and how many values they
have, never on the values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from outlive.ids import Ids
from outlive.limits import ROW_TIME_SLACK_S
from outlive.model.reads import Match, RunQuery
from outlive.model.status import FINAL, Status

_UNSUCCESSFUL = frozenset({Status.FAILED, Status.CANCELLED})
_PARAMETER = re.compile(r"(?<!:):([a-z]+)")
_COLUMNS = {name: f"r.{name}" for name in ("id", "workflow", "queue", "key", "version", "parent")}
_COLUMNS["priority"] = "cast(r.priority as text)"
_WALKS = {"runs": "walk_runs", "live": "walk_live", "attributes": "walk_attributes"}
_LEADS = {"id": "has_value", "parent": "has_parent", "key": "has_value", "queue": "has_queue", "workflow": "has_value"}


@dataclass(slots=True, frozen=True)
class Walk:
    """A way through the runs: along which table, with which condition first; `match` is the one that it answers."""

    along: Literal["runs", "live", "attributes"]
    match: Match | None = None
    value: str | None = None
    ended: str | None = None  # the final status that it is about


def choose_walks(query: RunQuery) -> list[Walk]:
    """Give the walks that together meet all runs of a query, none of them twice."""
    positive = [match for match in query.where if match.values and not match.prefixes and not match.negated]
    by_field = {match.field: match for match in reversed(positive) if not match.is_attribute}
    statuses = set(Status) if query.statuses is None else set(query.statuses)
    for name in ("id", "parent"):
        if name in by_field:
            return _along("runs", by_field[name])
    if not statuses & FINAL:
        return [Walk("live")]
    for match in positive:
        if match.is_attribute:
            return _along("attributes", match)
    if Status.SUCCEEDED not in statuses:
        ended = [Walk("runs", ended=status) for status in sorted(statuses & _UNSUCCESSFUL)]
        return ended + ([Walk("live")] if statuses - FINAL else [])
    for name in ("key", "queue", "workflow"):
        if name in by_field and "" not in by_field[name].values:
            return _along("runs", by_field[name])
    return [Walk("runs")]


def _along(table: Literal["runs", "attributes"], match: Match) -> list[Walk]:
    return [Walk(table, match, value) for value in dict.fromkeys(match.values)]


@dataclass
class Composer:
    """Makes statements of a store's blocks for one query. `pack` makes one parameter of several texts."""

    query: RunQuery
    blocks: Mapping[str, str]
    pack: Callable[[Sequence[str]], Any]
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def direction(self) -> str:
        return "asc" if self.query.oldest_first else "desc"

    def compose(self, block: str) -> str:
        """Give a block about what the query finds, at most its limit; `values` has the parameters then."""
        self.values["limit"] = self.query.limit
        walks = [self._walk(walk) for walk in choose_walks(self.query)]
        found = walks[0]
        if len(walks) > 1:
            union = "\nunion all\n".join(f"select * from ({walk}) w" for walk in walks)
            found = f"{self._block('merge_walks', walks=union)}\n{self._end('row')}"
        return self._block(block, walk=found, direction=self.direction)

    def _walk(self, walk: Walk) -> str:
        conditions = "\n  and ".join(self._conditions(walk))
        statuses = self.query.statuses
        derives = walk.along != "live" and walk.ended is None and statuses is not None and not set(statuses) <= FINAL
        parts = [
            self._block(_WALKS[walk.along]),
            self._block("join_live") if derives else "",
            f"where {conditions}" if conditions else "",
            self._end(self._row(walk)),
        ]
        return "\n".join(part for part in parts if part)

    def _row(self, walk: Walk) -> str:
        row = f"{walk.along[0]}.row"
        return row if walk.match is None and walk.ended is None else self._block("ordered_row", row=row)

    def _end(self, row: str) -> str:
        return self._block("end_walk", row=row, direction=self.direction)

    def _conditions(self, walk: Walk) -> Iterator[str]:
        query = self.query
        if walk.match is not None and walk.match.is_attribute:
            yield self._block("has_attribute", {"name": walk.match.field, "value": walk.value})
        elif walk.match is not None:
            column = _COLUMNS[walk.match.field]
            yield self._block(_LEADS[walk.match.field], {"value": walk.value}, column=column)
        if walk.ended is not None:
            yield self._block("has_ended", status=walk.ended)
        elif query.statuses is not None:
            final = set(query.statuses) <= FINAL
            named = self._block("has_final_status" if final else "has_status", {"statuses": self.pack(query.statuses)})
            yield f"({named} or {self._block('is_asked_to_pause')})" if query.pausing else named
        yield from self._bounds(walk)
        for match in query.where:
            if match is not walk.match:
                yield self._match(match)

    def _bounds(self, walk: Walk) -> Iterator[str]:
        """Bound the rows too where times are bounded: a run is created about when its row number is drawn."""
        query, row = self.query, self._row(walk)
        if query.after is not None:
            beyond = ">" if query.oldest_first else "<"
            yield self._block("after_row", {"after": query.after}, row=row, beyond=beyond)
        if query.created_after is not None:
            first = Ids.first_row(query.created_after - ROW_TIME_SLACK_S)
            yield self._block("from_row", {"first": first}, row=row)
        befores = [at for at in (query.created_before, query.finished_before) if at is not None]
        if befores:
            last = Ids.first_row(min(befores) + ROW_TIME_SLACK_S)
            yield self._block("before_row", {"last": last}, row=row)
        for name in ("created", "finished"):
            for edge, block in (("after", "since_time"), ("before", "until_time")):
                at = getattr(query, f"{name}_{edge}")
                if at is not None:
                    yield self._block(block, {"at": at}, column=f"r.{name}_at")

    def _match(self, match: Match) -> str:
        chosen = " or ".join(self._choices(match))
        return f"({chosen}) is not true" if match.negated else f"({chosen})"

    def _choices(self, match: Match) -> Iterator[str]:
        if match.is_attribute:
            name = {"name": match.field}
            if match.values:
                yield self._block("carries_value", {**name, "values": self.pack(match.values)})
            if match.prefixes:
                yield self._block("carries_name", name)
            return
        column = _COLUMNS[match.field]
        if match.values:
            block = "is_child_of" if match.field == "parent" else "is_one_of"
            yield self._block(block, {"values": self.pack(match.values)}, column=column)
        for prefix in match.prefixes:
            yield (
                self._block("begins_with", {"prefix": prefix}, column=column)
                if prefix
                else self._block("is_present", column=column)
            )

    def _block(self, name: str, values: Mapping[str, Any] | None = None, **fills: str) -> str:
        """Give a block without its comments, filled in; parameters that get values here get names of their own too."""
        text = "\n".join(line for line in self.blocks[name].splitlines() if not line.startswith("--"))
        for place, fill in fills.items():
            text = text.replace(f"{{{place}}}", fill)
        if not values:
            return text
        suffix = "_" + "".join(chr(ord("a") + int(digit)) for digit in str(len(self.values)))
        self.values.update({name + suffix: value for name, value in values.items()})
        return _PARAMETER.sub(lambda found: found[0] + (suffix if found[1] in values else ""), text)
