"""The documentation names functions and tests; they must be there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"\| (?P<requirement>.+) \| `(?P<keeper>[\w.]+)` \| `(?P<file>[\w/]+\.py)::(?P<test>\w+)` \|")

ROWS = [
    match.groupdict()
    for match in map(ROW.fullmatch, (ROOT / "docs" / "protocol.md").read_text().splitlines())
    if match is not None
]


def test_the_page_on_the_protocol_has_its_rows() -> None:
    lines = (ROOT / "docs" / "protocol.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and "---" not in line and "kept by" not in line]
    assert len(ROWS) == len(rows) > 50


@pytest.mark.parametrize("keeper", sorted({row["keeper"] for row in ROWS}))
def test_what_keeps_a_requirement_is_there(keeper: str) -> None:
    found: object = None
    for name in ("tusd_py." + keeper).split("."):
        if found is None:
            found = importlib.import_module(name)
        elif hasattr(found, name):
            found = getattr(found, name)
        else:
            assert hasattr(found, "__path__"), keeper
            found = importlib.import_module(f"{found.__name__}.{name}")  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", sorted({row["file"] for row in ROWS}))
def test_what_proves_a_requirement_is_there(file: str) -> None:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    named = {row["test"] for row in ROWS if row["file"] == file}
    assert tests >= named
