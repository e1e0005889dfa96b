"""Opens connections, and tells what the driver's errors mean for a caller.

Nobody above sees an error of asyncpg: it becomes StoreUnavailable, UsageError,
WriteRefused, StoreReadOnly or SchemaMismatch here, with a sentence that says
what to do and never holds the password. Invariant: a statement may have been
committed without a reply only where `outcome_unknown` says so.
"""

from __future__ import annotations

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
# acknowledged counts on the disk, and compiling our short statements takes longer than running them. A plan is made
# once: one made while a table is empty would read all of it for minutes after it has grown (measured: 30 to 160 ms
# instead of 1), so our statements are written for one plan each; users' transactions get the planner back.
PLANNER = ("enable_seqscan", "enable_nestloop", "enable_mergejoin", "jit")
SESSION_SQL = """select set_config('default_transaction_isolation', 'read committed', false),
  set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on'
    else current_setting('synchronous_commit') end, false), """ + ", ".join(
    f"set_config('{name}', 'off', false)" for name in PLANNER
)


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
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise UsageError(f"this is no URL that PostgreSQL understands: {error}") from None
        if parts.scheme not in ("postgresql", "postgres"):
            hint = "; write postgresql:// without a driver" if parts.scheme.startswith("postgresql+") else ""
            raise UsageError(f"a PostgreSQL URL begins with postgresql:// or postgres://, not {parts.scheme}://{hint}")
        self._secret_url = url
        user, at, hosts = parts.netloc.rpartition("@")
        query = urlencode([(key, value) for key, value in parse_qsl(parts.query) if key != "password"])
        self.url = urlunsplit(parts._replace(netloc=user.partition(":")[0] + at + hosts, query=query))

    async def connect(
        self, *, command_timeout_s: float = COMMAND_TIMEOUT_S, timeout_s: float = CONNECT_TIMEOUT_S
    ) -> Connection:
        """Open a connection whose session has the settings that the store counts on."""
        driver = load_driver()
        try:
            connection: Connection = await driver.connect(
                self._secret_url,
                timeout=timeout_s,
                command_timeout=command_timeout_s,
                statement_cache_size=STATEMENTS_CACHED,
                max_cached_statement_lifetime=0,
                max_cacheable_statement_size=64 * 1024,
            )
        except (driver.ClientConfigurationError, ValueError) as error:
            raise UsageError(f"the URL {self.url} is not one that PostgreSQL understands: {error}") from None
        except (OSError, driver.PostgresError, driver.InterfaceError, driver.InternalClientError) as error:
            raise self._explain_refusal(driver, error) from error
        if connection.get_server_version() < (OLDEST_SERVER,):
            connection.terminate()
            raise UsageError(f"{self.url} is older than PostgreSQL {OLDEST_SERVER}, which Outlive needs")
        try:
            await connection.execute(SESSION_SQL)
        except BaseException as error:
            connection.terminate()
            explained = self.explain(error, writing=False)
            if explained is None:
                raise
            raise explained from error
        return connection

    def _explain_refusal(self, driver: Any, error: Exception) -> OutliveError:
        if isinstance(error, driver.InvalidPasswordError):
            return UsageError(
                f"PostgreSQL refused the password for {self.url}; check user and password in the URL "
                "(PGPASSWORD and ~/.pgpass are read if it has none)"
            )
        if isinstance(error, driver.InvalidAuthorizationSpecificationError):
            return UsageError(
                f"PostgreSQL does not let this user in at {self.url}: {error}; create the role, "
                "or allow it in pg_hba.conf"
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

    def _explain_permission(self, error: BaseException) -> UsageError:
        return UsageError(
            f"the user of {self.url} lacks a permission: {error}; let its owner run `outlive db migrate` and grant "
            "this user USAGE on schema outlive and all rights on its tables, or grant it CREATE on the database"
        )

    def explain(self, error: BaseException, *, writing: bool, opening: bool = False) -> OutliveError | None:
        """Give what an error of a statement means in the words of the seam; None if it is none of the driver's."""
        driver = load_driver()
        if isinstance(error, driver.PostgresError):
            return self._explain_answer(driver, error, writing=writing, opening=opening)
        if isinstance(error, OSError | driver.InternalClientError) or (
            isinstance(error, driver.InterfaceError) and not isinstance(error, ValueError)
        ):
            return self._explain_loss(error, writing=writing)
        if isinstance(error, ValueError | OverflowError):
            return WriteRefused(f"PostgreSQL cannot store a value: {error}")
        return None

    def _explain_loss(self, error: BaseException, *, writing: bool) -> StoreUnavailable:
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
            return SchemaMismatch(f"{self.url} lacks the schema of this Outlive: {error}; run `outlive db migrate`")
        if state[:2] in ("22", "23", "54") or state == "21000":
            return WriteRefused(f"PostgreSQL refused the data: {error}")
        # what is left was rolled back by the server: deadlock, lock or statement timeout, no disk, no memory
        return StoreUnavailable(f"PostgreSQL at {self.url} could not do it now: {error}")
