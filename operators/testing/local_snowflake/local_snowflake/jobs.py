"""Statements of the SQL API as jobs: run once, found again by handle and by request.

Guarantees: the statements of a request share one session; a transaction that is open when a statement
fails, or at the end, is rolled back; a request that lost against a concurrent transaction, and has
committed nothing, runs again from its first statement.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import snowflake.connector.errors as sf
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from local_snowflake import errors, statements
from local_snowflake.contention import Attempts
from local_snowflake.dialect import Context
from local_snowflake.instance import Instance
from local_snowflake.naming import fold
from local_snowflake.results import Result
from local_snowflake.session import Session

_JOBS_KEPT = 2000
_RESULTS_KEPT = 200


@dataclass
class Job:
    """One request: its statements, then their results or the first failure."""

    handle: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    children: list[str] = field(default_factory=list)
    result: Result | None = None
    failure: sf.Error | None = None
    done: Future = field(default_factory=Future)
    session: Session | None = None
    canceled: bool = False


def parse(text: str, wanted: int | None) -> list[exp.Expr]:
    """The statements of a request; `wanted` is how many the client announced, 0 for any number."""
    try:
        trees = sqlglot.parse(text, read="snowflake")
    except SqlglotError as problem:
        raise errors.error(1003, "42000", f"SQL compilation error:\n{problem}") from None
    trees = [tree for tree in trees if tree is not None and not isinstance(tree, exp.Semicolon)]
    if not trees:
        raise errors.error(900, "42601", "SQL compilation error:\nEmpty SQL statement.")
    if wanted is None:
        wanted = 1
    if wanted not in (0, len(trees)):
        raise errors.error(
            8, "0A000", f"Actual statement count {len(trees)} did not match the desired statement count {wanted}."
        )
    return trees


class Jobs:
    """Every job of this run of the server."""

    def __init__(self, instance: Instance, workers: int = 16) -> None:
        self._instance = instance
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="sql")
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._requests: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, handle: str) -> Job | None:
        """The job of a handle."""
        return self._jobs.get(handle)

    def clear(self) -> None:
        """Forgets every job."""
        with self._lock:
            self._jobs.clear()
            self._requests.clear()

    def submit(self, body: dict[str, Any], context: Context, request_id: str | None, retry: bool, params: list) -> Job:
        """Starts a request; with `retry`, answers with the one that the same request id started before."""
        with self._lock:
            if retry and request_id and (earlier := self._requests.get(request_id)):
                return earlier
            job = Job()
            self._keep(job)
            if request_id:
                self._requests[request_id] = job
                while len(self._requests) > _JOBS_KEPT:
                    self._requests.popitem(last=False)
        self._pool.submit(self._work, job, body, context, params)
        return job

    def cancel(self, job: Job) -> None:
        """Stops a job that runs."""
        job.canceled = True
        if job.session is not None and not job.done.done():
            job.session._duck_conn.interrupt()

    def _keep(self, job: Job) -> None:
        self._jobs[job.handle] = job
        while len(self._jobs) > _JOBS_KEPT:
            self._jobs.popitem(last=False)
        old = list(self._jobs.values())[: -_RESULTS_KEPT or None]
        for one in old[-8:]:
            one.result = None if one.done.done() and one.result and one.result.rows > 1000 else one.result

    def _work(self, job: Job, body: dict[str, Any], context: Context, params: list) -> None:
        try:
            counts = (body.get("parameters") or {}).get("MULTI_STATEMENT_COUNT")
            trees = parse(str(body.get("statement") or ""), None if counts is None else int(counts))
            results = self._run(job, trees, body, context, params)
            if len(trees) == 1:
                job.result = results[0]
            else:
                for result in results:
                    child = Job(result=result)
                    child.done.set_result(None)
                    with self._lock:
                        self._keep(child)
                    job.children.append(child.handle)
        except sf.Error as problem:
            job.failure = problem
        except Exception as problem:  # a defect of this program; the client must not hang on it
            job.failure = errors.error(370001, "XX000", f"internal error: {type(problem).__name__}: {problem}")
        finally:
            job.session = None
            job.done.set_result(None)

    def _run(self, job: Job, trees: list[exp.Expr], body: dict, context: Context, params: list) -> list[Result]:
        database, schema = body.get("database"), body.get("schema")
        ddl = any(statements.is_ddl(statements.normal_form(tree)) for tree in trees)
        with Attempts(None if ddl else self._instance.losers) as attempts:
            while True:
                session = Session(self._instance, database and fold(database), schema and fold(schema), context)
                job.session = session
                committed = False
                try:
                    results = []
                    for tree in trees:
                        if job.canceled:
                            raise errors.error(604, "57014", "SQL execution canceled")
                        inside = session.in_transaction()
                        results.append(self._one(session, tree.copy(), params if len(trees) == 1 else None))
                        own = not inside and not isinstance(statements.normal_form(tree), exp.Transaction)
                        committed = committed or own or session.ddl_committed or isinstance(tree, exp.Commit)
                    return results
                except sf.Error as problem:
                    session_lost = session.in_transaction()
                    if session_lost:
                        session.end(commit=False)
                    if not errors.is_conflict(problem) or committed or not attempts.again():
                        raise
                finally:
                    if session.in_transaction():
                        session.end(commit=False)
                    session.close()

    @staticmethod
    def _one(session: Session, tree: exp.Expr, params: list | None) -> Result:
        cursor = session.cursor()
        cursor.run(tree, params)
        return Result(cursor)
