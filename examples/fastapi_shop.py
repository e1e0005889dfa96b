"""A shop with FastAPI: the order and the run that fulfils it are written by one transaction, and survive every kill.

uvicorn fastapi_shop:web
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import outlive
from outlive import Outlive, step, workflow
from outlive.integrations.fastapi import Handle, event_stream, exception_handlers, lifespan

URL = os.environ.get("OUTLIVE_URL", "sqlite:///shop.db")
engine = create_async_engine(URL.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+asyncpg:"))
new_session = async_sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]


@step
async def charge(order_id: str, cents: int) -> str:
    with Path("payments.txt").open("a") as payments:  # here you would call your payment provider
        payments.write(f"{order_id} {cents}\n")
    return f"payment-{order_id}"


@workflow
async def fulfil(order_id: str, cents: int) -> str:
    payment = await charge(order_id, cents)
    await outlive.emit("log", "paid")
    address = await outlive.receive("address", timeout=7 * 86400)
    await outlive.emit("log", f"sent to {address}")
    return payment


@asynccontextmanager
async def tables(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


web = FastAPI(lifespan=lifespan(Outlive(URL), tables), exception_handlers=exception_handlers)


async def session() -> AsyncIterator[AsyncSession]:
    async with new_session() as opened:
        yield opened


@web.post("/orders/{order_id}", status_code=201)
async def order(order_id: str, cents: int, app: Handle, session: Annotated[AsyncSession, Depends(session)]) -> str:
    async with session.begin():  # both or neither
        session.add(Order(id=order_id, cents=cents))
        run = await app.start(fulfil, order_id, cents, id=f"order-{order_id}", tx=session)
    return run.id


@web.post("/orders/{order_id}/address", status_code=204)
async def address(order_id: str, street: str, app: Handle) -> None:
    await app.send(f"order-{order_id}", "address", street, key="address")


@web.get("/orders/{order_id}")
async def look(order_id: str, app: Handle) -> str:
    return await (await app.get(f"order-{order_id}")).status()


@web.get("/orders/{order_id}/log")
async def log(order_id: str, app: Handle, request: Request) -> Response:
    return event_stream(await app.get(f"order-{order_id}"), "log", request)
