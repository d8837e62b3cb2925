"""What `pip install` of the wheel gives: the command, the module, and the worker's faster frames."""

import importlib.metadata
import importlib.resources
import inspect
import pathlib
import subprocess
import sys

import etl_stream
import pyarrow as pa
import pytest
from etl_stream import _frames

EXAMPLES = pathlib.Path(__file__).parents[4] / "examples"
PIPELINE = """
sources: {{ made: {{ type: synthetic, scenario: narrow_insert, rows: {rows} }} }}
operators: {{ python: {{ type: python, inputs: [made], module: ops {more} }} }}
sinks: {{ files: {{ type: file, inputs: [python], format: parquet, path: ./out }} }}
server: none
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pipeline(folder: pathlib.Path, module: str, more: str = "", rows: int = 20_000) -> pathlib.Path:
    (folder / "ops.py").write_text(module)
    file = folder / "pipeline.yaml"
    file.write_text(PIPELINE.format(rows=rows, more=more))
    return file


def rows(folder: pathlib.Path) -> pa.Table:
    import pyarrow.parquet

    return pa.concat_tables(pyarrow.parquet.read_table(file) for file in sorted((folder / "out").glob("*/*.parquet")))


def test_the_command_is_beside_the_interpreter() -> None:
    program = pathlib.Path(sys.executable).with_name("etl-stream")
    assert etl_stream.program() == program
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert importlib.metadata.version("etl-stream") in said
    assert b"libpython" not in subprocess.run(["ldd", program], capture_output=True, check=True).stdout


def test_types_and_words_come_along() -> None:
    files = importlib.resources.files("etl_stream")
    assert (files / "py.typed").is_file() and (files / "__init__.pyi").is_file()
    stubs = (files / "__init__.pyi").read_text()
    for name in etl_stream.__all__:
        assert inspect.getdoc(getattr(etl_stream, name)), f"{name} has no words"
        assert f"def {name}(" in stubs or f"class {name}(" in stubs, f"{name} has no types"


def test_problems_of_a_file(folder: pathlib.Path) -> None:
    file = pipeline(folder, "", more=", on_error: dead_letter")
    problems = etl_stream.validate(file)
    assert [problem.code for problem in problems] == ["CFG0070"]
    assert "pipeline.yaml:3" in str(problems[0]) and "dead letters" in problems[0].message
    assert etl_stream.validate(pipeline(folder, "")) == []


def test_an_operator_runs_in_a_process_with_the_wheel_s_frames(folder: pathlib.Path) -> None:
    module = """
import os
import sys
from etl_stream import operator

@operator
def same(batch):
    assert "etl_stream._frames" in sys.modules
    print("in process", os.getpid())
    return batch
"""
    logged = etl_stream.run(pipeline(folder, module), until="caught-up", capture=True)
    assert "in process" in logged
    assert rows(folder).num_rows == 20_000


def test_a_schema_beside_the_function(folder: pathlib.Path) -> None:
    module = """
import pyarrow as pa
from etl_stream import operator

@operator(schema=lambda schema: schema.append(pa.field("at", pa.int64())))
def numbered(batch):
    return batch.append_column("at", pa.array(range(len(batch)), pa.int64()))
"""
    etl_stream.run(pipeline(folder, module), until="caught-up", capture=True)
    assert rows(folder).column("at").null_count == 0


def test_a_run_that_fails(folder: pathlib.Path) -> None:
    with pytest.raises(etl_stream.Failed) as failed:
        etl_stream.run(pipeline(folder, "def f(batch):\n    raise ValueError\n", more=", function: f"), until="caught-up", capture=True)
    assert failed.value.exit_code == 1 and "PY0004" in failed.value.output
    with pytest.raises(etl_stream.Failed) as failed:
        etl_stream.run(folder / "absent.yaml", capture=True)
    assert failed.value.exit_code == 2


def test_the_example(folder: pathlib.Path) -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "read_parquet.py"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "current rows" in done.stdout


def test_frames_that_are_none_end_the_reader() -> None:
    import os
    import socket

    ours, theirs = socket.socketpair()
    frames = _frames.Frames(os.dup(theirs.fileno()))
    theirs.close()
    frames.send(b"{}", [b"a", b"", b"bc"])
    assert ours.recv(100) == b"ETLS\x02\0\0\0\x03\0\0\0\0\0\0\0{}abc"
    ours.sendall(b"ETLS\x02\0\0\0\x03\0\0\0\0\0\0\0{}abc" + b"hello, this is a print")
    header, body = frames.receive()
    assert (bytes(header), bytes(body), len(body)) == (b"{}", b"abc", 3)
    with pytest.raises(EOFError):
        frames.receive()
