"""The lease's own connection, made and used on the loop of whoever renews it.

Knows nothing of the pool: a renewal must not wait for a slow batch. Invariant:
a beat is renewed only while the worker's epoch stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlive import hooks
from outlive.model.writes import Fence
from outlive.store.postgres.connect import hang_up
from outlive.store.postgres.statements import statement
from outlive.store.refusals import FenceLost

if TYPE_CHECKING:
    from outlive.store.postgres.connect import Address, Connection

BEAT_TIMEOUT_S = 5.0  # of one renewal: the next one connects anew


class PostgresSideChannel:
    """Renews leases; a lost connection is opened again by the next beat."""

    def __init__(self, address: Address, connection: Connection) -> None:
        self._address = address
        self._connection = connection

    @classmethod
    async def open(cls, address: Address) -> PostgresSideChannel:
        """Connect on the running loop."""
        return cls(address, await address.connect(command_timeout_s=BEAT_TIMEOUT_S))

    @hooks.commit_site("beat")
    async def beat(self, fence: Fence, lease_s: float) -> float:
        """Renew the lease; give the database's time. Raises FenceLost."""
        timeout_s = min(BEAT_TIMEOUT_S, lease_s / 2)
        if self._connection.is_closed():
            self._connection = await self._address.connect(command_timeout_s=BEAT_TIMEOUT_S, timeout_s=timeout_s)
        query = statement("put_beat")
        values = {"worker": fence.worker, "epoch": fence.epoch, "lease_s": lease_s}
        try:
            with self._address.explaining(writing=True):
                now = await self._connection.fetchval(query.text, *query.arguments(values), timeout=timeout_s)
        except BaseException:
            self._connection.terminate()
            raise
        if now is None:
            raise FenceLost(fence)
        return float(now)

    async def close(self) -> None:
        """Close the connection."""
        await hang_up(self._connection)
