"""Identifiers: how Snowflake folds them, and how DuckDB wants them quoted."""

from __future__ import annotations

from sqlglot import exp


def quote(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def fold(name: str) -> str:
    """A name as written in a request: upper-case unless it is quoted."""
    if len(name) >= 2 and name.startswith('"') and name.endswith('"'):
        return name[1:-1].replace('""', '"')
    return name.upper()


def ident(node: exp.Expr | None) -> str:
    """The folded name of an identifier node, or of a node that wraps one."""
    while node is not None and not isinstance(node, exp.Identifier):
        node = node.args.get("this")
    if node is None:
        return ""
    return node.name if node.quoted else node.name.upper()


def qualified(*parts: str) -> str:
    """Parts as one dotted, quoted name."""
    return ".".join(quote(part) for part in parts)
