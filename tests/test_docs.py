"""The documentation names functions and tests; they must be there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"\| (?P<requirement>.+) \| `(?P<keeper>[\w.]+)` \| `(?P<file>[\w/]+\.py)::(?P<test>\w+)` \|")
PAGES = ("protocol.md", "draft.md", "security.md")


def rows_of(page: str) -> list[str]:
    """Return the rows of those tables of ``page`` that tell what proves them."""
    rows: list[str] = []
    proves = False
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if not line.startswith("| "):
            proves = False
        elif line.endswith("| proved by |"):
            proves = True
        elif proves and "---" not in line:
            rows.append(line)
    return rows


ROWS = [
    match.groupdict() for match in (ROW.fullmatch(row) for page in PAGES for row in rows_of(page)) if match is not None
]


@pytest.mark.parametrize("page", PAGES)
def test_every_row_names_what_keeps_and_what_proves_it(page: str) -> None:
    rows = rows_of(page)
    assert len(rows) > 30
    assert [row for row in rows if ROW.fullmatch(row) is None] == []


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
