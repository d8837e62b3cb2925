"""ALTER TABLE: each action as steps that run in one transaction.

Guarantees: adding a column that exists is an error unless IF NOT EXISTS; names compare exactly, as
quoted Snowflake identifiers do; only the type changes that Snowflake allows are allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlglot import exp

from local_snowflake import catalog
from local_snowflake.errors import error, unsupported
from local_snowflake.naming import ident, qualified, quote
from local_snowflake.statements import place
from local_snowflake.types import Column, SfType

if TYPE_CHECKING:
    from local_snowflake.session import LocalCursor


@dataclass
class Plan:
    """The steps of one ALTER TABLE, and whether the table gets another name."""

    steps: list[Callable[[], object]] = field(default_factory=list)
    loses_channels: bool = False


def plan(
    cursor: LocalCursor,
    where: tuple[str, str, str],
    columns: list[Column],
    actions: list[exp.Expr],
    read_column: Callable[[LocalCursor, exp.ColumnDef], Column],
) -> Plan:
    """The steps for the actions of one statement."""
    result, known = Plan(), {column.name: column for column in columns}
    for action in actions:
        if isinstance(action, exp.ColumnDef):
            _add(cursor, where, known, action, read_column, result)
        elif isinstance(action, exp.Drop):
            _drop(cursor, where, known, action, result)
        elif isinstance(action, exp.RenameColumn):
            _rename_column(cursor, where, known, action, result)
        elif isinstance(action, exp.AlterColumn):
            _change(cursor, where, known, action, result)
        elif isinstance(action, exp.AlterRename):
            _rename_table(cursor, where, list(known.values()), action, result)
        elif isinstance(action, (exp.AlterSet, exp.AddConstraint, exp.Cluster, exp.ClusterProperty)):
            continue  # properties, unenforced constraints and clustering change nothing here
        else:
            raise unsupported(f"ALTER TABLE … {action.sql(dialect='snowflake')}")
    return result


def _sql(cursor: LocalCursor, text: str) -> Callable[[], object]:
    return lambda: cursor._duck_conn.execute(text)


def _need(known: dict[str, Column], name: str) -> Column:
    if name not in known:
        raise error(904, "42000", f"SQL compilation error:\ncolumn '{name}' does not exist")
    return known[name]


def _add(cursor, where, known, action, read_column, result) -> None:
    column, table = read_column(cursor, action), qualified(*where)
    if column.name in known:
        if action.args.get("exists"):
            return
        raise error(1430, "42601", f"SQL compilation error:\ncolumn '{column.name}' already exists")
    known[column.name] = column
    default = f" DEFAULT {column.default}" if column.default else ""
    result.steps.append(_sql(cursor, f"ALTER TABLE {table} ADD COLUMN {quote(column.name)} {column.type.duckdb()}{default}"))
    if not column.nullable:
        if not column.default and cursor._duck_conn.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():
            raise error(
                2262, "22000",
                f"SQL compilation error:\nNon-nullable column '{column.name}' cannot be added to non-empty table without default",
            )
        result.steps.append(_sql(cursor, f"ALTER TABLE {table} ALTER COLUMN {quote(column.name)} SET NOT NULL"))
    result.steps.append(lambda: catalog.declare(cursor._duck_conn, *where, [column]))


def _drop(cursor, where, known, action, result) -> None:
    named = action.args.get("tables") or [action.this]
    for name in [ident(node) for node in named]:
        if name not in known and action.args.get("exists"):
            continue
        _need(known, name)
        del known[name]
        result.steps.append(_sql(cursor, f"ALTER TABLE {qualified(*where)} DROP COLUMN {quote(name)}"))
        result.steps.append(lambda name=name: catalog.forget(cursor._duck_conn, *where, name))


def _rename_column(cursor, where, known, action, result) -> None:
    old, new = ident(action.this), ident(action.args["to"])
    column = _need(known, old)
    if new in known:
        raise error(1430, "42601", f"SQL compilation error:\ncolumn '{new}' already exists")
    renamed = Column(new, column.type, column.nullable, column.default)
    known[new] = known.pop(old) and renamed
    result.steps.append(_sql(cursor, f"ALTER TABLE {qualified(*where)} RENAME COLUMN {quote(old)} TO {quote(new)}"))
    result.steps.append(lambda: catalog.forget(cursor._duck_conn, *where, old))
    result.steps.append(lambda: catalog.declare(cursor._duck_conn, *where, [renamed]))


def _change(cursor, where, known, action, result) -> None:
    column = _need(known, ident(action.this))
    head = f"ALTER TABLE {qualified(*where)} ALTER COLUMN {quote(column.name)}"
    if node := action.args.get("dtype"):
        new = SfType.of_node(node)
        if new is None or column.type.refuses_change_to(new):
            raise error(
                2108, "22000",
                f"SQL compilation error: cannot change column {column.name} from type {column.type} to {new or node}",
            )
        changed = Column(column.name, new, column.nullable, column.default)
        known[column.name] = changed
        if new.duckdb() != column.type.duckdb():
            result.steps.append(_sql(cursor, f"{head} SET DATA TYPE {new.duckdb()}"))
        result.steps.append(lambda: catalog.declare(cursor._duck_conn, *where, [changed]))
    elif action.args.get("allow_null") is not None:
        result.steps.append(_sql(cursor, f"{head} {'DROP' if action.args.get('drop') else 'SET'} NOT NULL"))
    elif action.args.get("drop"):
        result.steps.append(_sql(cursor, f"{head} DROP DEFAULT"))
    elif default := action.args.get("default"):
        result.steps.append(_sql(cursor, f"{head} SET DEFAULT {default.sql(dialect='duckdb')}"))


def _rename_table(cursor, where, columns, action, result) -> None:
    database, schema, new = place(cursor, action.this)
    if (database, schema) != where[:2]:
        raise unsupported("ALTER TABLE … RENAME TO another schema")
    if cursor._conn.instance.catalog.columns(database, schema, new):
        raise error(2002, "42710", f"SQL compilation error:\nObject '{new}' already exists.")
    result.loses_channels = True
    result.steps.append(_sql(cursor, f"ALTER TABLE {qualified(*where)} RENAME TO {quote(new)}"))
    result.steps.append(lambda: catalog.forget(cursor._duck_conn, *where))
    result.steps.append(lambda: catalog.declare(cursor._duck_conn, database, schema, new, columns))
