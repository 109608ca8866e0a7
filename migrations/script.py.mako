"""${message}.

A shipped migration never changes. Write plain `op` calls with comments, never the tables of `timestep.store`:
they go on, this file stays.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None

SCHEMA = "timestep"


def upgrade() -> None:
    """${message}."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Forward only."""
    raise NotImplementedError("Timestep's migrations go forward only; restore a backup instead.")
