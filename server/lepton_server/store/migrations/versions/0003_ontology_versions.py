"""Ontology versions and who vouches for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "ontology_version",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("published", sa.Double, nullable=False),
        sa.Column("view", sa.Text, nullable=False),
    )
    op.create_table(
        "ontology_approval",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("approver", sa.String(63), primary_key=True),
        sa.Column("view", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Remove the tables, and every row with them."""
    for table in ("ontology_approval", "ontology_version"):
        op.drop_table(table)
