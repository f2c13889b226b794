"""The store's statements, each built once: building one costs SQLAlchemy several times what running it does.

`dialect` is `sqlite` or `postgresql`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Delete, Select, Table, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import Insert

from lepton_server.store import tables as t


def _insert(dialect: str, table: Table) -> Any:
    """The dialect's own INSERT, which can say what to do about a row that is there."""
    return (postgresql.insert if dialect == "postgresql" else sqlite.insert)(table)


@cache
def put(dialect: str, table: Table) -> Insert:
    """Insert, or replace the row with this primary key; parameters: every column."""
    adding = _insert(dialect, table)
    keys = [column.name for column in table.primary_key]
    others = {column.name: adding.excluded[column.name] for column in table.columns if column.name not in keys}
    made: Insert = adding.on_conflict_do_update(index_elements=keys, set_=others)
    return made


@cache
def add(dialect: str, table: Table) -> Insert:
    """Insert and give the key, or give nothing if a row with this primary key is there; parameters: every column."""
    key = next(iter(table.primary_key))
    made: Insert = _insert(dialect, table).on_conflict_do_nothing().returning(key)
    return made


@cache
def one(table: Table, *columns: str) -> Select[Any]:
    """The row with these columns; parameters: the columns."""
    return select(table).where(*(table.c[name] == bindparam(name) for name in columns))


@cache
def documents(table: Table, order: str) -> Select[Any]:
    """The views of a job above a number, in order; parameters: job, above."""
    column = table.c[order]
    return select(table.c.view).where(table.c.job == bindparam("job"), column > bindparam("above")).order_by(column)


@cache
def append_entry() -> Insert:
    """A journal entry behind the job's last; parameters: job, entry."""
    behind = func.coalesce(func.max(t.journal.c.position), -1) + 1
    entry = select(
        bindparam("job", type_=t.journal.c.job.type), behind, bindparam("entry", type_=t.journal.c.entry.type)
    ).where(t.journal.c.job == bindparam("job"))
    return t.journal.insert().from_select(["job", "position", "entry"], entry)


@cache
def journal() -> Select[Any]:
    """A job's entries in order; parameters: job."""
    return select(t.journal.c.entry).where(t.journal.c.job == bindparam("job")).order_by(t.journal.c.position)


@cache
def empty_journal() -> Delete:
    """Forget a job's entries; parameters: job_id, as `job` would name a column to set."""
    return delete(t.journal).where(t.journal.c.job == bindparam("job_id"))


@cache
def insert_audit() -> Insert:
    """A row of the audit chain; parameters: every column."""
    return t.audit.insert()


@cache
def last_audit() -> Select[Any]:
    """The end of the audit chain."""
    return select(t.audit).order_by(t.audit.c.sequence.desc()).limit(1)
