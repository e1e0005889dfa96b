"""The store on PostgreSQL, through asyncpg: one autocommit statement per batch, fenced by one row lock."""

from __future__ import annotations

from outlive.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
