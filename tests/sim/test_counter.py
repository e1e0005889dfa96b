"""The simulated counter: no seed loses, doubles or turns back what a run is told or shows; what would is found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from outlive import messages, run
from outlive.engine import journal, mailbox, waits, watcher
from outlive.model.mail import NewValue, Receipt
from outlive.store.sqlite import batch
from outlive.testing import Simulation, simulate
from tests.sim import counter
from tests.sim.planted import Plant, edit, expect_found
from tests.sim.seeds import SEEDS_PER_TEST, expect_clean
from tests.support.evidence import Evidence
from tests.support.size import pick

SEEDS = pick(small=10, full=1_000)
BUG_SEEDS = 200


def play(seed: int, limit_s: float = 3_000.0, most_faults: int = 8) -> Simulation:
    """Play the counter in the world of one seed."""
    return simulate(
        counter.drive,
        include=list(counter.KINDS),
        seed=seed,
        prepare=counter.prepare,
        check=counter.check,
        limit_s=limit_s,
        most_faults=most_faults,
    )


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_everybody_is_told_once_what_is_so(first: int, evidence: Evidence) -> None:
    expect_clean("simulated worlds: calls, promises, readers, continuations", play, first, SEEDS, evidence)


# -- planted bugs ------------------------------------------------------------------
def _keys_ignored(patch: pytest.MonkeyPatch) -> None:
    make = messages.make_message
    patch.setattr(
        messages, "make_message", lambda engine, run_id, topic, value, key=None: make(engine, run_id, topic, value)
    )


def _settled_again(patch: pytest.MonkeyPatch) -> None:
    edit("find_promise", "row, outcome,", "row, NULL,")(patch)
    edit("settle_promises", " AND outcome IS NULL", "")(patch)


def _calls_received_again(patch: pytest.MonkeyPatch) -> None:
    def receipt(row: int, entry: str | None, message: int) -> Receipt:
        return Receipt(row, entry, -message if entry is not None and "call:" in entry else message)

    patch.setattr(waits, "Receipt", receipt)
    patch.setattr(mailbox.Mailbox, "received", lambda *_: None)  # not by this incarnation


def _answers_sent_later(patch: pytest.MonkeyPatch) -> None:
    record = messages.record

    def without(live: Any, kind: str, name: str, digest: str | None, make: Callable[[str], Any]) -> str:
        def make_apart(key: str) -> tuple[str, Any]:
            text, sides = make(key)
            if kind == "answer":
                live.engine.main.call_later(0.5, live.engine.spawn, lambda: live.engine.store.settle(sides[0]))
                return text, ()
            return text, sides

        return record(live, kind, name, digest, make_apart)

    patch.setattr(messages, "record", without)


def _older_over_newer(patch: pytest.MonkeyPatch) -> None:
    write = batch.write_sides

    def backwards(db: Any, sides: Any, *facts: Any) -> None:
        values = [side for side in sides if isinstance(side, NewValue)]
        write(db, [side for side in sides if side not in values] + values[::-1], *facts)

    patch.setattr(batch, "write_sides", backwards)


def _end_before_the_last_items(patch: pytest.MonkeyPatch) -> None:
    watch = watcher.Watcher.watch

    def unasked(self: Any, kind: Any, key: Any, on_news: Any, on_looked: Any = None) -> None:
        watch(self, kind, key, on_news, on_looked if kind != "stream" else None)
        if kind == "stream" and on_looked is not None:
            on_looked()

    patch.setattr(watcher.Watcher, "watch", unasked)


def _read_from_the_beginning(patch: pytest.MonkeyPatch) -> None:
    read = messages.read_stream
    patch.setattr(run, "read_stream", lambda *facts: read(*facts[:4], 0, facts[5]))


def _gaps_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal.Journal, "_after_gap", property(lambda self: set(), lambda self, value: None), raising=False)


BUGS: dict[str, Plant] = {
    "keys of messages ignored": _keys_ignored,
    "last come, first read": edit("list_mail", "ORDER BY message", "ORDER BY -message"),
    "unread messages end with their generation": edit(
        "forget_messages", "AND received_by IN (", "AND coalesce(received_by, '') NOT IN ("
    ),
    "settled again": _settled_again,
    "settled after it has expired": edit("find_promise", "outcome, expires_at", "outcome, NULL"),
    "calls received again": _calls_received_again,
    "calls executed that are to be refused": lambda patch: patch.setattr(
        waits.ServeCall, "take", waits.ReceiveCall.take
    ),
    "answers sent later than their entry": _answers_sent_later,
    "the first value stays": edit("put_values", "DO UPDATE SET value = excluded.value", "DO UPDATE SET value = value"),
    "an older value over a newer one": _older_over_newer,
    "the end comes before the last items": _end_before_the_last_items,
    "streams read from the beginning": _read_from_the_beginning,
    "no gap in a journal": _gaps_forgotten,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    expect_found(bug, BUGS[bug], partial(play, limit_s=100.0, most_faults=12), BUG_SEEDS, evidence)
