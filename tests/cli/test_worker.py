from __future__ import annotations

import asyncio
import signal

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
