"""The tables of the first federation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "party",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("member", sa.LargeBinary, nullable=True),
        sa.Column("identity", sa.LargeBinary, nullable=False),
        sa.Column("enrolled", sa.Double, nullable=False),
        sa.Column("certificate", sa.String(64), nullable=False),
        sa.Column("certificate_expires", sa.Double, nullable=False),
        sa.Column("revoked", sa.Boolean, nullable=False),
    )
    op.create_index("party_by_member", "party", ["member"], unique=True)
    op.create_table(
        "invitation",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("bootstrap_serial", sa.String(64), nullable=False),
        sa.Column("used", sa.Boolean, nullable=False),
    )
    op.create_table(
        "membership",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("signed", sa.LargeBinary, nullable=False),
    )
    op.create_index("membership_by_version", "membership", ["version"])
    _create_job_tables()
    op.create_table(
        "audit",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )


def _create_job_tables() -> None:
    op.create_table(
        "job",
        sa.Column("job", sa.String(63), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("submitted", sa.Double, nullable=False),
        sa.Column("membership", sa.String(64), nullable=False),
        sa.Column("canonical", sa.LargeBinary, nullable=False),
        sa.Column("view", sa.Text, nullable=False),
    )
    op.create_index("job_by_state", "job", ["state", "submitted"])
    for table, key in (("round", "number"), ("event", "sequence")):
        op.create_table(
            table,
            sa.Column("job", sa.String(63), primary_key=True),
            sa.Column(key, sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("view", sa.Text, nullable=False),
        )
    op.create_table(
        "model",
        sa.Column("job", sa.String(63), primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("view", sa.Text, nullable=False),
    )
    op.create_index("model_by_digest", "model", ["digest"])
    op.create_table(
        "journal",
        sa.Column("job", sa.String(63), primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "checkpoint",
        sa.Column("job", sa.String(63), primary_key=True),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Remove the tables, and every row with them."""
    for table in (
        "checkpoint",
        "journal",
        "event",
        "model",
        "round",
        "job",
        "audit",
        "membership",
        "invitation",
        "party",
    ):
        op.drop_table(table)
