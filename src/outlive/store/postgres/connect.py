"""Connections: the URL, the pool, and what the driver's errors mean for a caller.

Nobody above sees an error of asyncpg: it becomes StoreUnavailable, UsageError,
WriteRefused, StoreReadOnly or SchemaMismatch here, with a sentence that says
what to do and never holds the password. Invariant: a statement may have been
committed without a reply only where `outcome_unknown` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from outlive.errors import OutliveError, SchemaMismatch, StoreReadOnly, StoreUnavailable, UsageError
from outlive.store.interface import WriteRefused

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 30.0  # a server that vanished without a word is noticed then
STATEMENTS_CACHED = 512  # one per combination of a batch's parts, and the rest
OLDEST_SERVER = 13

# What a session must not inherit from the database's defaults. Batches count on READ COMMITTED, a commit that was
# acknowledged counts on the disk, and compiling our short statements takes longer than running them.
SESSION_SQL = """select set_config('default_transaction_isolation', 'read committed', false),
  set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on'
    else current_setting('synchronous_commit') end, false), set_config('jit', 'off', false)"""


def load_driver() -> Any:
    """Import asyncpg, which is an extra."""
    try:
        import asyncpg
    except ImportError:
        raise UsageError("PostgreSQL needs the driver asyncpg: pip install 'outlive[postgres]'") from None
    return asyncpg


class Address:
    """Where the database is: opens connections and explains what goes wrong with them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres"):
            hint = "; write postgresql:// without a driver" if parts.scheme.startswith("postgresql+") else ""
            raise UsageError(f"a PostgreSQL URL begins with postgresql:// or postgres://, not {parts.scheme}://{hint}")
        self._secret_url = url
        user, at, hosts = parts.netloc.rpartition("@")
        query = urlencode([(key, value) for key, value in parse_qsl(parts.query) if key != "password"])
        self.url = urlunsplit(parts._replace(netloc=user.partition(":")[0] + at + hosts, query=query))

    async def connect(self, *, command_timeout_s: float = COMMAND_TIMEOUT_S) -> Connection:
        """Open a connection whose session has the settings that the store counts on."""
        driver = load_driver()
        try:
            connection: Connection = await driver.connect(
                self._secret_url,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=command_timeout_s,
                statement_cache_size=STATEMENTS_CACHED,
                max_cached_statement_lifetime=0,
                max_cacheable_statement_size=64 * 1024,
            )
        except (driver.ClientConfigurationError, ValueError) as error:
            raise UsageError(f"the URL {self.url} is not one that PostgreSQL understands: {error}") from None
        except (OSError, TimeoutError, driver.PostgresError, driver.InterfaceError) as error:
            raise self._explain_refusal(driver, error) from error
        try:
            await connection.execute(SESSION_SQL)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _explain_refusal(self, driver: Any, error: Exception) -> OutliveError:
        if isinstance(error, driver.InvalidPasswordError):
            return UsageError(
                f"PostgreSQL refused the password for {self.url}; check user and password in the URL "
                "(PGPASSWORD and ~/.pgpass are read if it has none)"
            )
        if isinstance(error, driver.InvalidAuthorizationSpecificationError):
            return UsageError(
                f"PostgreSQL does not let this user in at {self.url}: {error}; create the role or allow it in pg_hba.conf"
            )
        if isinstance(error, driver.InvalidCatalogNameError):
            name = urlsplit(self.url).path.lstrip("/") or "the default one"
            return UsageError(f"there is no database {name!r} at {self.url}; create it, for example with createdb")
        if isinstance(error, driver.InsufficientPrivilegeError):
            return self._explain_permission(error)
        if isinstance(error, driver.TooManyConnectionsError):
            return StoreUnavailable(
                f"PostgreSQL at {self.url} has no connection left ({error}); lower pool_size or raise max_connections"
            )
        text = str(error) or type(error).__name__
        return StoreUnavailable(f"no PostgreSQL answers at {self.url} ({text}); start it, or check host and port")

    def _explain_permission(self, error: Exception) -> UsageError:
        return UsageError(
            f"the user of {self.url} lacks a permission: {error}; let its owner run `outlive db migrate` and grant "
            "this user USAGE on schema outlive and all rights on its tables, or grant it CREATE on the database"
        )

    @contextlib.contextmanager
    def explaining(self, *, writing: bool, opening: bool = False) -> Iterator[None]:
        """Turn the driver's errors of the statements within into those of the seam."""
        driver = load_driver()
        try:
            yield
        except driver.PostgresError as error:
            raise self._explain_answer(driver, error, writing=writing, opening=opening) from error
        except (ValueError, OverflowError) as error:
            raise WriteRefused(f"PostgreSQL cannot store a value: {error}") from error
        except (OSError, driver.InterfaceError, driver.InternalClientError) as error:
            raise self._explain_loss(error, writing=writing) from error

    def _explain_loss(self, error: Exception, *, writing: bool) -> StoreUnavailable:
        text = str(error) or type(error).__name__
        return StoreUnavailable(f"lost the connection to PostgreSQL at {self.url}: {text}", outcome_unknown=writing)

    def _explain_answer(self, driver: Any, error: Any, *, writing: bool, opening: bool) -> OutliveError:
        state: str = error.sqlstate or ""
        if state[:2] in ("08", "57") and state != "57014":
            return self._explain_loss(error, writing=writing)
        if isinstance(error, driver.InsufficientPrivilegeError):
            return self._explain_permission(error) if opening else StoreReadOnly(str(self._explain_permission(error)))
        if isinstance(error, driver.ReadOnlySQLTransactionError):
            return StoreReadOnly(f"PostgreSQL at {self.url} is read-only: {error}; connect to the primary server")
        if state in ("42P01", "42703", "42883", "3F000"):
            return SchemaMismatch(f"{self.url} does not have the schema of this Outlive: {error}; run `outlive db migrate`")
        if state[:2] in ("22", "23", "54") or state == "21000":
            return WriteRefused(f"PostgreSQL refused the data: {error}")
        # what is left was rolled back by the server: deadlock, lock or statement timeout, no disk, no memory
        return StoreUnavailable(f"PostgreSQL at {self.url} could not do it now: {error}")


class Pool:
    """A few connections, the last used one first, so that its prepared statements are warm.

    Users' transactions get all but two: a transaction waits for batches of its
    run, so they must never hold the last connection.
    """

    def __init__(self, address: Address, size: int) -> None:
        size = max(size, 3)
        self._address = address
        self._free: list[Connection] = []
        self._room = asyncio.Semaphore(size)
        self._transactions = asyncio.Semaphore(size - 2)
        self._closed = False

    async def open(self) -> None:
        """Open the first connection, so that a wrong URL is told at once."""
        connection = await self._address.connect()
        if connection.get_server_version() < (OLDEST_SERVER,):
            connection.terminate()
            raise UsageError(f"{self._address.url} is PostgreSQL {connection.get_server_version().major}, 13 is the oldest")
        self._free.append(connection)

    async def take(self) -> Connection:
        """Take a free connection, or open one; waits while all are in use."""
        await self._room.acquire()
        try:
            if self._closed:
                raise UsageError("the store is not open")
            while self._free:
                connection = self._free.pop()
                if not connection.is_closed():
                    return connection
            try:
                return await self._address.connect()
            except UsageError as error:  # it has been open before: passwords change, databases come back
                raise StoreUnavailable(str(error)) from error
        except BaseException:
            self._room.release()
            raise

    def give(self, connection: Connection) -> None:
        """Give a connection back; one that is not at rest is thrown away."""
        if self._closed or connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
        else:
            self._free.append(connection)
        self._room.release()

    async def take_for_transaction(self) -> Connection:
        """Take a connection for a user's transaction."""
        await self._transactions.acquire()
        try:
            return await self.take()
        except BaseException:
            self._transactions.release()
            raise

    def give_from_transaction(self, connection: Connection) -> None:
        """Give a transaction's connection back."""
        self.give(connection)
        self._transactions.release()

    @contextlib.asynccontextmanager
    async def lend(self, *, writing: bool, opening: bool = False) -> AsyncIterator[Connection]:
        """Lend a connection for some statements and explain their errors."""
        connection = await self.take()
        try:
            with self._address.explaining(writing=writing, opening=opening):
                yield connection
        except StoreUnavailable:
            if not connection.is_closed():
                connection.terminate()
            raise
        finally:
            self.give(connection)

    async def close(self) -> None:
        """Close what is free; what is in use is closed when it comes back."""
        self._closed = True
        free, self._free = self._free, []
        for connection in free:
            try:
                await connection.close(timeout=2.0)
            except (TimeoutError, OSError, load_driver().PostgresError, load_driver().InterfaceError):
                connection.terminate()
