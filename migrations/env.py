"""Alembic's entry: runs the migrations on the connection that `timestep.store.migrations` passes in."""

from __future__ import annotations

from alembic import context
from alembic.util import CommandError

from timestep.ids import SCHEMA


def run_migrations() -> None:
    """Run inside the caller's transaction, which holds the lock and commits."""
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise CommandError("The migrations need Timestep's connection: run `timestep db migrate`.")
    context.configure(connection=connection, version_table_schema=SCHEMA)
    with context.begin_transaction():
        context.run_migrations()


run_migrations()
