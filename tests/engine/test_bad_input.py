"""Wrong input: the error says what to do, nothing is lost or half written, no other run is hurt."""

from __future__ import annotations

import asyncio
import inspect
import math
import types
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import outlive
from outlive import EncodeFailed, Outlive, PayloadTooLarge, RunNotFound, Status, UsageError, step, transaction, workflow
from outlive.codec import jsontext

LIMIT_S = 20.0


class Opaque:
    """What no codec can write."""


BAD: dict[str, Any] = {
    "nan": math.nan,
    "infinity": -math.inf,
    "nul": "a\0b",
    "surrogate": "\ud800",
    "object": Opaque(),
    "deep": {"a": [{"b": Opaque()}]},
    "deep nul": ["fine", {"k\0": 1}],
}
gates: dict[str, asyncio.Event] = {}
touched: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    gates.clear()
    touched.clear()


@step
async def wait_for_gate(name: str) -> str:
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


@workflow
async def neighbour(name: str) -> str:
    """Was begun before the bad thing and ends after it."""
    return await wait_for_gate(name)


@workflow
async def take(value: Any, *, more: Any = None) -> str:
    touched.append("take")
    return "taken"


@workflow
async def returns_bad(which: str) -> Any:
    return BAD[which]


@step
async def bad_step(which: str) -> Any:
    touched.append(which)
    return BAD[which]


@workflow
async def step_returns_bad(which: str) -> str:
    try:
        await bad_step(which)
    except EncodeFailed as error:
        return str(error)
    return "nothing was wrong"


@step
async def swallow(value: Any) -> None:
    touched.append("swallow")


@workflow
async def passes_bad(which: str) -> str:
    try:
        await swallow(BAD[which])
    except EncodeFailed as error:
        return str(error)
    return "nothing was wrong"


@workflow
async def child_with_bad(which: str) -> str:
    try:
        await take(BAD[which])
    except EncodeFailed as error:
        return str(error)
    return "nothing was wrong"


class Odd(Exception):
    def __init__(self, thing: Any) -> None:
        super().__init__(thing)


@step
async def raise_odd(which: str) -> None:
    raise Odd(BAD[which])


@workflow
async def meets_odd(which: str) -> str:
    try:
        await raise_odd(which)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)!a}"
    return "nothing was wrong"


@workflow
async def fails_oddly(which: str) -> None:
    raise Odd(BAD[which])


@transaction
async def bad_transaction(tx: Any, which: str) -> Any:
    await tx.execute("insert into things (name) values ($1)", which)
    return BAD[which]


@transaction
async def count_things(tx: Any) -> int:
    return int(await tx.fetchval("select count(*) from things"))


@transaction
async def make_things(tx: Any) -> None:
    await tx.execute("create table things (name text)")


@workflow
async def transaction_returns_bad(which: str) -> list[Any]:
    await make_things()
    try:
        await bad_transaction(which)
    except EncodeFailed as error:
        return [str(error), await count_things()]
    return ["nothing was wrong", await count_things()]


async def started_neighbour(app: Outlive) -> outlive.Run:
    """Give a run that is in the middle of its step."""
    run = await app.start(neighbour, "gate", id="neighbour")
    async with asyncio.timeout(LIMIT_S):
        while "gate" not in gates:
            await asyncio.sleep(0)
    return run


async def unharmed(app: Outlive, run: outlive.Run) -> None:
    """Assert that the neighbour goes on and that new work is taken."""
    gates["gate"].set()
    assert await run.result(timeout=LIMIT_S) == "gate"
    assert await (await app.start(take, 1)).result(timeout=LIMIT_S) == "taken"


async def all_ids(app: Outlive) -> set[str]:
    return {info.id async for info in app.runs()}


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", BAD)
async def test_arguments_that_cannot_be_stored_start_nothing(url: str, which: str) -> None:
    async with Outlive(url) as app:
        other = await started_neighbour(app)
        for args, kwargs, path in (((BAD[which],), {}, ".value"), ((1,), {"more": BAD[which]}, ".more")):
            with pytest.raises(EncodeFailed, match="arguments of workflow take") as caught:
                await app.start(take, *args, id="bad", kwargs=kwargs)
            assert isinstance(caught.value, ValueError)
            assert path in caught.value.path
        with pytest.raises(EncodeFailed, match="attributes"):
            await app.start(take, 1, id="bad", attributes={"a": BAD[which]})
        with pytest.raises(EncodeFailed):
            await app.start("take", BAD[which], id="bad")
        with pytest.raises(RunNotFound):
            await app.get("bad")
        assert await all_ids(app) == {"neighbour"}
        assert touched == []
        run = await app.start(take, "good", id="bad")  # the id was not used up
        assert run.created
        await unharmed(app, other)


@pytest.mark.parametrize("which", BAD)
async def test_a_result_that_cannot_be_stored_fails_its_run_alone(url: str, which: str) -> None:
    async with Outlive(url) as app:
        other = await started_neighbour(app)
        run = await app.start(returns_bad, which)
        with pytest.raises(outlive.OutliveError, match="result of workflow returns_bad"):
            await run.result(timeout=LIMIT_S)
        assert await run.status() == Status.FAILED
        await unharmed(app, other)


@pytest.mark.parametrize("which", BAD)
async def test_bad_values_of_steps_and_children_are_errors_in_the_workflow(url: str, which: str) -> None:
    async with Outlive(url) as app:
        other = await started_neighbour(app)
        assert "result of step bad_step" in await app.run(step_returns_bad, which)
        assert touched == [which]  # a value that cannot be stored is no reason to try again
        touched.clear()
        # arguments of steps are compared, not stored: only what has no text at all is refused
        passed = await app.run(passes_bad, which)
        if "Opaque" in repr(BAD[which]) or which == "surrogate":
            assert "arguments of step swallow" in passed
            assert touched == []
        else:
            assert (passed, touched) == ("nothing was wrong", ["swallow"])
            touched.clear()
        assert "arguments of workflow take" in await app.run(child_with_bad, which, id="parent")
        assert touched == []  # the child has not begun
        assert await all_ids(app) & {"parent/take#1"} == set()
        await unharmed(app, other)


@pytest.mark.parametrize("which", BAD)
async def test_a_transaction_whose_result_cannot_be_stored_is_rolled_back(url: str, which: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(transaction_returns_bad, which)
        message, count = await run.result(timeout=LIMIT_S)
        assert "result of transaction bad_transaction" in message
        assert count == 0
        assert [entry.outcome for entry in await run.entries()] == ["ok", "error", "ok"]


@pytest.mark.parametrize("which", BAD)
async def test_errors_with_odd_arguments_are_still_recorded(url: str, which: str) -> None:
    async with Outlive(url) as app:
        other = await started_neighbour(app)
        met = await (await app.start(meets_odd, which)).result(timeout=LIMIT_S)
        assert met.startswith(("Odd: ", "StepFailed: ")), met
        assert "Odd" in met
        run = await app.start(fails_oddly, which)
        with pytest.raises((Odd, outlive.RunFailed)):
            await run.result(timeout=LIMIT_S)
        assert await run.status() == Status.FAILED
        await unharmed(app, other)


@step
async def long_step(size: int) -> str:
    return "x" * size


@step
async def long_error(size: int) -> None:
    raise ValueError("x" * size)


@workflow
async def long_values(what: str) -> str:
    try:
        if what == "step":
            await long_step(5_000)
        elif what == "child":
            await take("x" * 5_000)
        elif what == "child result":
            await long_values("result")
        elif what == "result":
            return "x" * 5_000
        elif what == "error":
            await long_error(5_000_000)
    except PayloadTooLarge as error:
        return f"too large: {error}"
    except ValueError as error:
        return f"{type(error).__name__} of {len(str(error)) // 1000} k"
    return "nothing was wrong"


async def test_payloads_above_the_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsontext, "PAYLOAD_MAX_BYTES", 2_000)
    async with Outlive(url) as app:
        other = await started_neighbour(app)
        with pytest.raises(PayloadTooLarge, match=r"5,0.. bytes, the limit is 2,000; store it elsewhere"):
            await app.start(take, "x" * 5_000, id="large")
        with pytest.raises(PayloadTooLarge, match="attributes"):
            await app.start(take, 1, id="large", attributes={"a": "x" * 5_000})
        assert await all_ids(app) == {"neighbour"}
        for what, name in (("step", "step long_step"), ("child", "workflow take"), ("child result", "long_values")):
            said = await app.run(long_values, what)
            assert said.startswith("too large: ") and name in said, said
        run = await app.start(long_values, "result")
        with pytest.raises(outlive.OutliveError, match="the limit is 2,000"):
            await run.result(timeout=LIMIT_S)
        await unharmed(app, other)


async def test_a_huge_error_text_is_cut(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(long_values, "error")
        assert await run.result(timeout=LIMIT_S) == "ValueError of 8 k"
        (entry,) = await run.entries()
        assert len(str(entry.error)) < 40_000


@workflow
async def lies_about_its_result() -> int:
    return "no number"  # type: ignore[return-value]


@workflow
async def believes_it() -> str:
    try:
        return f"got {await lies_about_its_result()!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def test_a_child_whose_result_does_not_fit_its_hint_stops_nobody(url: str) -> None:
    async with Outlive(url) as app:
        other = await started_neighbour(app)
        run = await app.start(believes_it)
        said = await run.result(timeout=LIMIT_S)
        assert "lies_about_its_result" in said or "no number" in said, said
        lone = await app.start(lies_about_its_result)
        with pytest.raises(outlive.OutliveError):
            await lone.result(timeout=LIMIT_S)
        await unharmed(app, other)


# -- ids, names, options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run_id", "problem"),
    [
        ("", "1 to 200 characters"),
        ("x" * 201, "1 to 200 characters, this one has 201"),
        ("a\nb", "control characters"),
        ("a\0b", "control characters"),
        ("\x7f", "control characters"),
        ("\ud800", "control characters"),
        (7, "is text"),
        (b"bytes", "is text"),
        (["list"], "is text"),
    ],
)
async def test_ids_that_cannot_be(url: str, run_id: Any, problem: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(UsageError, match=problem):
            await app.start(take, 1, id=run_id)
        with pytest.raises(UsageError, match=problem):
            await app.get(run_id)
        assert await all_ids(app) == set()


@workflow
async def starts_child_with(run_id: Any) -> str:
    try:
        await outlive.start(take, 1, id=run_id)
    except UsageError as error:
        return str(error)
    return "nothing was wrong"


async def test_odd_ids_that_can_be(url: str) -> None:
    async with Outlive(url) as app:
        for run_id in ("x" * 200, "é😀 '; drop table ol_runs; --", "%s $1 ?1 :a", "a/b#1", " "):
            assert await app.run(take, 1, id=run_id) == "taken"
            assert (await app.get(run_id)).id == run_id
        assert "1 to 200" in await app.run(starts_child_with, "x" * 201)
        assert "control" in await app.run(starts_child_with, "a\n")


@workflow
async def deep(levels: int) -> int:
    return 1 + await deep(levels - 1) if levels else 0


async def test_ids_of_deep_children_stay_within_the_limit(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(deep, 40, id="r" * 190)
        assert await run.result(timeout=LIMIT_S) == 40
        ids = await all_ids(app)
        assert len(ids) == 41
        assert max(map(len, ids)) <= 200


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": math.nan},
        {"delay": math.inf},
        {"delay": 1e300},
        {"delay": "soon"},
        {"deadline": -5},
        {"deadline": math.inf},
        {"priority": "high"},
        {"priority": 2**70},
        {"priority": 1.5},
        {"key": "a\0b"},
        {"key": "\ud800"},
        {"key": 7},
        {"queue": "a\0b"},
        {"queue": 7},
        {"attributes": ["no", "mapping"]},
        {"attributes": {1: "number"}},
        {"kwargs": ["no", "mapping"]},
    ],
    ids=repr,
)
async def test_options_that_cannot_be(url: str, options: dict[str, Any]) -> None:
    async with Outlive(url) as app:
        other = await started_neighbour(app)
        with pytest.raises((outlive.OutliveError, TypeError)) as caught:
            await app.start(take, 1, id="bad", **options)
        assert not isinstance(caught.value, outlive.StoreUnavailable), caught.value
        assert next(iter(options)) in str(caught.value) or "argument" in str(caught.value), caught.value
        assert await all_ids(app) == {"neighbour"}
        await unharmed(app, other)


async def test_wrong_arguments_are_a_type_error_at_the_caller(url: str) -> None:
    async with Outlive(url) as app:
        for args, kwargs in (((), {}), ((1, 2), {}), ((1,), {"unknown": 1}), ((1,), {"value": 2})):
            with pytest.raises(TypeError, match="take"):
                await app.start(take, *args, kwargs=kwargs)
        with pytest.raises(TypeError):
            await app.start(take, 1, kwargs={1: "a name is text"})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="take"):
            await app.start("take")
        assert await all_ids(app) == set()


async def test_wrong_arguments_of_a_client_hold_the_run_at_the_worker(url: str) -> None:
    async with Outlive(url, worker=False, include=[]) as client:
        run = await client.start("take", 1, 2, 3)
        async with Outlive(url) as app:
            other = await started_neighbour(app)
            with pytest.raises(outlive.RunOnHold, match="arguments of workflow take"):
                await run.result(timeout=LIMIT_S, stop_on_hold=True)
            assert await run.status() == Status.PAUSED  # other code may understand them: a deploy and a resume
            assert await run.cancel("wrong arguments")  # or nobody will
            with pytest.raises(outlive.RunCancelled, match="wrong arguments"):
                await run.result(timeout=LIMIT_S)
            await unharmed(app, other)


def plain() -> None: ...


@pytest.mark.parametrize(
    "thing", [plain, wait_for_gate, 7, None, take.spec, Opaque], ids=lambda thing: type(thing).__name__
)
async def test_only_workflows_are_started(url: str, thing: Any) -> None:
    async with Outlive(url) as app:
        with pytest.raises(UsageError, match="no workflow"):
            await app.start(thing)
        assert await all_ids(app) == set()


@workflow
async def starts_no_workflow() -> None:
    await outlive.start(plain)


async def test_only_workflows_are_started_inside_a_workflow(url: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(UsageError, match="no workflow"):
            await app.run(starts_no_workflow)


async def test_an_unknown_name_is_an_error_at_a_worker_and_waits_when_a_client_sent_it(url: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(UsageError, match=r"no workflow 'nobody_has_this'.*worker=False"):
            await app.start("nobody_has_this")
        async with Outlive(url, worker=False) as client:
            run = await client.start("nobody_has_this", 1, id="waiting")
            for _ in range(5):  # a worker that claims passes it by, each time
                assert await app.run(take, 1) == "taken"
            info = await run.info()
            assert info.status == Status.QUEUED
            assert info.started_at is None
            assert await run.entries() == []
            with pytest.raises(outlive.RunTimedOut):
                await run.result(timeout=0.2)
            assert await run.cancel()


@pytest.mark.parametrize("name", ["", "n" * 201, "a\0b", "\ud800", "a/b", "a#1"], ids=ascii)
async def test_names_that_no_workflow_can_have(url: str, name: str) -> None:
    async with Outlive(url, worker=False) as client:
        with pytest.raises(UsageError, match="name"):
            await client.start(name, 1)
        assert await all_ids(client) == set()
    with pytest.raises(UsageError, match="name"):
        workflow(name=name or "\n")(plain)


async def test_a_run_that_is_not_there(url: str) -> None:
    async with Outlive(url) as app:
        with pytest.raises(RunNotFound, match="'nobody'"):
            await app.get("nobody")
        with pytest.raises(LookupError):
            await app.get("' or 1=1 --")


# -- definitions that clash -------------------------------------------------------------------------


def make_namesakes() -> tuple[Any, Any]:
    @workflow(name="namesake")
    async def first() -> str:
        return "first"

    @workflow(name="namesake")
    async def second() -> str:
        return "second"

    return first, second


def make_step_namesakes() -> tuple[Any, Any]:
    @step(name="step_namesake")
    async def first() -> str:
        return "first"

    @step(name="step_namesake")
    async def second() -> str:
        return "second"

    return first, second


async def test_clashing_names_are_found_on_entry(url: str) -> None:
    for make in (make_namesakes, make_step_namesakes):
        first, second = make()
        with pytest.raises(UsageError, match=r"test_bad_input.py:\d+ and at .*test_bad_input.py:\d+.*name="):
            async with Outlive(url, include=[first, second]):
                pass
        async with Outlive(url, include=[first, first, take]) as app:
            assert await app.run(take, 1) == "taken"


async def test_clashing_names_are_found_at_first_use(url: str) -> None:
    first, second = make_namesakes()
    async with Outlive(url) as app:
        assert await app.run(first) == "first"
        with pytest.raises(UsageError, match="two workflows are called 'namesake'"):
            await app.run(second)
        assert await app.run(first) == "first"
    async with Outlive(url) as app:  # another app may choose the other one
        assert await app.run(second) == "second"


@workflow
async def uses_both_namesakes(kind: str) -> list[str]:
    made = [namesakes[f"{kind} 1"](), namesakes[f"{kind} 2"]()]
    try:
        return [await each for each in made]
    finally:
        for each in made:
            close = getattr(each, "close", None)
            if close is not None:
                close()


namesakes: dict[str, Any] = {}


@pytest.mark.parametrize("kind", ["workflow", "step"])
async def test_clashing_names_in_one_run_are_an_error(url: str, kind: str) -> None:
    pair = make_namesakes() if kind == "workflow" else make_step_namesakes()
    namesakes.update({f"{kind} 1": pair[0], f"{kind} 2": pair[1]})
    async with Outlive(url) as app:
        run = await app.start(uses_both_namesakes, kind)
        with pytest.raises(UsageError, match=f"two {kind}s are called"):
            await run.result(timeout=LIMIT_S)


async def test_what_include_takes(url: str) -> None:
    module = types.ModuleType("with_definitions")
    module.take = take  # type: ignore[attr-defined]
    async with Outlive(url, include=[module]) as app:
        assert await app.run(take, 1) == "taken"
    for wrong in ([plain], [7], ["no.such.module"]):
        with pytest.raises((UsageError, ImportError)):
            async with Outlive(url, include=wrong):
                pass


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"include": [7]}, "include=… takes modules"),
        ({"include": 7}, "include=… takes modules"),
        ({"include": [plain]}, "include=… takes modules"),
        ({"codec": 5}, "codec=… is an object"),
        ({"codec": jsontext.JsonCodec}, "codec=… is an object"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Outlive("sqlite://", **options)


@pytest.mark.parametrize("wrong", ["30 days", None, -1, math.nan], ids=repr)
async def test_no_age_to_prune_by(url: str, wrong: Any) -> None:
    async with Outlive(url, worker=False) as app:
        with pytest.raises(UsageError, match="older_than=…: a duration"):
            await app.prune(wrong)


async def test_older_than_any_calendar(url: str) -> None:
    async with Outlive(url, worker=False) as app:
        assert await app.prune(timedelta.max) == 0


# -- calls at the wrong place -----------------------------------------------------------------------


@step
async def inner_step(value: int) -> int:
    touched.append("inner")
    return value + 1


@step
async def step_in_step(value: int) -> int:
    return await inner_step(value) * 10


@step
def plain_inner(value: int) -> int:
    touched.append("plain inner")
    return value + 1


@step
def plain_step_in_step(value: int) -> int:
    return plain_inner(value) * 10


@workflow
async def nested_steps() -> list[int]:
    return [await step_in_step(1), await asyncio.to_thread(plain_step_in_step, 1)]


@workflow
def plain_nested_steps() -> int:
    return plain_step_in_step(2)


async def test_a_step_inside_a_step_is_a_plain_call(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(nested_steps)
        assert await run.result(timeout=LIMIT_S) == [20, 20]
        assert [entry.name for entry in await run.entries()] == ["step_in_step", "plain_step_in_step"]
        assert touched == ["inner", "plain inner"]
        assert await app.run(plain_nested_steps) == 30


@workflow
def plain_workflow() -> str:
    return "plain"


@step
async def calls_workflow(kind: str) -> str:
    try:
        if kind == "async":
            return await take(1)
        return plain_workflow() if kind == "plain" else await asyncio.to_thread(plain_workflow)
    except UsageError as error:
        return str(error)


@step
def plain_calls_workflow() -> str:
    try:
        return plain_workflow()
    except UsageError as error:
        return str(error)


@transaction
async def transaction_calls_workflow(tx: Any) -> str:
    try:
        return await take(1)
    except UsageError as error:
        return str(error)


@workflow
async def workflows_in_steps() -> list[str]:
    said = [await calls_workflow(kind) for kind in ("async", "plain", "thread")]
    return [*said, await asyncio.to_thread(plain_calls_workflow), await transaction_calls_workflow()]


async def test_a_workflow_inside_a_step_is_refused(url: str) -> None:
    async with Outlive(url) as app:
        said = await app.run(workflows_in_steps)
        assert len(said) == 5
        assert all("called inside a step" in each and "app.start" in each for each in said), said
        assert touched == []


apps: dict[str, Outlive] = {}


@workflow
async def uses_the_app() -> str:
    try:
        await apps["app"].start(take, 1)
    except UsageError as error:
        return str(error)
    return "nothing was wrong"


@step
async def starts_from_a_step() -> str:
    run = await apps["app"].start(take, 1, id="from-a-step")
    return run.id


@workflow
async def starts_through_a_step() -> str:
    return await starts_from_a_step()


async def test_the_app_in_a_workflow_body_and_in_a_step(url: str) -> None:
    async with Outlive(url) as app:
        apps["app"] = app
        assert "outlive.start" in await app.run(uses_the_app)
        assert await app.run(starts_through_a_step) == "from-a-step"
        assert await (await app.get("from-a-step")).result(timeout=LIMIT_S) == "taken"


@transaction(timeout=3)
async def uses_the_engine(tx: Any, what: str) -> str:
    app = apps["app"]
    try:
        async with asyncio.timeout(2):
            if what == "start":
                await app.start(take, 1, id="within")
            elif what == "run":
                await app.run(take, 1, id="within")
            elif what == "get":
                await app.get("neighbour")
            elif what == "cancel":
                await runs["other"].cancel()
            elif what == "status":
                await runs["other"].status()
            elif what == "list":
                await app.runs()
            elif what == "with tx":
                await app.start(take, 1, id="within", tx=tx)
                return "started"
    except UsageError as error:
        return str(error)
    return "nothing was wrong"


@workflow
async def engine_in_transaction(what: str) -> str:
    return await uses_the_engine(what)


runs: dict[str, outlive.Run] = {}


@pytest.mark.parametrize("what", ["start", "run", "get", "cancel", "status", "list", "with tx"])
async def test_engine_calls_inside_a_transaction_need_its_tx(url: str, what: str) -> None:
    async with Outlive(url) as app:
        apps["app"] = app
        runs["other"] = await started_neighbour(app)
        run = await app.start(engine_in_transaction, what)
        said = await run.result(timeout=LIMIT_S)
        if what == "with tx":
            assert said == "started"
            assert await (await app.get("within")).result(timeout=LIMIT_S) == "taken"
        else:
            assert "inside a transaction" in said and "tx=" in said, said
            assert "within" not in await all_ids(app)
        await unharmed(app, runs["other"])


@pytest.mark.parametrize(
    "call",
    [
        lambda: outlive.gather(),
        lambda: outlive.race(),
        lambda: outlive.map(swallow, []),
        lambda: outlive.start(take, 1),
        lambda: outlive.durable(),
    ],
)
async def test_ambient_functions_outside_a_run(call: Any) -> None:
    with pytest.raises(UsageError, match="workflow bodies"):
        await call()
    with pytest.raises(UsageError, match="no run is executing"):
        outlive.info()
    with pytest.raises(UsageError):
        outlive.group()


ASYNC_CALLS: dict[str, Callable[[], Any]] = {
    "sleep": lambda: outlive.sleep(5),
    "ask_user": lambda: outlive.ask_user("really?"),
    "sleep_until": lambda: outlive.sleep_until(datetime.now(UTC)),
    "now": lambda: outlive.now(),
    "random": lambda: outlive.random(),
    "uuid": lambda: outlive.uuid(),
    "info": lambda: outlive.info(),
    "gather": lambda: outlive.gather(),
    "race": lambda: outlive.race(),
    "group": lambda: outlive.group(),
    "map": lambda: outlive.map(take, [1]),
    "durable": lambda: outlive.durable(),
    "on_rollback": lambda: outlive.on_rollback(bad_step, "nan"),
    "start": lambda: outlive.start(take, 1),
    "receive": lambda: outlive.receive("x"),
    "send": lambda: outlive.send("r", "x", 1),
    "publish": lambda: outlive.publish("x", 1),
    "emit": lambda: outlive.emit("x", 1),
    "promise": lambda: outlive.promise(),
    "on_call": lambda: outlive.on_call("x", plain),
    "patched": lambda: outlive.patched("x"),
    "continue_as_new": lambda: outlive.continue_as_new(),
}


@workflow
def plain_calls_async() -> dict[str, str]:
    said = {}
    for name, call in ASYNC_CALLS.items():
        try:
            call()
        except UsageError as error:
            said[name] = str(error)
    try:
        asyncio.run(half_async())  # not durable, so refused there as well
    except UsageError as error:
        said["in a loop of its own"] = str(error)
    outlive.sync.sleep(0.001)
    return said


async def half_async() -> None:
    await outlive.sleep(0)


async def test_async_functions_in_a_plain_workflow_are_refused_where_they_are_called(url: str) -> None:
    async with Outlive(url) as app:
        run = await app.start(plain_calls_async)
        said = await run.result(timeout=LIMIT_S)
        assert [entry.kind for entry in await run.entries()] == ["timer"]
    branches = {"gather", "race", "group", "map"}
    for name, text in said.items():
        twin = "has no such thing" if name in branches else f"calls outlive.sync.{name.partition(' ')[0]}"
        assert "for async workflow functions; a plain one " in text
        assert text.endswith(twin) or name == "in a loop of its own", text
    assert set(said) == {*ASYNC_CALLS, "in a loop of its own"}
    offered = {name for name in outlive.__all__ if inspect.isfunction(getattr(outlive, name))}
    assert offered - set(ASYNC_CALLS) == {"shielded", "step", "transaction", "workflow"}
