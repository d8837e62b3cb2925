"""A session: a connection and its cursor, as the base program's routes and the SQL API use them.

Guarantees: every failure is a Snowflake error, never a server fault; DDL commits the open
transaction first; a statement outside a transaction that loses against a concurrent one runs again.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Sequence
from typing import Any

import duckdb
import snowflake.connector.errors as sf
from fakesnow.conn import FakeSnowflakeConnection
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.dialect import parse_one
from sqlglot import exp
from sqlglot.errors import SqlglotError

from local_snowflake import dialect, errors, statements
from local_snowflake.contention import Attempts
from local_snowflake.dialect import Context
from local_snowflake.instance import Instance
from local_snowflake.naming import literal, qualified

warnings.filterwarnings("ignore", message="Arrow output on a DB-API result")


class Session(FakeSnowflakeConnection):
    """A connection with a current database and schema, and a transaction of its own."""

    def __init__(
        self, instance: Instance, database: str | None = None, schema: str | None = None, context: Context | None = None, **kwargs: Any
    ) -> None:
        super().__init__(instance.cursor(), instance.results_cache, None, None, **kwargs)
        self.instance = instance
        self.context = context or Context()
        self.ddl_committed = False
        if database and database in instance.databases():
            self.use(database, schema if schema and schema in instance.schemas(database) else None)

    def use(self, database: str, schema: str | None) -> None:
        """Makes a database, and a schema of it, current."""
        self._duck_conn.execute(f"SET schema = {literal(qualified(database, schema or 'main'))}")
        self.database, self.database_set = database, True
        self._schema, self.schema_set = schema, schema is not None

    def cursor(self, cursor_class: type = object) -> LocalCursor:
        return LocalCursor(self, self._duck_conn, use_dict_result=False)

    def in_transaction(self) -> bool:
        """Whether BEGIN ran without COMMIT or ROLLBACK."""
        return self._in_transaction

    def begin(self) -> None:
        """Opens a transaction unless one is open."""
        if not self._in_transaction:
            self._duck_conn.begin()
            self._in_transaction = True

    def end(self, commit: bool) -> None:
        """Closes the open transaction, if any."""
        if self._in_transaction:
            self._in_transaction = False
            self._duck_conn.commit() if commit else self._duck_conn.rollback()


class LocalCursor(FakeSnowflakeCursor):
    """Runs one statement: those of `statements` itself, the others through the base program."""

    _conn: Session

    def execute(self, command: str, params: Sequence[Any] | dict | None = None, *args: Any, **kwargs: Any) -> LocalCursor:
        try:
            tree = parse_one(command)
        except sf.ProgrammingError:
            raise
        except Exception as problem:
            raise errors.error(1003, "42000", f"SQL compilation error:\n{problem}") from None
        values = kwargs.get("binding_params") or params
        return self.run(tree, values)

    def run(self, tree: exp.Expr, params: Sequence[Any] | dict | None = None) -> LocalCursor:
        """Runs a parsed statement, again when it lost against a concurrent transaction."""
        original = tree.copy()
        attempts = Attempts()
        while True:
            try:
                return self._run(tree, params)
            except sf.Error as problem:
                inside = self._conn.in_transaction()
                if errors.is_conflict(problem) and not inside and attempts.again():
                    tree = original.copy()
                    continue
                retry = original.copy()
                if problem.errno == 100038 and not inside:
                    bound = [dialect.spaced_offset(value) for value in params] if isinstance(params, (list, tuple)) else params
                    if dialect.spaced_offsets(retry) or bound != params and bound != list(params or ()):
                        return self._run(retry, bound)
                raise

    def _run(self, tree: exp.Expr, params: Sequence[Any] | dict | None) -> LocalCursor:
        try:
            values = list(params) if isinstance(params, tuple) else params
            tree = statements.normal_form(tree)
            if not statements.is_session(tree):
                self.check_db_and_schema(tree)
            for statement in self._transform_explode(tree):
                transformed = self._transform(statement, values)
                self._execute(transformed, values if transformed.find(exp.Placeholder) else None)
            return self
        except sf.Error:
            raise
        except duckdb.Error as problem:
            raise errors.from_duckdb(problem) from None
        except SqlglotError as problem:
            raise errors.error(1003, "42000", f"SQL compilation error:\n{problem}") from None
        except Exception as problem:
            raise errors.unsupported(f"{type(problem).__name__}: {problem}") from problem

    def _transform_explode(self, expression: exp.Expr) -> list[exp.Expr]:
        if statements.handles(expression):
            return [expression]
        return super()._transform_explode(dialect.rewrite(expression, self._conn.context))

    def _transform(self, expression: exp.Expr, params: Any) -> exp.Expr:
        if statements.handles(expression):
            return expression
        return super()._transform(expression, params)

    def translate(self, expression: exp.Expr, params: Any = None) -> exp.Expr:
        """The whole translation of an expression to DuckDB."""
        return super()._transform(dialect.rewrite(expression, self._conn.context), params)

    def _describe_last_sql(self) -> list:
        """The columns of the last result, from DuckDB itself: its SQL is not always SQL that the parser reads."""
        return self._duck_conn.execute(f"DESCRIBE {self._last_sql}", self._last_params).fetchall()

    def _execute(self, transformed: exp.Expr, params: Any = None) -> None:
        if not statements.handles(transformed):
            try:
                return super()._execute(transformed, params)
            except sf.Error as problem:
                if isinstance(problem.__cause__, duckdb.Error):
                    raise errors.from_duckdb(problem.__cause__) from None
                raise
        self._arrow_table, self._arrow_table_fetch_index, self._rowcount = None, None, None
        if statements.is_ddl(transformed):
            self._conn.end(commit=True)
            self._conn.ddl_committed = True
        outcome = statements.run(self, transformed, params)
        self._duck_conn.execute(outcome.sql)
        self._arrow_table = self._duck_conn.to_arrow_table()
        self._rowcount = self._arrow_table.num_rows if outcome.rows is None else outcome.rows
        self._sfqid = str(uuid.uuid4())
        self._last_sql, self._last_params, self._last_transformed = outcome.sql, None, transformed
        self._conn.results_cache[self._sfqid] = (
            self._arrow_table, self._rowcount, self._last_sql, self._last_params, self._last_transformed,
        )
