"""Runs that wait for the code of their configuration are found as those that wait for their agent.

A shipped migration never changes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the index; executors of the release before use it too."""
    op.drop_index("runs_waiting_for_agents", "runs", schema="timestep")
    op.create_index(
        "runs_waiting_for_agents",
        "runs",
        ["agent"],
        schema="timestep",
        postgresql_where=sa.text(
            "status = 'interrupted' and reason in ('agent_not_registered', 'configuration_missing')"
        ),
    )


def downgrade() -> None:
    """Forward only."""
    raise NotImplementedError("Timestep's migrations go forward only; restore a backup instead.")
