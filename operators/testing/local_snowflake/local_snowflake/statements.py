"""The statements this program runs itself, because the base program cannot, or not faithfully.

```text
 BEGIN COMMIT ROLLBACK USE      session
 CREATE ALTER DROP TRUNCATE     ddl (commits the open transaction first, as Snowflake does)
 MERGE                          DuckDB's own MERGE INTO, so it may stand inside a transaction
 DESCRIBE, SHOW COLUMNS         the columns view
```
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fakesnow.transforms.merge import operations
from sqlglot import exp

from local_snowflake import catalog
from local_snowflake.errors import error
from local_snowflake.naming import ident, literal, qualified

if TYPE_CHECKING:
    from local_snowflake.session import LocalCursor

DONE = "SELECT 'Statement executed successfully.' AS \"status\""
_DDL_KINDS = ("DATABASE", "SCHEMA", "TABLE")


@dataclass
class Outcome:
    """What a statement answers: a query that yields its result, and the rows it touched."""

    sql: str = DONE
    rows: int | None = None


def status(text: str) -> Outcome:
    """The one-line answer of DDL."""
    return Outcome(f"SELECT {literal(text)} AS \"status\"")


def normal_form(tree: exp.Expr) -> exp.Expr:
    """START TRANSACTION, which the SQL library reads as a column with an alias, as BEGIN."""
    if isinstance(tree, exp.Alias) and ident(tree.this) == "START" and tree.alias.upper() == "TRANSACTION":
        return exp.Transaction()
    return tree


def _kind(tree: exp.Expr) -> str:
    return str(tree.args.get("kind") or "").upper()


def is_session(tree: exp.Expr) -> bool:
    """Statements that name no table."""
    return isinstance(tree, (exp.Use, exp.Transaction, exp.Commit, exp.Rollback, exp.Grant)) or (
        isinstance(tree, exp.Alter) and _kind(tree) == "SESSION"
    ) or isinstance(tree, exp.Show) or isinstance(tree, (exp.Create, exp.Drop)) and _kind(tree) in ("DATABASE", "WAREHOUSE", "ROLE")


def is_ddl(tree: exp.Expr) -> bool:
    """Statements that commit the open transaction."""
    return isinstance(tree, (exp.Create, exp.Alter, exp.Drop, exp.TruncateTable)) and _kind(tree) != "SESSION"


def handles(tree: exp.Expr) -> bool:
    """Whether this module runs the statement."""
    if isinstance(tree, (exp.Use, exp.Transaction, exp.Commit, exp.Rollback, exp.Merge, exp.TruncateTable, exp.Grant)):
        return True
    if isinstance(tree, exp.Create):
        return _kind(tree) in _DDL_KINDS and not tree.find(exp.TemporaryProperty)
    if isinstance(tree, (exp.Alter, exp.Drop)):
        return _kind(tree) in (*_DDL_KINDS, "SESSION")
    if isinstance(tree, exp.Describe):
        return _kind(tree) in ("TABLE", "VIEW")
    return isinstance(tree, exp.Show) and tree.name.upper() == "COLUMNS"


def run(cursor: LocalCursor, tree: exp.Expr, params: Any) -> Outcome:
    """Runs the statement."""
    from local_snowflake import ddl

    session = cursor._conn
    if isinstance(tree, exp.Merge):
        return _merge(cursor, tree, params)
    if isinstance(tree, exp.Transaction):
        session.begin()
    elif isinstance(tree, exp.Commit):
        session.end(commit=True)
    elif isinstance(tree, exp.Rollback):
        session.end(commit=False)
    elif isinstance(tree, exp.Use):
        _use(cursor, tree)
    elif isinstance(tree, exp.Describe):
        return _describe(cursor, tree)
    elif isinstance(tree, exp.Show):
        return _show_columns(cursor, tree)
    elif is_ddl(tree):
        return ddl.run(cursor, tree)
    return Outcome()


def place(cursor: LocalCursor, table: exp.Table) -> tuple[str, str, str]:
    """Database, schema and name of a table, completed from the session."""
    session = cursor._conn
    database = ident(table.args.get("catalog")) or session.database
    schema = ident(table.args.get("db")) or session._schema
    if not database or not schema:
        raise error(90105, "22000", "Cannot perform the statement. This session does not have a current database or schema.")
    return database, schema, ident(table.this)


def missing(kind: str, *name: str) -> Exception:
    """The error for something that is not there."""
    return error(2003, "42S02", f"SQL compilation error:\n{kind} '{'.'.join(name)}' does not exist or not authorized.")


def _use(cursor: LocalCursor, tree: exp.Use) -> None:
    session, table = cursor._conn, tree.this
    kind = str(getattr(tree.args.get("kind"), "name", "") or "").upper()
    if kind == "ROLE":
        session.context.role = ident(table)
    elif kind == "WAREHOUSE":
        session.context.warehouse = ident(table)
    elif kind == "SCHEMA" or (not kind and table.args.get("db")):
        database, schema = ident(table.args.get("db")) or session.database, ident(table.this)
        if not database or schema not in session.instance.schemas(database):
            raise missing("Schema", schema)
        session.use(database, schema)
    elif kind in ("", "DATABASE"):
        database = ident(table.this)
        if database not in session.instance.databases():
            raise missing("Database", database)
        session.use(database, "PUBLIC" if "PUBLIC" in session.instance.schemas(database) else None)


def _describe(cursor: LocalCursor, tree: exp.Describe) -> Outcome:
    database, schema, name = place(cursor, tree.find(exp.Table))
    if not cursor._conn.instance.catalog.columns(database, schema, name):
        raise missing("Table", database, schema, name)
    return Outcome(
        f"""SELECT COLUMN_NAME AS "name", {catalog.TYPE_TEXT} AS "type", 'COLUMN' AS "kind",
            CASE WHEN IS_NULLABLE = 'YES' THEN 'Y' ELSE 'N' END AS "null?", COLUMN_DEFAULT AS "default",
            'N' AS "primary key", 'N' AS "unique key", NULL::VARCHAR AS "check", NULL::VARCHAR AS "expression",
            COMMENT AS "comment", NULL::VARCHAR AS "policy name", NULL::VARCHAR AS "privacy domain"
        FROM {catalog.columns_view(database)}
        WHERE TABLE_SCHEMA = {literal(schema)} AND TABLE_NAME = {literal(name)} ORDER BY ORDINAL_POSITION"""
    )


def _show_columns(cursor: LocalCursor, tree: exp.Show) -> Outcome:
    session, scope, kind = cursor._conn, tree.args.get("scope"), str(tree.args.get("scope_kind") or "").upper()
    wheres, database = ["true"], session.database
    if kind in ("TABLE", "VIEW") and scope:
        database, schema, name = place(cursor, scope)
        if not session.instance.catalog.columns(database, schema, name):
            raise missing("Table", database, schema, name)
        wheres += [f"TABLE_SCHEMA = {literal(schema)}", f"TABLE_NAME = {literal(name)}"]
    elif kind == "SCHEMA" and scope:
        database = ident(scope.args.get("db")) or database
        wheres += [f"TABLE_SCHEMA = {literal(ident(scope.this))}"]
    elif kind == "DATABASE" and scope:
        database = ident(scope.this)
    elif session.schema:
        wheres += [f"TABLE_SCHEMA = {literal(session.schema)}"]
    if like := tree.args.get("like"):
        wheres.append(f"COLUMN_NAME ILIKE {literal(like.name)}")
    if not database:
        raise error(90105, "22000", "Cannot perform SHOW COLUMNS. This session does not have a current database.")
    return Outcome(
        f"""SELECT TABLE_NAME AS "table_name", TABLE_SCHEMA AS "schema_name", COLUMN_NAME AS "column_name",
            json_object('type', CASE DATA_TYPE WHEN 'NUMBER' THEN 'FIXED' WHEN 'FLOAT' THEN 'REAL' ELSE DATA_TYPE END,
                'precision', coalesce(NUMERIC_PRECISION, 0), 'scale', coalesce(NUMERIC_SCALE, DATETIME_PRECISION, 0),
                'length', CHARACTER_MAXIMUM_LENGTH, 'nullable', IS_NULLABLE = 'YES')::VARCHAR AS "data_type",
            CASE WHEN IS_NULLABLE = 'YES' THEN 'true' ELSE 'false' END AS "null?", coalesce(COLUMN_DEFAULT, '') AS "default",
            'COLUMN' AS "kind", '' AS "expression", coalesce(COMMENT, '') AS "comment", TABLE_CATALOG AS "database_name",
            '' AS "autoincrement", NULL::VARCHAR AS "schema_evolution_record"
        FROM {catalog.columns_view(database)} WHERE {' AND '.join(wheres)}
        ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"""
    )


def _merge(cursor: LocalCursor, tree: exp.Merge, params: Any) -> Outcome:
    """MERGE through DuckDB, which also refuses a target row that several source rows match."""
    kinds = [name for name, clauses in operations(tree).items() if clauses]
    merge = cursor.translate(tree.copy(), params)
    sql = merge.sql(dialect="duckdb") + " RETURNING merge_action"
    done = cursor._duck_conn.execute(sql, params) if merge.find(exp.Placeholder) else cursor._duck_conn.execute(sql)
    counts: Counter[str] = Counter()
    for batch in done.to_arrow_reader(100_000):
        for pair in batch.column(0).value_counts().to_pylist():
            counts[str(pair["values"]).lower()] += pair["counts"]
    numbers = {"inserted": counts["insert"], "updated": counts["update"], "deleted": counts["delete"]}
    columns = ", ".join(f'{numbers[kind]}::BIGINT AS "number of rows {kind}"' for kind in kinds)
    return Outcome(f"SELECT {columns}", sum(numbers.values()))


def sql_name(cursor: LocalCursor, table: exp.Table) -> str:
    """The table's full, quoted name."""
    return qualified(*place(cursor, table))
