"""Executors: the queues that each one listens to, and the application version that a run was adopted from.

A shipped migration never changes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SCHEMA = "timestep"


def upgrade() -> None:
    """Add the columns."""
    op.add_column(
        "executors",
        sa.Column("queues", sa.JSON(), nullable=True, comment="Queues that it takes runs from; null for all of them."),
        schema=SCHEMA,
    )
    op.add_column(
        "runs",
        sa.Column(
            "adopted_from",
            sa.Text(),
            nullable=True,
            comment="Application version that began the journal of the newest segment, when another one goes on with it.",
        ),
        schema=SCHEMA,
    )


def downgrade() -> None:
    """Forward only."""
    raise NotImplementedError("Timestep's migrations go forward only; restore a backup instead.")
