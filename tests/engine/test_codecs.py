"""A codec of the user's own: what it wrote is read by it alone, and an app without it says so and breaks nothing."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest

import outlive
from outlive import DecodeFailed, Outlive, PayloadTooLarge, RunCancelled, RunOnHold, Status, step, workflow
from outlive.codec import JsonCodec, payload
from outlive.limits import BLOB_THRESHOLD_CHARS

LIMIT_S = 20.0
PLAIN = JsonCodec()
executed: list[str] = []


class Sealed:
    """Not readable as JSON, and twice as long."""

    id = "sealed/1"

    def encode(self, value: Any, *, where: str, hint: Any = Any) -> str:
        return PLAIN.encode(value, where=where, hint=hint).encode().hex()

    def decode(self, text: str, hint: Any = Any, *, where: str) -> Any:
        return PLAIN.decode(bytes.fromhex(text).decode(), hint, where=where)


class Salted(Sealed):
    """Never writes the same text twice, as ciphers do."""

    id = "salted/1"

    def encode(self, value: Any, *, where: str, hint: Any = Any) -> str:
        return os.urandom(4).hex() + super().encode(value, where=where, hint=hint)

    def decode(self, text: str, hint: Any = Any, *, where: str) -> Any:
        return super().decode(text[8:], hint, where=where)


SEALED = Sealed()
WHO_WROTE_IT = r"written by codec 'sealed/1', this process has json/1; open the app with the codec that wrote it"


@pytest.fixture(autouse=True)
def _clean() -> None:
    executed.clear()


@step
async def double(text: str) -> str:
    executed.append(text)
    return text * 2


@workflow
async def doubles(text: str, delay_s: float = 0.0) -> str:
    value = await double(text)
    await outlive.sleep(delay_s)
    return value + await double("end")


@workflow
async def parent() -> str:
    return await doubles("ab")


@workflow
async def late_parent() -> str:
    value = await doubles("ab")
    await outlive.sleep(0.5)
    return value


async def recorded(run: outlive.Run, count: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while len(await run.entries()) < count:
            await asyncio.sleep(0.005)


async def test_a_run_goes_on_under_its_own_codec_only(url: str) -> None:
    async with Outlive(url, codec=SEALED) as app:
        run = await app.start(doubles, "ab", 0.5, id="sealed")
        await recorded(run, 1)
    async with Outlive(url) as app:
        run = await app.get("sealed")
        with pytest.raises(RunOnHold, match=f"run 'sealed' was {WHO_WROTE_IT}"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
        assert await run.status() == Status.PAUSED
        assert await app.run(doubles, "cd") == "cdcdendend"
        await run.resume()
        with pytest.raises(RunOnHold, match="sealed/1"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
    executed.clear()
    async with Outlive(url, codec=SEALED) as app:
        run = await app.get("sealed")
        await run.resume()
        assert await run.result(timeout=LIMIT_S) == "ababendend"
        assert executed == ["end"]


async def test_replay_does_not_ask_for_the_same_text(url: str) -> None:
    async with Outlive(url, codec=Salted()) as app:
        run = await app.start(late_parent, id="late")
        await recorded(run, 1)
        assert await (await app.get("late/doubles#1")).result(timeout=LIMIT_S) == "ababendend"
    async with Outlive(url, codec=Salted()) as app:
        assert await (await app.get("late")).result(timeout=LIMIT_S, stop_on_hold=True) == "ababendend"


async def test_a_run_that_nobody_here_can_read_can_be_cancelled(url: str) -> None:
    async with Outlive(url, codec=SEALED, worker=False) as client:
        await client.start(doubles, "ab", id="sealed")
    async with Outlive(url) as app:
        run = await app.get("sealed")
        with pytest.raises(RunOnHold, match="sealed/1"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
        assert await run.cancel("lost the key")
        with pytest.raises(RunCancelled, match="lost the key"):
            await run.result(timeout=LIMIT_S)
        assert executed == []


async def test_a_client_without_the_codec_is_told(url: str) -> None:
    async with Outlive(url, codec=SEALED) as app:
        run = await app.start(doubles, "ab", id="sealed", attributes={"customer": "ann"})
        assert await run.result(timeout=LIMIT_S) == "ababendend"
        assert (await run.info()).attributes == {"customer": "ann"}
        assert (await run.entries())[0].value == "abab"
    async with Outlive(url, worker=False) as client:
        run = await client.get("sealed")
        with pytest.raises(DecodeFailed, match=f"the result of run 'sealed' was {WHO_WROTE_IT}"):
            await run.result(timeout=LIMIT_S)
        with pytest.raises(DecodeFailed, match=f"the journal of run 'sealed' was {WHO_WROTE_IT}"):
            await run.entries()
        info = await run.info()
        assert (info.status, info.attributes) == (Status.SUCCEEDED, {"customer": "ann"})  # for searching: plain JSON
        assert (await client.runs()).items == [info]
        again = await client.start("doubles", "other", id="sealed")
        assert not again.created


@workflow
async def fails() -> None:
    raise ValueError("told with every codec")


async def test_errors_are_readable_with_every_codec(url: str) -> None:
    async with Outlive(url, codec=SEALED) as app:
        run = await app.start(fails, id="fails")
        with pytest.raises((ValueError, outlive.RunFailed), match="told with every codec"):
            await run.result(timeout=LIMIT_S)
    async with Outlive(url, worker=False) as client:
        with pytest.raises((ValueError, outlive.RunFailed), match="told with every codec"):
            await (await client.get("fails")).result(timeout=LIMIT_S)


async def test_a_child_whose_result_cannot_be_read_holds_its_parent(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Outlive(url) as app:
        watcher = app._engine().watcher
        tell, changed = watcher.tell, {"doubles": "other/1"}
        monkeypatch.setattr(
            watcher,
            "tell",
            lambda kind, row, ended: tell(kind, row, replace(ended, codec=changed.get(ended.workflow, ended.codec))),
        )
        run = await app.start(parent)
        with pytest.raises(RunOnHold, match="was written by codec 'other/1', this process has json/1"):
            await run.result(timeout=LIMIT_S, stop_on_hold=True)
        changed.clear()
        await run.resume()
        assert await run.result(timeout=LIMIT_S) == "ababendend"
        assert executed == ["ab", "end"]


async def test_large_payloads_of_another_codec(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x" * BLOB_THRESHOLD_CHARS
    async with Outlive(url, codec=SEALED) as app:
        run = await app.start(doubles, text)
        assert await run.result(timeout=LIMIT_S) == text * 2 + "endend"
        assert (await run.entries())[0].value == text * 2
        monkeypatch.setattr(payload, "PAYLOAD_MAX_BYTES", 6_000)
        with pytest.raises(
            PayloadTooLarge, match=r"arguments of workflow doubles is 6,\d\d\d bytes, the limit is 6,000"
        ):
            await app.start(doubles, "x" * 3_000)
        for size, what in ((1_498, "result of workflow doubles"), (2_000, "result of step double")):
            run = await app.start(doubles, "x" * size)
            with pytest.raises((PayloadTooLarge, outlive.RunFailed), match=f"{what} is [68],.* the limit is 6,000"):
                await run.result(timeout=LIMIT_S)
