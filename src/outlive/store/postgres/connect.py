"""Opens connections, and tells what the driver's errors mean for a caller.

Nobody above sees an error of asyncpg: it becomes StoreUnavailable, UsageError,
WriteRefused, StoreReadOnly or SchemaMismatch here, with a sentence that says
what to do and never holds the password. Invariant: a statement may have been
committed without a reply only where `outcome_unknown` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from outlive.errors import OutliveError, SchemaMismatch, StoreReadOnly, StoreUnavailable, UsageError
from outlive.store.refusals import WriteRefused

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0  # a server that does not answer a goodbye gets none
COMMAND_TIMEOUT_S = 30.0  # a server that vanished without a word is noticed then
STATEMENTS_CACHED = 512  # one per combination of a batch's parts, and the rest
OLDEST_SERVER = 13

# What a session must not inherit from the database's defaults. Batches count on READ COMMITTED, a commit that was
# acknowledged counts on the disk, and compiling our short statements takes longer than running them. A process that
# stands still within a transaction keeps others waiting for its locks for three seconds, no longer. A plan is made
# once: one made while a table is empty would read all of it for minutes after it has grown (measured: 30 to 160 ms
# instead of 1), so our statements are written for one plan each; users' transactions get the planner back.
PLANNER = ("enable_seqscan", "enable_nestloop", "enable_mergejoin", "jit")
SESSION_SQL = """select set_config('default_transaction_isolation', 'read committed', false),
  set_config('synchronous_commit', case current_setting('synchronous_commit') when 'off' then 'on'
    else current_setting('synchronous_commit') end, false),
  set_config('idle_in_transaction_session_timeout', '3s', false), """ + ", ".join(
    f"set_config('{name}', 'off', false)" for name in PLANNER
)

LOST = ("08", "57")  # classes of SQLSTATEs: the connection, or the whole server
CANCELLED = "57014"
IDLE = "25P03"  # the server hung up, because this process stood still within a transaction

# What an answer of the server means, by its SQLSTATE or the class of it.
_SCHEMA = (SchemaMismatch, "{url} lacks the schema of this Outlive: {error}; run `outlive db migrate`")
_REFUSED = (WriteRefused, "PostgreSQL refused the data: {error}")
_MEANINGS: dict[str, tuple[type[OutliveError], str]] = {
    "28P01": (
        UsageError,
        (
            "PostgreSQL refused the password for {url}; check user and password in the URL "
            "(PGPASSWORD and ~/.pgpass are read if it has none)"
        ),
    ),
    "28": (
        UsageError,
        "PostgreSQL does not let this user in at {url}: {error}; create the role, or allow it in pg_hba.conf",
    ),
    "3D000": (UsageError, "there is no database {name!r} at {url}; create it, for example with createdb"),
    "42501": (
        StoreReadOnly,
        (
            "the user of {url} lacks a permission: {error}; let its owner run `outlive db migrate` and grant "
            "this user USAGE on schema outlive and all rights on its tables, or grant it CREATE on the database"
        ),
    ),
    "25006": (StoreReadOnly, "PostgreSQL at {url} is read-only: {error}; connect to the primary server"),
    "53300": (
        StoreUnavailable,
        "PostgreSQL at {url} has no connection left ({error}); lower pool_size or raise max_connections",
    ),
    **dict.fromkeys(("42P01", "42703", "42883", "3F000"), _SCHEMA),
    **dict.fromkeys(("22", "23", "54", "21000"), _REFUSED),
}
# The rest was rolled back by the server: deadlock, lock or statement timeout, no disk, no memory.
_ROLLED_BACK = (StoreUnavailable, "PostgreSQL at {url} could not do it now: {error}")


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
        with self.explaining(opening=True):
            connection: Connection = await driver.connect(
                self._secret_url,
                timeout=timeout_s,
                command_timeout=command_timeout_s,
                statement_cache_size=STATEMENTS_CACHED,
                max_cached_statement_lifetime=0,
                max_cacheable_statement_size=64 * 1024,
            )
        try:
            if connection.get_server_version() < (OLDEST_SERVER,):
                raise UsageError(f"{self.url} is older than PostgreSQL {OLDEST_SERVER}, which Outlive needs")
            with self.explaining():
                await connection.execute(SESSION_SQL)
        except BaseException:
            connection.terminate()
            raise
        return connection

    @contextmanager
    def explaining(self, *, writing: bool = False, opening: bool = False) -> Iterator[None]:
        """Raise the driver's errors in the words of the seam."""
        try:
            yield
        except Exception as error:
            explained = self.explain(error, writing=writing, opening=opening)
            if explained is None:
                raise
            raise explained from error

    def explain(self, error: Exception, *, writing: bool = False, opening: bool = False) -> OutliveError | None:
        """Give what an error of a statement means in the words of the seam; None if it is none of the driver's."""
        driver = load_driver()
        if isinstance(error, OutliveError):
            return None
        if isinstance(error, driver.PostgresError):
            state: str = error.sqlstate or ""
            if (state[:2] not in LOST and state != IDLE) or state == CANCELLED:
                kind, sentence = _MEANINGS.get(state) or _MEANINGS.get(state[:2]) or _ROLLED_BACK
                if opening and state == "42501":
                    kind = UsageError
                name = urlsplit(self.url).path.lstrip("/") or "the default one"
                return kind(sentence.format(url=self.url, error=error, name=name))
        elif isinstance(error, ValueError | OverflowError):
            if opening:
                return UsageError(f"the URL {self.url} is not one that PostgreSQL understands: {error}")
            return WriteRefused(f"PostgreSQL cannot store a value: {error}")
        elif not isinstance(error, OSError | driver.InternalClientError | driver.InterfaceError):
            return None
        return self.explain_loss(error, writing=writing, opening=opening)

    def explain_loss(self, error: BaseException, *, writing: bool = False, opening: bool = False) -> StoreUnavailable:
        """Give the error of a connection that was lost, or never was."""
        text = str(error) or type(error).__name__
        if opening:
            text = f"no PostgreSQL answers at {self.url} ({text}); start it, or check host and port"
        else:
            text = f"lost the connection to PostgreSQL at {self.url}: {text}"
        return StoreUnavailable(text, outcome_unknown=writing)


async def hang_up(connection: Connection) -> None:
    """Close a connection, at once if the server does not answer."""
    driver = load_driver()
    try:
        await connection.close(timeout=CLOSE_TIMEOUT_S)
    except (OSError, driver.PostgresError, driver.InterfaceError):
        connection.terminate()
