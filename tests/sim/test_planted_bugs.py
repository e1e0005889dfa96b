"""The simulator earns its trust: engine bugs planted one at a time are all found, each within a few seeds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from outlive.engine import (
    calls,
    claimer,
    committer,
    engine,
    execution,
    journal,
    load,
    mailbox,
    roster,
    runloop,
    timers,
    transactions,
    waits,
)
from outlive.model.mail import Receipt
from outlive.store.sqlite import batch, continuing, sides
from tests.sim import bank
from tests.sim.planted import expect_found
from tests.sim.test_simulation import play, play_mail
from tests.support.evidence import Evidence

SEEDS = 300
FIRST = {  # rare ones: the seeds before take up to half a minute
    "hush ended by whoever enters": 140,
    "lost fence": 150,
    "strays kept": 98,
    "steps begin without a lease": 35,
    "commit reply taken for a failure": 16,
    "items written without a new entry": 16,
}
Patch = Callable[[pytest.MonkeyPatch], None]


def _missing_barrier(patch: pytest.MonkeyPatch) -> None:
    def ask(self: Any, call: Any) -> None:
        self._waiting[call.key] = call
        self._unbegun.append((0, call))

    patch.setattr(execution.Execution, "ask", ask)


def _double_dispatch(patch: pytest.MonkeyPatch) -> None:
    begin = calls.StepCall.begin

    def twice(self: Any) -> None:
        begin(self)
        begin(self)

    patch.setattr(calls.StepCall, "begin", twice)


def _delivery_out_of_order(patch: pytest.MonkeyPatch) -> None:
    def next_of(self: Any, waiting: Any) -> Any:
        for key in reversed(list(self.unread)):
            if key in waiting:
                return self.unread.pop(key)
        return None

    patch.setattr(journal.Journal, "next_of", next_of)


def _lost_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(batch, "check_fence", lambda db, fence: None)


def _lost_wake_up(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Any, *_: Any) -> float:
        return 1.0

    patch.setattr(engine.Engine, "_wake", nothing)
    patch.setattr(claimer.Sweep, "turn", nothing)


def _commit_reply_taken_for_failure(patch: pytest.MonkeyPatch) -> None:
    async def no(self: Any, entry: Any) -> bool:
        return False

    patch.setattr(transactions.Transactions, "_was_committed", no)


def _steps_begin_without_lease(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(roster.Roster, "may_begin", lambda self, run: True)


def _strays_kept(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Any) -> None:
        self._strays = False

    patch.setattr(claimer.Claimer, "_release_strays", nothing)


def _innocent_quarantined(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(roster.Roster, "mark", lambda self, run: None)
    patch.setattr("outlive.store.sqlite.ownership.SUSPECT_CRASHES", 1)


def _attempts_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(execution.Execution, "compare", lambda *_: None)
    patch.setattr(journal.Journal, "take", lambda self, key: None)
    patch.setattr(journal.Journal, "next_of", lambda self, waiting: None)
    patch.setattr(journal.Journal, "stuck", lambda self, waiting: None)


def _nothing_held_back(patch: pytest.MonkeyPatch) -> None:
    def _of(self: Any, execution: Any) -> Any:
        if execution not in self._runs:
            self._runs[execution] = load.RunWrites(execution)
            self._soon()
        return self._runs[execution]

    patch.setattr(committer.Committer, "_of", _of)


def _receipts_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(waits, "Receipt", lambda row, entry, message: Receipt(row, entry, -message))


def _messages_seen_twice(patch: pytest.MonkeyPatch) -> None:
    def add(self: Any, messages: Any, turn: int) -> None:
        self.unread.extend(messages)

    patch.setattr(mailbox._Topic, "add", add)


def _mail_wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Any, *_: Any) -> None:
        return None

    patch.setattr(engine.Engine, "_wake", nothing)
    patch.setattr(execution.Execution, "_note_waits", lambda self: self.waits_begun.clear())


def _messages_sent_anew(patch: pytest.MonkeyPatch) -> None:
    begin = waits.SendCall.begin

    def begin_anew(self: Any) -> None:
        self.execution.journal.started.pop(self.key, None)
        begin(self)

    patch.setattr(waits.SendCall, "begin", begin_anew)


def _message_taken_before_its_turn(patch: pytest.MonkeyPatch) -> None:
    def take(self: Any, message: Any) -> bool:
        run, value = self.execution, self.decode(message.value)
        self.sides = (Receipt(run.row, self.key, message.message),)
        self.on_durable = partial(run.mailbox.received, self.name, message.message)
        run.hand_in(self, "ok", message.value, value, None)
        return True

    patch.setattr(waits.ReceiveCall, "take", take)


def _timeout_without_a_look(patch: pytest.MonkeyPatch) -> None:
    ripe = timers.Timers.ripe

    def hasty(self: Any, waiting: Any) -> Any:
        waits, self.waits = self.waits, 0
        timer = ripe(self, waiting)
        self.waits = waits
        return timer

    patch.setattr(timers.Timers, "ripe", hasty)


def _items_written_without_entry(patch: pytest.MonkeyPatch) -> None:
    write = sides.write_sides

    def write_all(db: Any, rows: Any, written: Any, new: Any, *rest: Any) -> None:
        write(db, rows, written, written, *rest)

    patch.setattr(batch, "write_sides", write_all)


def _old_journal_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(continuing, "_BLOCKS", tuple(block for block in continuing._BLOCKS if block != "clear_entries"))


def _next_generation_under_old_keys(patch: pytest.MonkeyPatch) -> None:
    begin = runloop.RunLoop.__init__
    patch.setattr(runloop.RunLoop, "__init__", lambda self, run, salt, now, continued=0: begin(self, run, salt, now))


def _hush_ended_by_whoever_enters(patch: pytest.MonkeyPatch) -> None:
    enter = roster.Roster.enter

    def enter_loudly(self: Any, *args: Any, **options: Any) -> None:
        enter(self, *args, **options)
        self.hushed = False

    patch.setattr(roster.Roster, "enter", enter_loudly)


def _generation_ended_twice(patch: pytest.MonkeyPatch) -> None:
    block = continuing.SQL["find_standing"].replace("AND r.generation = :generation", "")
    patch.setattr(continuing, "SQL", {**continuing.SQL, "find_standing": block})


BUGS: dict[str, Patch] = {
    "missing barrier": _missing_barrier,
    "double dispatch": _double_dispatch,
    "delivery out of order": _delivery_out_of_order,
    "lost fence": _lost_fence,
    "lost wake-up": _lost_wake_up,
    "commit reply taken for a failure": _commit_reply_taken_for_failure,
    "steps begin without a lease": _steps_begin_without_lease,
    "strays kept": _strays_kept,
    "innocent quarantined": _innocent_quarantined,
    "journal ignored": _attempts_forgotten,
    "nothing held back behind a large payload": _nothing_held_back,
}


RELAY_BUGS: dict[str, Patch] = {
    "hush ended by whoever enters": _hush_ended_by_whoever_enters,
    "old journal kept by the next generation": _old_journal_kept,
    "next generation under the old keys": _next_generation_under_old_keys,
    "generation ended twice": _generation_ended_twice,
}


MAIL_BUGS: dict[str, Patch] = {
    "receipts forgotten": _receipts_forgotten,
    "messages seen twice": _messages_seen_twice,
    "mail wakes nobody": _mail_wakes_nobody,
    "messages sent anew": _messages_sent_anew,
    "items written without a new entry": _items_written_without_entry,
    "message taken before its turn": _message_taken_before_its_turn,
    "timeout without a look": _timeout_without_a_look,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", [*BUGS, *RELAY_BUGS, *MAIL_BUGS])
def test_a_planted_bug_is_found(bug: str, evidence: Evidence) -> None:
    world = play if bug in BUGS else play_mail if bug in MAIL_BUGS else partial(play, kinds=(bank.relay,))
    plant = (BUGS | RELAY_BUGS | MAIL_BUGS)[bug]
    expect_found(bug, plant, partial(world, limit_s=300.0, most_faults=12), SEEDS, evidence, first=FIRST.get(bug, 0))
