from pathlib import Path

from outlive import step, sync, workflow
from shop.models import Order


@step
def charge(name: str, cents: int) -> str:
    with Path("payments.txt").open("a") as payments:  # here you would call your payment provider
        payments.write(f"{name} {cents}\n")
    return f"payment-{name}"


@step
def mark_sent(name: str) -> None:
    Order.objects.filter(name=name).update(is_sent=True)


@workflow
def fulfil(name: str, cents: int) -> str:
    payment = charge(name, cents)
    sync.emit("log", "paid")
    address = sync.receive("address", timeout=7 * 86400)
    mark_sent(name)
    sync.emit("log", f"sent to {address}")
    return payment
