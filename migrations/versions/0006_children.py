"""Runs that runs have started are found by their parent.

A shipped migration never changes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        "runs_by_parent",
        "runs",
        ["parent_run_id"],
        schema="timestep",
        postgresql_where=sa.text("parent_run_id is not null"),
    )


def downgrade() -> None:
    """Forward only."""
    raise NotImplementedError("Timestep's migrations go forward only; restore a backup instead.")
