"""What a check has shown: the report of the process that executed the tests, read by somebody who does not trust it.

Pure. The code under test executes in that process and may do there what it likes;
so among the tests are some that cannot pass, and nobody outside of the worker knows
which. Invariants: a process that ends with exit code 0 has not told the truth, nor
has one in which a test that cannot pass has passed; what was once told is not taken
back; a test passes only if all of its phases were told to have passed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, cast

import msgspec

from outlive.codec.plain import storable, storable_text

Outcome = Literal["passed", "failed", "skipped", "xfailed"]
_PHASES = {"setup", "call", "teardown"}
GONE = "its supervisor is gone"  # the output of a check that nobody has seen the end of
_HONEST = 1  # the exit code of pytest where a test has failed


@dataclass(frozen=True)
class Shown:
    """What became of one test: why, and for a skip at which place it was decided."""

    outcome: Outcome
    text: str = ""
    place: str = ""


@dataclass(frozen=True)
class Evidence:
    """What a check has shown of each test; what speaks of tampering; why the check ended early, if it did.

    `live` are modules that were imported from the workspace instead of the copy, `patched` is what was changed in
    pytest while it was executing, `meddled` how the project's code took an interest in its tests, `equal` are classes
    whose instances are equal to anything, and their files.
    """

    tests: dict[str, Shown] = field(default_factory=dict)
    tampering: list[str] = field(default_factory=list)
    trouble: str = ""
    live: list[str] = field(default_factory=list)
    patched: list[str] = field(default_factory=list)
    equal: dict[str, str] = field(default_factory=dict)
    meddled: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Say whether nothing has failed, and nothing is wrong with the check."""
        return not (self.tampering or self.trouble or any(one.outcome == "failed" for one in self.tests.values()))


@dataclass(frozen=True)
class Ended:
    """How the process ended, known from the system, and what it said."""

    status: int | None  # the exit code, or minus a signal; None if it was ended because it went too far
    late: bool
    report: str
    output: str


def read_evidence(ended: Ended, nonce: str, controls: list[str], timeout_s: float) -> Evidence:
    """Read a report. `controls` are the files of the tests that cannot pass."""
    told = _Told(nonce)
    for line in ended.report.splitlines():
        told.read(line)
    tests = dict(told.unread)
    failed_controls = set[str]()
    for name in sorted(told.collected | told.phases.keys()):
        shown = told.outcome_of(name)
        file = name.split("::")[0]
        if file not in controls:
            tests[name] = shown or Shown("failed", "it was not executed to its end")
        elif shown is not None and shown.outcome == "failed":
            failed_controls.add(file)
        elif shown is not None:
            told.tampering.append(f"a test that cannot pass was reported as {shown.outcome}")
    trouble = _trouble(ended, timeout_s, is_whole=told.is_over)
    if ended.status == 0:
        told.tampering.append(
            "the process ended with exit code 0, which cannot be: tests that cannot pass were among its tests"
        )
    elif ended.output == GONE and ended.status is None:
        told.tampering.append("somebody has killed the process that supervises the tests")
    elif not trouble:
        if failed_controls != set(controls):
            told.tampering.append("tests that cannot pass were not executed")
        if any(told.outcome_of(name) is None for name in told.collected):
            told.tampering.append("the tests ended before all that were collected had been executed")
    return Evidence(
        tests, sorted(set(told.tampering)), trouble, told.live, sorted(told.patched), told.equal, sorted(told.meddled)
    )


def _trouble(ended: Ended, timeout_s: float, *, is_whole: bool) -> str:
    if ended.status in (0, _HONEST) and is_whole:
        return ""
    if ended.late:
        return f"the check was ended after {timeout_s:g} s"
    if ended.status is None and ended.output == GONE:
        return f"the check ended early: {GONE}"
    if ended.status is None:
        return "the check was ended: its report was too long"
    how = f"exit code {ended.status}" if ended.status >= 0 else f"signal {-ended.status}"
    return f"the check ended early, with {how}: {storable_text(ended.output[-1_000:].strip())}"


class _Said(msgspec.Struct, tag_field="kind", forbid_unknown_fields=True):
    """A line as a probe writes it."""

    nonce: str


class _Collected(_Said, tag="collected"):
    ids: list[str]


class _Unread(_Said, tag="unread"):
    id: str
    outcome: str
    text: str = ""
    place: str = ""


class _Phase(_Said, tag="phase"):
    id: str
    when: str
    outcome: str
    xfail: bool
    text: str = ""
    place: str = ""


class _Patched(_Said, tag="patched"):
    name: str


class _Meddled(_Said, tag="meddled"):
    name: str


class _Equal(_Said, tag="equal"):
    name: str
    file: str


class _End(_Said, tag="end"):
    live: list[str]


_Line = _Collected | _Unread | _Phase | _Patched | _Meddled | _Equal | _End


class _Told:
    """The lines of a report, sorted."""

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self.collected: set[str] = set()
        self.phases: dict[str, dict[str, list[Shown]]] = {}
        self.unread: dict[str, Shown] = {}
        self.tampering: list[str] = []
        self.live: list[str] = []
        self.patched: set[str] = set()
        self.meddled: set[str] = set()
        self.equal: dict[str, str] = {}
        self.is_over = False

    def read(self, line: str) -> None:
        try:
            said = msgspec.convert(storable(json.loads(line)), _Line)
        except (ValueError, RecursionError):
            said = None
        if said is None or said.nonce != self._nonce:
            self.tampering.append("somebody else has written into the report of the tests")
        else:
            self._note(said)

    def _note(self, said: _Line) -> None:
        match said:
            case _Collected():
                self.collected |= set(said.ids)
            case _Unread():
                outcome: Outcome = "skipped" if said.outcome == "skipped" else "failed"
                self.unread[said.id] = Shown(outcome, said.text, said.place)
            case _Phase(outcome="passed" | "failed" | "skipped"):  # a plugin that repeats tests has one of its own
                outcome = "xfailed" if said.outcome == "skipped" and said.xfail else cast(Outcome, said.outcome)
                shown = Shown(outcome, said.text, said.place)
                self.phases.setdefault(said.id, {}).setdefault(said.when, []).append(shown)
            case _Patched():
                self.patched.add(said.name)
            case _Meddled():
                self.meddled.add(said.name)
            case _Equal():
                self.equal[said.name] = said.file
            case _End():
                self.is_over, self.live = True, said.live

    def outcome_of(self, name: str) -> Shown | None:
        """Give the worst that was told of a test; None if not all of its phases were."""
        phases = self.phases.get(name, {})
        told = list(_flat(phases))
        for worst in ("failed", "skipped", "xfailed"):
            for shown in told:
                if shown.outcome == worst:
                    return shown
        return Shown("passed") if phases.keys() >= _PHASES else None


def _flat(phases: dict[str, list[Shown]]) -> Iterator[Shown]:
    for shown in phases.values():
        yield from shown
