"""The examples as real servers, killed in the middle: every order that was accepted is fulfilled after the restart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import httpx2 as httpx
import pytest

from outlive import RunNotFound
from tests.integrations.servers import EXAMPLES, Servers
from tests.support.size import by_turns

MANAGE = str(EXAMPLES / "django_shop" / "manage.py")


def _fastapi(servers: Servers) -> None:
    servers.serve("uvicorn", "fastapi_shop:web", "--port", str(servers.port))


def _prepare_flask(servers: Servers) -> None:
    servers.run("flask", "--app", "flask_shop", "create-tables")
    servers.run("flask", "--app", "flask_shop", "outlive", "db", "migrate")


def _flask(servers: Servers) -> None:
    servers.start("flask", "--app", "flask_shop", "outlive", "worker")
    servers.serve("flask", "--app", "flask_shop", "run", "--port", str(servers.port))


def _prepare_django(servers: Servers) -> None:
    servers.run(MANAGE, "migrate", "--run-syncdb")
    servers.run(MANAGE, "outlive_migrate")


def _django(servers: Servers) -> None:
    servers.start(MANAGE, "outlive_worker")
    servers.serve(MANAGE, "runserver", "--noreload", f"127.0.0.1:{servers.port}")


def _prepare_django_asgi(servers: Servers) -> None:
    servers.run(MANAGE, "migrate", "--run-syncdb")
    servers.run(MANAGE, "outlive", "db", "migrate")


def _django_asgi(servers: Servers) -> None:
    servers.start(MANAGE, "outlive_worker")
    servers.serve("uvicorn", "shop.asgi:application", "--port", str(servers.port), "--lifespan", "off")


SHOPS = [
    (lambda servers: None, _fastapi),
    (_prepare_flask, _flask),
    (_prepare_django, _django),
    (_prepare_django_asgi, _django_asgi),
]


def _lines(response: httpx.Response) -> list[str]:
    return [
        line.removeprefix("data: ").strip('"') for line in response.iter_lines() if "paid" in line or "sent" in line
    ]


@pytest.mark.timeout(180)
@by_turns("prepare, start", SHOPS, ids=[start.__name__.strip("_") for _, start in SHOPS])
def test_a_shop_survives_kills(
    servers: Servers, prepare: Callable[[Servers], None], start: Callable[[Servers], None]
) -> None:
    client = servers.client
    prepare(servers)
    start(servers)
    names = [f"{number}" for number in range(5)]
    for name in names:
        answer = client.post(f"/orders/{name}", params={"cents": 1999})
        assert answer.status_code == 201, servers.log()
        assert f"order-{name}" in answer.text
    missing = client.get("/orders/none")
    assert (missing.status_code, missing.json()) == (404, {"detail": str(RunNotFound("order-none"))}), servers.log()
    if start is not _django_asgi:  # which gives a plain iterator when it has ended
        with client.stream("GET", "/orders/0/log") as response:
            assert "paid" in next(line for line in response.iter_lines() if "paid" in line)
    servers.kill()

    start(servers)
    for name in names:
        assert client.post(f"/orders/{name}/address", params={"street": "High Street"}).status_code == 204, (
            servers.log()
        )
        with client.stream("GET", f"/orders/{name}/log") as response:
            assert _lines(response) == ["paid", "sent to High Street"], servers.log()
        assert "succeeded" in client.get(f"/orders/{name}").text
    payments = Counter((servers.folder / "payments.txt").read_text().splitlines())
    assert set(payments) == {f"{name} 1999" for name in names}
    if start is not _django_asgi:
        assert payments["0 1999"] == 1  # it was seen to be paid, so it was recorded
