"""A shop with Flask: the order and the run that fulfils it are written by one transaction, and survive every kill.

flask --app flask_shop run              # the web server: it starts runs
flask --app flask_shop outlive worker   # executes them; as many as you like
"""

import os
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response, request
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from outlive import step, sync, workflow
from outlive.integrations.flask import FlaskOutlive, current_outlive

URL = os.environ.get("OUTLIVE_URL", "sqlite:///shop.db")
engine = create_engine(URL.replace("postgresql:", "postgresql+psycopg:"))
new_session = sessionmaker(engine)

web = Flask(__name__)
web.config["OUTLIVE_URL"] = URL
FlaskOutlive(web)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]


@step
def charge(order_id: str, cents: int) -> str:
    with Path("payments.txt").open("a") as payments:  # here you would call your payment provider
        payments.write(f"{order_id} {cents}\n")
    return f"payment-{order_id}"


@workflow
def fulfil(order_id: str, cents: int) -> str:
    payment = charge(order_id, cents)
    sync.emit("log", "paid")
    address = sync.receive("address", timeout=7 * 86400)
    sync.emit("log", f"sent to {address}")
    return payment


@web.cli.command("create-tables")
def create_tables() -> None:
    Base.metadata.create_all(engine)


@web.post("/orders/<order_id>")
def order(order_id: str) -> tuple[str, int]:
    cents = int(request.args["cents"])
    with new_session.begin() as session:  # both or neither
        session.add(Order(id=order_id, cents=cents))
        session.flush()
        run = current_outlive.start(fulfil, order_id, cents, id=f"order-{order_id}", tx=session)
    return run.id, 201


@web.post("/orders/<order_id>/address")
def address(order_id: str) -> tuple[str, int]:
    current_outlive.send(f"order-{order_id}", "address", request.args["street"], key="address")
    return "", 204


@web.get("/orders/<order_id>")
def look(order_id: str) -> str:
    return current_outlive.get(f"order-{order_id}").status()


@web.get("/orders/<order_id>/log")
def log(order_id: str) -> Response:
    items = current_outlive.get(f"order-{order_id}").stream("log")

    def lines() -> Iterator[str]:
        for item in items:
            yield f"{item.value}\n"

    return Response(lines(), mimetype="text/plain")
