"""The database's tables: key columns to find a row by, and the view itself as one JSON document.

docs/data-model.md follows a round through them. `migrations/` makes them; a test holds the two equal.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

#: The migration that makes exactly these tables.
REVISION = "0003"

metadata = MetaData()

#: People and daemons with a certificate.
party = Table(
    "party",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("role", String(20), nullable=False),
    Column("member", LargeBinary, nullable=True),
    Column("identity", LargeBinary, nullable=False),
    Column("enrolled", Double, nullable=False),
    Column("certificate", String(64), nullable=False),
    Column("certificate_expires", Double, nullable=False),
    Column("revoked", Boolean, nullable=False),
    Index("party_by_member", "member", unique=True),
)

#: Invitations by the hash of their token.
invitation = Table(
    "invitation",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("role", String(20), nullable=False),
    Column("expires", Double, nullable=False),
    Column("bootstrap_serial", String(64), nullable=False),
    Column("used", Boolean, nullable=False),
)

#: Signed membership lists, carried for the federation.
membership = Table(
    "membership",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("signed", LargeBinary, nullable=False),
    Index("membership_by_version", "version"),
)

job = Table(
    "job",
    metadata,
    Column("job", String(63), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("submitted", Double, nullable=False),
    Column("membership", String(64), nullable=False),
    Column("canonical", LargeBinary, nullable=False),
    Column("view", Text, nullable=False),
    Index("job_by_state", "state", "submitted"),
)

#: Rounds of secure aggregation.
round_ = Table(
    "round",
    metadata,
    Column("job", String(63), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("view", Text, nullable=False),
)

model = Table(
    "model",
    metadata,
    Column("job", String(63), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("view", Text, nullable=False),
    Index("model_by_digest", "digest"),
)

#: What watchers of a job are told.
event = Table(
    "event",
    metadata,
    Column("job", String(63), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("view", Text, nullable=False),
)

#: Events of a job's state machine since its checkpoint; replaying them gives its state.
journal = Table(
    "journal",
    metadata,
    Column("job", String(63), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("job", String(63), primary_key=True),
    Column("state", LargeBinary, nullable=False),
)

#: The newest place of each owner's privacy ledger that its identity has signed.
anchor = Table(
    "anchor",
    metadata,
    Column("member", LargeBinary, primary_key=True),
    Column("name", String(63), nullable=False),
    Column("identity", LargeBinary, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("time", Double, nullable=False),
    Column("behind", BigInteger, nullable=False),
    Column("behind_since", Double, nullable=False),
)

#: Published ontology versions; their statements lie in files.
ontology_version = Table(
    "ontology_version",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("published", Double, nullable=False),
    Column("view", Text, nullable=False),
)

#: Who vouches for an ontology version.
ontology_approval = Table(
    "ontology_approval",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("approver", String(63), primary_key=True),
    Column("view", Text, nullable=False),
)

#: The hash chain of decisions.
audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
)
