"""Arrows of import point one way: every file of the package is read, and what it imports is held against a picture."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tusd_py

PACKAGE = Path(tusd_py.__file__).parent

# Who may import whom: a file may use what stands in a row above its own, and its neighbours in its own folder. A name
# is that of a module, or of a folder with all its modules that have no row of their own.
ROWS: tuple[tuple[str, ...], ...] = (
    ("upload",),
    ("errors", "cancellation", "threads"),
    ("protocol",),
    ("storage", "locks", "hooks", "media"),
    ("intake", "concatenation"),
    ("lifecycle", "metrics"),
    ("expiration",),
    ("web", "client", "doctor"),
    # Serves whatever app it is given, and so knows neither settings nor how one is built.
    ("server",),
    ("values",),
    ("sources",),
    ("settings",),
    ("build",),
    ("inspection",),
    ("findings",),
    ("repairs",),
    ("verification",),
    ("__init__",),
    ("flags",),
    ("folder_commands",),
    ("cli",),
    ("__main__",),
)
ROW = {name: number for number, names in enumerate(ROWS) for name in names}

# Arrows between rows that may not be drawn although they point the right way.
NEVER = (
    # The intake knows the contract of stores, and none of them.
    ("intake", "locks"),
    ("intake", "hooks"),
    ("intake", "media"),
    ("client", "storage"),
    ("client", "locks"),
    ("client", "lifecycle"),
)

# Libraries, and the only places that know them.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "aiofiles": ("storage",),
    "blake3": ("protocol.digests",),
    "click": ("cli", "flags", "folder_commands"),
    "google_crc32c": ("protocol.digests",),
    "httptools": ("server",),
    "puremagic": ("media",),
    "pydantic": ("settings", "storage.record"),
    "pydantic_core": ("settings",),
    "pydantic_settings": ("settings", "sources"),
    "python_multipart": ("web.form_parser",),
    "starlette": ("web",),
    "uvicorn": ("server",),
    "uvloop": ("server",),
    "xxhash": ("protocol.digests",),
}

# Libraries that may be missing, or are slow to import: nobody pays for them who does not use them.
LAZY = frozenset({"blake3", "google_crc32c", "xxhash", "puremagic"})

# A protocol without its wire neither waits nor looks at a clock, a file or a socket.
NOT_IN_THE_PROTOCOL = frozenset(
    {"asyncio", "concurrent", "io", "logging", "os", "pathlib", "random", "secrets", "socket", "threading", "time"}
)


def name_of(path: Path) -> str:
    """Return the name of a module within the package: ``protocol.tus``, and ``protocol`` for its ``__init__``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str, *, lazy: bool = True) -> Iterator[str]:
    """Give the names of everything that ``module`` imports, with ``lazy`` also what it imports within functions."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazy else outside_of_functions(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides where it points to"
            assert node.module is not None
            # `from tusd_py.protocol import rules` imports the module of that name.
            yield from (
                inner if (inner := f"{node.module}.{alias.name}").removeprefix("tusd_py.") in MODULES else node.module
                for alias in node.names
            )


def outside_of_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from outside_of_functions(child)


def arrows(module: str, *, lazy: bool = True) -> set[str]:
    """Return the modules of the package that ``module`` imports."""
    names = imports_of(module, lazy=lazy)
    return {name.partition(".")[2] or "__init__" for name in names if root(name) == "tusd_py"}


def libraries(module: str, *, lazy: bool = True) -> set[str]:
    """Return the libraries that ``module`` imports."""
    roots = {root(name) for name in imports_of(module, lazy=lazy)}
    return roots - sys.stdlib_module_names - {"tusd_py"}


def root(module: str) -> str:
    return module.split(".")[0]


def place_of(module: str) -> str:
    """Return the name under which ``module`` stands in the picture."""
    return module if module in ROW else root(module)


def is_in(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_place_in_the_picture(module: str) -> None:
    assert place_of(module) in ROW


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_its_neighbours_and_what_stands_above_it(module: str) -> None:
    place = place_of(module)
    for other in {place_of(arrow) for arrow in arrows(module)} - {place}:
        assert ROW[other] < ROW[place], f"{module} must not import {other}"
        assert (place, other) not in NEVER, f"{module} must not import {other}"


def test_the_intake_knows_stores_by_their_contract_alone() -> None:
    assert {other for other in arrows("intake") if root(other) == "storage"} <= {"storage.base"}


def test_contracts_know_nothing_of_what_keeps_them() -> None:
    assert arrows("storage.base") <= {"upload", "errors"}
    assert arrows("locks.base") <= {"upload", "errors"}


def test_the_lifecycle_knows_stores_and_locks_by_their_contracts_alone() -> None:
    for module in ("lifecycle", "expiration"):
        assert {other for other in arrows(module) if root(other) in ("storage", "locks")} <= {
            "storage.base",
            "locks.base",
        }


def test_nothing_runs_in_a_circle() -> None:
    left = {module: arrows(module, lazy=False) for module in MODULES}
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    assert not left


@pytest.mark.parametrize("module", [module for module in MODULES if root(module) in ("protocol", "upload", "errors")])
def test_the_protocol_waits_for_nothing_and_needs_the_standard_library_alone(module: str) -> None:
    standard = {root(name) for name in imports_of(module)} & sys.stdlib_module_names
    assert not standard & NOT_IN_THE_PROTOCOL
    assert not libraries(module, lazy=False)


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_known_to_few(module: str) -> None:
    for library in libraries(module):
        assert library in LIBRARIES, f"{library} is no dependency that we know of"
        assert is_in(module, LIBRARIES[library]), f"{module} must not import {library}"


@pytest.mark.parametrize("module", MODULES)
def test_what_may_be_missing_or_is_slow_is_imported_where_it_is_used(module: str) -> None:
    assert not libraries(module, lazy=False) & LAZY
