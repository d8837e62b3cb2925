"""CREATE, ALTER, DROP and TRUNCATE: DuckDB's objects and the declared types, in one transaction.

Guarantees: PRIMARY KEY, UNIQUE and FOREIGN KEY are accepted and not enforced, NOT NULL is; a type
change that Snowflake refuses is refused; a dropped, replaced or renamed table loses its channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import duckdb
from sqlglot import exp

from local_snowflake import catalog
from local_snowflake.contention import Attempts
from local_snowflake.errors import error, is_conflict, unsupported
from local_snowflake.naming import ident, qualified, quote
from local_snowflake.statements import DONE, Outcome, missing, place, status
from local_snowflake.types import Column, SfType

if TYPE_CHECKING:
    from local_snowflake.session import LocalCursor


def run(cursor: LocalCursor, tree: exp.Expr) -> Outcome:
    """Runs a DDL statement."""
    kind = str(tree.args.get("kind") or "").upper()
    if isinstance(tree, exp.TruncateTable):
        return _truncate(cursor, tree)
    if isinstance(tree, exp.Alter):
        return _alter(cursor, tree)
    actions = {
        (exp.Create, "DATABASE"): _create_database,
        (exp.Create, "SCHEMA"): _create_schema,
        (exp.Create, "TABLE"): _create_table,
        (exp.Drop, "DATABASE"): _drop_database,
        (exp.Drop, "SCHEMA"): _drop_schema,
        (exp.Drop, "TABLE"): _drop_table,
    }
    return actions[type(tree), kind](cursor, tree)


def _atomic(cursor: LocalCursor, work: Callable[[], None]) -> None:
    """Runs work in a transaction, after those who lost before, again when a concurrent one got in the way; drops cached columns."""
    conn, instance = cursor._duck_conn, cursor._conn.instance
    instance.losers.go_first()
    attempts = Attempts()
    while True:
        conn.begin()
        try:
            work()
            conn.commit()
            break
        except duckdb.Error as problem:
            try:
                conn.rollback()
            except duckdb.Error:
                pass  # the failed commit ended the transaction
            if not is_conflict(problem) or not attempts.again():
                raise
        except BaseException:
            conn.rollback()
            raise
    instance.catalog.changed()


def _lose_channels(cursor: LocalCursor, database: str, schema: str, table: str | None = None) -> None:
    for tell in cursor._conn.instance.on_table_gone:
        tell(database, schema, table)


def _create_database(cursor: LocalCursor, tree: exp.Create) -> Outcome:
    name, session = ident(tree.this), cursor._conn
    if not session.instance.create_database(name):
        if not tree.args.get("exists"):
            raise error(2002, "42710", f"SQL compilation error:\nObject '{name}' already exists.")
        return status(f"{name} already exists, statement succeeded.")
    session.instance.catalog.changed()
    session.use(name, "PUBLIC")
    return status(f"Database {name} successfully created.")


def _schema_place(cursor: LocalCursor, table: exp.Table) -> tuple[str, str]:
    database = ident(table.args.get("catalog")) or cursor._conn.database
    if not database:
        raise error(90105, "22000", "Cannot perform the statement. This session does not have a current database.")
    return database, ident(table.args.get("db"))


def _create_schema(cursor: LocalCursor, tree: exp.Create) -> Outcome:
    database, schema = _schema_place(cursor, tree.find(exp.Table))
    if not cursor._conn.instance.create_schema(database, schema):
        if not tree.args.get("exists"):
            raise error(2002, "42710", f"SQL compilation error:\nObject '{schema}' already exists.")
        return status(f"{schema} already exists, statement succeeded.")
    cursor._conn.use(database, schema)
    return status(f"Schema {schema} successfully created.")


def _column(cursor: LocalCursor, node: exp.ColumnDef) -> Column:
    name = ident(node.this)
    kind = SfType.of_node(node.kind) if isinstance(node.kind, exp.DataType) else None
    if kind is None:
        raise unsupported(f"the type of column {name}: {node.kind}")
    if kind.kind == "NUMBER" and not 1 <= (kind.precision or 38) <= 38:
        raise error(2047, "42601", f"SQL compilation error:\ninvalid precision of NUMBER in column {name}")
    nullable, default = True, None
    for constraint in node.args.get("constraints") or []:
        rule = constraint.args.get("kind")
        if isinstance(rule, exp.NotNullColumnConstraint):
            nullable = bool(rule.args.get("allow_null"))
        elif isinstance(rule, exp.DefaultColumnConstraint):
            default = cursor.translate(exp.select(rule.this.copy())).expressions[0].sql(dialect="duckdb")
    return Column(name, kind, nullable, default)


def _column_sql(column: Column) -> str:
    tail = "" if column.nullable else " NOT NULL"
    return f"{quote(column.name)} {column.type.duckdb()}{tail}" + (f" DEFAULT {column.default}" if column.default else "")


def _create_table(cursor: LocalCursor, tree: exp.Create) -> Outcome:
    database, schema, name = place(cursor, tree.find(exp.Table))
    target, instance = qualified(database, schema, name), cursor._conn.instance
    existing = instance.catalog.columns(database, schema, name)
    if existing and tree.args.get("exists"):
        return status(f"{name} already exists, statement succeeded.")
    replace = bool(tree.args.get("replace"))
    if existing and not replace:
        raise error(2002, "42710", f"SQL compilation error:\nObject '{name}' already exists.")
    nodes = [node for node in (tree.this.expressions if isinstance(tree.this, exp.Schema) else []) if isinstance(node, exp.ColumnDef)]
    columns = [_column(cursor, node) for node in nodes if node.args.get("kind")]
    create, fill = "", None
    like = tree.find(exp.LikeProperty) or tree.args.get("clone")
    if like is not None:
        source = place(cursor, like.find(exp.Table))
        columns = instance.catalog.columns(*source) or []
        if not columns:
            raise missing("Table", *source)
        if isinstance(like, exp.Clone):
            fill = f"INSERT INTO {target} SELECT * FROM {qualified(*source)}"
    elif tree.expression is not None:
        query = cursor.translate(tree.copy()).expression.sql(dialect="duckdb")
        create = f"CREATE TABLE {target} AS {query}"
    create = create or f"CREATE TABLE {target} ({', '.join(map(_column_sql, columns))})"

    def work() -> None:
        if replace:
            cursor._duck_conn.execute(f"DROP TABLE IF EXISTS {target}")
        catalog.forget(cursor._duck_conn, database, schema, name)
        cursor._duck_conn.execute(create)
        if fill:
            cursor._duck_conn.execute(fill)
        catalog.declare(cursor._duck_conn, database, schema, name, columns)

    if database not in instance.databases() or schema not in instance.schemas(database):
        raise missing("Schema", database, schema)
    if existing:
        _lose_channels(cursor, database, schema, name)
    try:
        _atomic(cursor, work)
    except duckdb.CatalogException as problem:
        if "already exists" not in str(problem):
            raise
        # Another session made it in the meantime.
        instance.catalog.changed()
        if not tree.args.get("exists"):
            raise error(2002, "42710", f"SQL compilation error:\nObject '{name}' already exists.") from problem
        return status(f"{name} already exists, statement succeeded.")
    return status(f"Table {name} successfully created.")


def _drop_database(cursor: LocalCursor, tree: exp.Drop) -> Outcome:
    name, session = ident(tree.find(exp.Table)), cursor._conn
    if session.database == name:
        session._duck_conn.execute("SET schema = 'memory.main'")
        session.database = session._schema = None
        session.database_set = session.schema_set = False
    if not session.instance.drop_database(name) and not tree.args.get("exists"):
        raise missing("Database", name)
    return status(f"{name} successfully dropped.")


def _drop_schema(cursor: LocalCursor, tree: exp.Drop) -> Outcome:
    database, schema = _schema_place(cursor, tree.find(exp.Table))
    if schema not in cursor._conn.instance.schemas(database):
        if tree.args.get("exists"):
            return status("Drop statement executed successfully.")
        raise missing("Schema", database, schema)
    if cursor._conn.schema == schema and cursor._conn.database == database:
        cursor._conn.use(database, None)
    _lose_channels(cursor, database, schema)

    def work() -> None:
        cursor._duck_conn.execute(f"DROP SCHEMA {qualified(database, schema)} CASCADE")
        catalog.forget(cursor._duck_conn, database, schema, None)

    _atomic(cursor, work)
    return status(f"{schema} successfully dropped.")


def _drop_table(cursor: LocalCursor, tree: exp.Drop) -> Outcome:
    database, schema, name = place(cursor, tree.find(exp.Table))
    if not cursor._conn.instance.catalog.columns(database, schema, name):
        if tree.args.get("exists"):
            return status("Drop statement executed successfully.")
        raise missing("Table", database, schema, name)
    _lose_channels(cursor, database, schema, name)

    def work() -> None:
        cursor._duck_conn.execute(f"DROP TABLE {qualified(database, schema, name)}")
        catalog.forget(cursor._duck_conn, database, schema, name)

    _atomic(cursor, work)
    return status(f"{name} successfully dropped.")


def _truncate(cursor: LocalCursor, tree: exp.TruncateTable) -> Outcome:
    database, schema, name = place(cursor, tree.find(exp.Table))
    if not cursor._conn.instance.catalog.columns(database, schema, name):
        if tree.args.get("exists"):
            return Outcome(DONE)
        raise missing("Table", database, schema, name)
    cursor._duck_conn.execute(f"DELETE FROM {qualified(database, schema, name)}")
    return Outcome(DONE)


def _alter(cursor: LocalCursor, tree: exp.Alter) -> Outcome:
    from local_snowflake import alter

    table = tree.this
    if str(tree.args.get("kind")).upper() != "TABLE" or not isinstance(table, exp.Table):
        return Outcome(DONE)
    where = place(cursor, table)
    columns = cursor._conn.instance.catalog.columns(*where)
    if not columns:
        if tree.args.get("exists"):
            return Outcome(DONE)
        raise missing("Table", *where)
    plan = alter.plan(cursor, where, columns, tree.args.get("actions") or [], _column)
    if plan.loses_channels:
        _lose_channels(cursor, *where)
    _atomic(cursor, lambda: [step() for step in plan.steps])
    return Outcome(DONE)
