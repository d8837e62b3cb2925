import os
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar, overload

import pyarrow

_Marked = TypeVar("_Marked", bound=Callable[..., Any])

class Failed(Exception):
    exit_code: int
    output: str
    def __init__(self, exit_code: int, output: str = "") -> None: ...

class Problem(dict[str, Any]):
    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...

def program() -> pathlib.Path: ...
def run(
    path: str | os.PathLike[str] = "pipeline.yaml",
    *,
    until: str | None = None,
    workers: int | None = None,
    capture: bool = False,
) -> str: ...
def validate(path: str | os.PathLike[str] = "pipeline.yaml") -> list[Problem]: ...
@overload
def operator(function: _Marked) -> _Marked: ...
@overload
def operator(
    function: None = None, *, schema: Callable[[pyarrow.Schema], pyarrow.Schema] | None = None
) -> Callable[[_Marked], _Marked]: ...
