"""etl-stream: PostgreSQL changes to Snowflake, files and webhooks.

The engine is a program that this package brings along as `etl-stream`; it runs in a process of its own, never in the
interpreter that imports this package. Operators in Python run in processes that the engine starts.

    import etl_stream

    for problem in etl_stream.validate("pipeline.yaml"):
        print(problem)
    etl_stream.run("pipeline.yaml", until="caught-up")
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

__all__ = ["Failed", "Problem", "operator", "program", "run", "validate"]


class Failed(Exception):
    """A run that ended with an error.

    `exit_code` is the program's: 1 failed while running, 2 bad usage or pipeline file, 3 the environment, 4 the answer is no.
    `output` is what it wrote to standard error when that was captured.
    """

    def __init__(self, exit_code, output=""):
        super().__init__(f"etl-stream ended with exit code {exit_code}" + (f":\n{output}" if output else ""))
        self.exit_code = exit_code
        self.output = output


class Problem(dict):
    """A problem of a pipeline file, as `etl-stream validate --format json` gives it."""

    @property
    def code(self):
        """Its code, such as `CFG0006`; `etl-stream explain CODE` has a page about it."""
        return self.get("code", "")

    @property
    def message(self):
        """What is wrong."""
        return self.get("message", "")

    def __str__(self):
        place = f"{self.get('file', '')}:{self.get('line', '')}:{self.get('column', '')}"
        return f"{place}: {self.message} [{self.code}]"


def program():
    """The path of the program: the one installed beside this interpreter, or the first of the path.

    The environment variable `ETL_STREAM_PROGRAM` names another one.
    """
    named = os.environ.get("ETL_STREAM_PROGRAM")
    if named:
        return pathlib.Path(named)
    beside = pathlib.Path(sys.executable).with_name("etl-stream")
    found = beside if beside.is_file() else shutil.which("etl-stream")
    if found is None:
        raise FileNotFoundError("the program etl-stream is neither beside this interpreter nor in the path")
    return pathlib.Path(found)


def run(path="pipeline.yaml", *, until=None, workers=None, capture=False):
    """Runs a pipeline file and returns when it has ended.

    Without `until` it runs until it is interrupted: then everything that was read is made durable first. `until` is
    `"caught-up"`, or a log position. `workers` is the number of worker threads. With `capture`, what it logs is returned
    instead of written to standard error.

    Raises `Failed` when it ends with an error.
    """
    arguments = [str(program()), "run", os.fspath(path)]
    if until is not None:
        arguments += ["--until", str(until)]
    if workers is not None:
        arguments += ["--workers", str(workers)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE if capture else None, text=True)
    while True:
        try:
            _, output = process.communicate()
            break
        except KeyboardInterrupt:
            # The terminal has interrupted it too: it drains, and a second interrupt ends it.
            continue
    if process.returncode != 0:
        raise Failed(process.returncode, output or "")
    return output or ""


def validate(path="pipeline.yaml"):
    """Checks a pipeline file without reaching for anything it names. Returns its problems; none when it is right."""
    done = subprocess.run([str(program()), "validate", os.fspath(path), "--format", "json"], capture_output=True, text=True)
    if done.returncode not in (0, 2):
        raise Failed(done.returncode, done.stderr)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise Failed(done.returncode, done.stderr) from None
    return [Problem(problem) for problem in found["findings"]]


def operator(function=None, *, schema=None):
    """Marks a function or a class as the module's operator, for a node that names neither.

    The function takes a `pyarrow.RecordBatch` and returns one. `schema`, where what leaves has other columns, takes the
    `pyarrow.Schema` of a table and returns the one that leaves.

        @operator
        def clean(batch):
            return batch.filter(pc.is_valid(batch["email"]))
    """

    def mark(marked):
        marked.__etl_stream_operator__ = True
        if schema is not None:
            marked.__etl_stream_schema__ = schema
        return marked

    return mark if function is None else mark(function)
