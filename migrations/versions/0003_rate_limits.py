"""Rate limits that all executors share, what a run waits for, and where the price of a model call comes from.

A shipped migration never changes. Plain `op` calls with comments, never the tables of `timestep.store`: they go
on, this file stays.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "timestep"


def upgrade() -> None:
    """Add the table of rate limits, and columns to `runs` and `usage`."""
    op.create_table(
        "rate_limits",
        sa.Column("key", sa.Text(), nullable=False,
                  comment="What is limited: a model's name, a provider's prefix or a host as configured; or model@host."),
        sa.Column("requests_free_at", sa.DateTime(timezone=True), nullable=True,
                  comment="When the requests taken so far are made up for; a burst may run ahead of it."),
        sa.Column("tokens_free_at", sa.DateTime(timezone=True), nullable=True,
                  comment="When the tokens taken so far are made up for; a burst may run ahead of it."),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=True,
                  comment="Until when the provider wants no call, as its Retry-After has said."),
        sa.PrimaryKeyConstraint("key"),
        schema=SCHEMA,
        comment="Rate limits of model calls, shared by all executors.",
    )  # fmt: skip
    _add("runs", sa.Column("waits_for", sa.Text(), nullable=True,
                           comment="Rate limit that a model call of the running run waits for."))  # fmt: skip
    _add("runs", sa.Column("waits_since", sa.DateTime(timezone=True), nullable=True,
                           comment="Since when it waits for it."))  # fmt: skip
    _add("usage", sa.Column("price_source", sa.Text(), nullable=True,
                            comment="Price data and their version, or `local`; null when the price is unknown."))  # fmt: skip
    _add("usage", sa.Column("priced_at", sa.Date(), nullable=True,
                            comment="Day on which these data say that they were checked."))  # fmt: skip


def downgrade() -> None:
    """Forward only."""
    raise NotImplementedError("Timestep's migrations go forward only; restore a backup instead.")


def _add(table: str, column: sa.Column) -> None:
    op.add_column(table, column, schema=SCHEMA)
