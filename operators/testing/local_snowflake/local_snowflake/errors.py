"""DuckDB's errors as the Snowflake errors that clients know: number, SQL state, message."""

from __future__ import annotations

import duckdb
from snowflake.connector.errors import ProgrammingError

CONFLICT = 625
"""Statement aborted by another transaction; a retry may succeed."""


def error(number: int, state: str, message: str) -> ProgrammingError:
    """A Snowflake error, to raise."""
    return ProgrammingError(msg=message, errno=number, sqlstate=state)


def unsupported(what: str) -> ProgrammingError:
    """A statement that this stand-in does not implement."""
    return error(2, "0A000", f"Unsupported feature '{what}' in the local Snowflake")


def is_conflict(problem: BaseException) -> bool:
    """Whether the statement lost against a concurrent transaction and may simply run again."""
    if isinstance(problem, duckdb.Error):
        text = str(problem).lower()
        return any(sign in text for sign in ("conflict", "another transaction", "concurrent transaction"))
    return isinstance(problem, ProgrammingError) and problem.errno == CONFLICT


def from_duckdb(problem: duckdb.Error) -> ProgrammingError:
    """The Snowflake error for a DuckDB one."""
    text = str(problem).split("\n")[0]
    if is_conflict(problem):
        return error(CONFLICT, "57014", text)
    if isinstance(problem, duckdb.ConstraintException):
        return error(100072, "22000", f"NULL result in a non-nullable column ({text})")
    if isinstance(problem, duckdb.CatalogException):
        return error(2003, "42S02", f"SQL compilation error:\n{text}")
    if isinstance(problem, duckdb.BinderException):
        return error(904, "42000", f"SQL compilation error:\n{text}")
    if isinstance(problem, duckdb.ParserException):
        return error(1003, "42000", f"SQL compilation error:\n{text}")
    if isinstance(problem, duckdb.ConversionException):
        return error(100038, "22018", text)
    if isinstance(problem, duckdb.OutOfRangeException):
        return error(100132, "22003", text)
    if isinstance(problem, duckdb.InvalidInputException) and "same target row more than once" in text:
        return error(100090, "42P18", "Duplicate row detected during DML action")
    if isinstance(problem, duckdb.InterruptException):
        return error(604, "57014", "SQL execution canceled")
    return error(100183, "22000", f"{type(problem).__name__}: {text}")
