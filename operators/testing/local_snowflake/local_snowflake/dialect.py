"""Rewrites Snowflake expressions that the base program leaves to DuckDB, or gets wrong.

Guarantees: integers keep 38 digits; PARSE_JSON keeps the text it was given; nothing here needs a
current database. The rest of the translation is the base program's and the SQL library's.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

import fakesnow.transforms as base
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect

from local_snowflake.types import SfType

_OFFSET = re.compile(r"^(\d{4}-\d{1,2}-\d{1,2}[ T]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?) +(Z|[+-]\d{2}(?::?\d{2})?)$")


@dataclass
class Context:
    """Who asks: what the CURRENT_… functions answer."""

    account: str = "LOCAL"
    user: str = "LOCAL_USER"
    role: str = "ACCOUNTADMIN"
    warehouse: str = "LOCAL_WH"


def call(name: str, *args: exp.Expr) -> exp.Anonymous:
    """A DuckDB function call that no later rewrite touches."""
    return exp.Anonymous(this=name, expressions=list(args))


def _json(node: exp.Expr) -> exp.Expr:
    return exp.Cast(this=node, to=exp.DataType(this=exp.DataType.Type.JSON, nested=False))


def _without_variant(node: exp.Expr) -> exp.Expr:
    """The value under `x::VARIANT` or TO_VARIANT(x)."""
    if isinstance(node, exp.ToVariant) or isinstance(node, exp.Cast) and node.to.this == exp.DataType.Type.VARIANT:
        return node.this
    return node


def rewrite(tree: exp.Expr, context: Context) -> exp.Expr:
    """The statement with this module's rewrites applied."""
    constants = {
        exp.CurrentVersion: "10.0.0-local",
        exp.CurrentAccount: context.account,
        exp.CurrentRole: context.role,
        exp.CurrentUser: context.user,
        exp.CurrentWarehouse: context.warehouse,
        exp.CurrentRegion: "LOCAL",
    }

    def inner(node: exp.Expr) -> exp.Expr:
        """What a replaced node has inside: the walk does not go there by itself."""
        return node.transform(one)

    def one(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.ArrayContains):
            return call("json_contains", node.this, call("to_json", _without_variant(node.expression)))
        if isinstance(node, exp.GetExtract):
            return call("json_extract", node.this, _path(node.expression))
        if isinstance(node, exp.ParseJSON):
            plain = exp.TryCast if node.args.get("safe") else exp.Cast
            return plain(this=node.this, to=exp.DataType(this=exp.DataType.Type.JSON, nested=False))
        if isinstance(node, exp.ObjectInsert):
            return call("json_merge_patch", inner(node.this), call("json_object", node.args["key"], inner(node.args["value"])))
        if isinstance(node, exp.Anonymous) and node.name.upper() == "OBJECT_DELETE":
            target, *keys = node.expressions
            pairs = [part for key in keys for part in (key, exp.Null())]
            return call("json_merge_patch", inner(target), call("json_object", *pairs))
        if isinstance(node, exp.Cast) and node.to.this == exp.DataType.Type.VARIANT:
            return call("to_json", node.this)
        if isinstance(node, exp.Cast) and node.to.this in (exp.DataType.Type.ARRAY, exp.DataType.Type.OBJECT):
            return _json(node.this)
        if isinstance(node, exp.Update):
            for assignment in node.expressions:
                if isinstance(assignment, exp.EQ) and isinstance(assignment.this, exp.Column):
                    assignment.set("this", exp.Column(this=assignment.this.this))  # DuckDB wants the bare name
            return node
        if (constant := constants.get(type(node))) is not None:
            return exp.Literal.string(constant)
        return node

    return tree.transform(one, copy=False)


def _path(key: exp.Expr) -> exp.Expr:
    """A key of GET as a JSON path: a name is a member, a number an element."""
    if isinstance(key, exp.Literal) and key.is_string:
        return exp.Literal.string('$."' + key.name.replace('"', '\\"') + '"')
    return key


def spaced_offsets(tree: exp.Expr) -> bool:
    """Drops the space before the offset in every timestamp literal; whether there was one."""
    found = False
    for node in tree.find_all(exp.Literal):
        if node.is_string and (match := _OFFSET.match(node.name)):
            node.set("this", match[1] + match[2])
            found = True
    return found


def spaced_offset(value: object) -> object:
    """The same for a bound value."""
    if isinstance(value, str) and (match := _OFFSET.match(value)):
        return match[1] + match[2]
    return value


def _data_type(node: exp.Expr) -> exp.Expr:
    """Column types by this program's rules instead of the base program's 64-bit integers."""
    if isinstance(node, exp.DataType) and node.this != exp.DataType.Type.JSON and (kind := SfType.of_node(node)):
        return kind.node()
    return node


_to_timestamp = base.to_timestamp


def _timestamp(node: exp.Expr) -> exp.Expr:
    """Leaves a plain cast alone; the base program's macro cannot cast a TIMESTAMP_TZ."""
    return node if isinstance(node, exp.Cast) else _to_timestamp(node)


def _one_at_a_time(lock: threading.RLock, method: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(method)
    def locked(*args: object, **options: object) -> object:
        with lock:
            return method(*args, **options)

    return locked


def install() -> None:
    """Puts these rules in place of the base program's; one thread at a time parses or writes SQL.

    Python runs one of them at a time anyway, and under many threads a statement was now and then written
    with a function of the other dialect.
    """
    lock = threading.RLock()
    Dialect.parse = _one_at_a_time(lock, Dialect.parse)
    Dialect.parse_into = _one_at_a_time(lock, Dialect.parse_into)
    Dialect.generate = _one_at_a_time(lock, Dialect.generate)
    base.integer_precision = _data_type
    base.to_timestamp = _timestamp
    base.extract_text_length = lambda node: node
