"""Where owners' privacy ledgers stand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "anchor",
        sa.Column("member", sa.LargeBinary, primary_key=True),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("identity", sa.LargeBinary, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("behind", sa.BigInteger, nullable=False),
        sa.Column("behind_since", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """Remove the table: members tell where their ledgers stand when they connect again."""
    op.drop_table("anchor")
