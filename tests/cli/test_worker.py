from __future__ import annotations

import asyncio
import signal
import time

import pytest

import outlive


def _stop(worker, number=signal.SIGTERM) -> tuple[int, str]:
    worker.send_signal(number)
    _, errors = worker.communicate(timeout=30)
    return worker.returncode, errors


def _result_by_name(url: str, run_id: str):
    async def wait():
        async with outlive.Outlive(url, worker=False) as client:
            run = await client.start("order", "bread", id=run_id)
            return await run.result(timeout=30)

    return asyncio.run(wait())


@pytest.mark.parametrize("target", ["shop:app", "shop:make_app", "shop:plain", "shop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_serves_until_it_is_told_to_stop(run_cli, url, target, number):
    worker = run_cli.start("worker", target)
    try:
        assert _result_by_name(url, "order-9") == 5
    finally:
        code, errors = _stop(worker, number)
    assert code == 0, errors
    assert "is running" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "target", ["nothing:app", "shop:nothing", "shop:number", "shop:client", "shop:order", "shop:patient"]
)
def test_wrong_target_ends_with_2(run_cli, target):
    name = target.partition(":")[2] if target.startswith("shop") else "nothing"
    assert name in run_cli("worker", target, code=2).stderr


def test_the_apps_of_a_module_are_named(run_cli):
    assert "its apps: app, client, plain" in run_cli("worker", "shop:ap", code=2).stderr
    (run_cli.folder / "late.py").write_text("from outlive import Outlive\napp = Outlive('sqlite:///late.db')\n")
    without = run_cli("worker", "late", code=2, OUTLIVE_URL="")
    assert "or name the app: late:app" in without.stderr


def test_waiting_runs_do_not_delay_the_stop(run_cli, url):
    worker = run_cli.start("worker", "shop:app")
    try:
        assert _result_by_name(url, "order-1") == 5
        run_cli("runs", "ls")
    finally:
        code, _ = _stop(worker)
    assert code == 0


STUCK = """
import asyncio, os, threading, time
from outlive import Outlive, step, workflow

def stand_still():
    open("begun", "w").close()
    while True:
        time.sleep(0.05)

@step
def threaded() -> None:
    stand_still()

@step
async def to_thread() -> None:
    await asyncio.to_thread(stand_still)

@workflow
async def stuck(kind: str) -> None:
    await (asyncio.to_thread(threaded) if kind == "plain" else to_thread())

@workflow
def stuck_body() -> None:
    stand_still()

app = Outlive(os.environ["OUTLIVE_URL"], grace=0.1)
"""


@pytest.mark.parametrize("kind", ["plain", "to_thread", "body"])
def test_a_thread_that_never_ends_does_not_keep_the_process(run_cli, url, kind):
    (run_cli.folder / "stuck.py").write_text(STUCK)

    async def start() -> None:
        async with outlive.Outlive(url, worker=False) as client:
            await (client.start("stuck_body", id="run") if kind == "body" else client.start("stuck", kind, id="run"))

    asyncio.run(start())
    worker = run_cli.start("worker", "stuck:app")
    try:
        while not (run_cli.folder / "begun").exists():
            assert worker.poll() is None
            time.sleep(0.02)
        code, errors = _stop(worker)
    finally:
        worker.kill()
    assert code == 0, errors
    assert run_cli.json("runs", "show", "run")["run"]["status"] != "running", "the run was released"


def test_the_database_of_the_command_line_wins(run_cli, url, tmp_path):
    (tmp_path / "own.py").write_text(
        "from outlive import Outlive\nfrom shop import order\napp = Outlive('sqlite:///own.db', include=[order])\n"
    )
    worker = run_cli.start("worker", "own:app", "--url", url)
    try:
        assert _result_by_name(url, "order-9") == 5
    finally:
        code, errors = _stop(worker)
    assert code == 0, errors
    assert not (tmp_path / "own.db").exists()
    assert "nosql" in run_cli("worker", "own:app", "--url", "nosql://x", code=2).stderr


def test_an_open_app_keeps_its_database(run_cli, tmp_path):
    (tmp_path / "opened.py").write_text(
        "import outlive\napp = outlive.sync.Outlive('sqlite://', worker=True)\napp.open()\n"
    )
    assert "open already" in run_cli("worker", "opened:app", code=2).stderr


@pytest.mark.parametrize("target", ["shop:app", "shop"])
def test_a_worker_for_some_queues(run_cli, url, target):
    async def start() -> list[str]:
        async with outlive.Outlive(url, worker=False) as client:
            for queue in ("cpu", "gpu", "tpu", None):
                await client.start("order", "tea", id=f"in-{queue}", queue=queue)
            for queue in ("gpu", "tpu", None):
                assert await (await client.get(f"in-{queue}")).result(timeout=30) == 3
            return [run.id for run in (await client.runs("-status:succeeded")).items]

    worker = run_cli.start("worker", target, "--queue", "gpu", "--queue", "tpu")
    try:
        assert asyncio.run(start()) == ["in-cpu"]
    finally:
        code, errors = _stop(worker)
    assert code == 0, errors


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def f():\n    return missing\nf()\n", "NameError: name 'missing' is not defined"),
        ("import missing\n", "No module named 'missing'"),
        ("def f(:\n", "SyntaxError: invalid syntax"),
        ("def app():\n    return missing\n", "faulty:app() fails: NameError"),
    ],
)
@pytest.mark.parametrize("command", ["worker", "replay"])
def test_what_cannot_be_imported_is_wrong_usage(run_cli, command, text, told):
    (run_cli.folder / "faulty.py").write_text(text)
    said = run_cli(command, "faulty:app", code=2).stderr
    assert said.startswith("outlive: ")
    assert told in said.splitlines()[0]
    assert "faulty.py" in said
    assert "importlib" not in said
