"""The dependency rule of the rooms, checked over the syntax trees of all sources."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "spec": {"spec"},
    "hw": {"spec", "hw"},
    "golden": {"spec", "golden"},
    "driver": {"spec", "driver"},
    "verif": {"spec", "hw", "golden", "driver", "verif"},
}
"""Which rooms each room may import."""
BACKENDS = {"hw", "golden"}
LAZY = ("driver/devices/", "driver/cli.py")
"""Files of the driver that may import backends, inside functions only."""
SPEC_PACKAGES = {"amaranth"}
"""What `spec` may import besides the standard library."""

FLOORS = (
    ("errors", "complete"),
    ("files", "litert"),
    ("graph",),
    ("lower",),
    ("plan",),
    ("emit",),
    ("compile",),
    ("runtime",),
    ("timing",),
    ("report",),
    ("workload",),
    ("devices",),
    ("parallel", "outcome"),
    ("bench",),
    ("cli",),
)
"""Folders and files of the driver from the ground up; each imports only what stands below it, or in the same folder."""

SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> list[tuple[str, bool]]:
    """(absolute module, is it at the top level?) for each import of a file; relative ones are resolved against
    `convoy`.
    """
    tree = ast.parse(path.read_text(), str(path))
    package = ["convoy", *path.relative_to(ROOT).parent.parts]
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        is_top = id(node) not in inner
        if isinstance(node, ast.Import):
            found += [(alias.name, is_top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(f"{module}.{alias.name}" if module == "convoy" else module, is_top) for alias in node.names]
    return found


def room_of(module: str) -> str | None:
    """The room of a module of ours."""
    parts = module.split(".")
    return parts[1] if parts[0] == "convoy" and len(parts) > 1 else None


def floor_of(name: str) -> int:
    """The floor of a folder or file of the driver."""
    return next(number for number, names in enumerate(FLOORS) if name in names)


def upward_imports(path: Path) -> list[str]:
    """Imports of a file of the driver that go up, or sideways into another folder."""
    mine = path.relative_to(ROOT / "driver").with_suffix("").parts[0]
    others = {module.split(".")[2] for module, _ in imports(path) if module.startswith("convoy.driver.")}
    return [
        f"{path.relative_to(ROOT).as_posix()} imports {other}"
        for other in sorted(others - {mine})
        if floor_of(other) >= floor_of(mine)
    ]


def circles(folder: str) -> list[list[str]]:
    """Groups of modules below a folder that import each other, at the top level or for types."""
    files = {
        ".".join(["convoy", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in SOURCES
        if path.is_relative_to(ROOT / folder)
    }
    graph = {
        name: {module for module, is_top in imports(path) if is_top and module in files} - {name}
        for name, path in files.items()
    }
    return [sorted(group) for group in strongly_connected(graph) if len(group) > 1]


def strongly_connected(graph: dict[str, set[str]]) -> list[set[str]]:
    """Components of a graph in which each node reaches each other one."""
    reach = {name: set(targets) for name, targets in graph.items()}
    for middle in graph:
        for targets in reach.values():
            if middle in targets:
                targets |= reach[middle]
    return [
        set(group)
        for group in {frozenset({name} | {other for other in reach[name] if name in reach[other]}) for name in graph}
    ]


def unlisted_packages() -> set[str]:
    """Folders of code that `pyproject.toml` does not list, so that they would be missing in the wheel, and the other
    way round.
    """
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    return listed ^ {".".join(["convoy", *path.relative_to(ROOT).parent.parts]) for path in SOURCES}


def violations(path: Path) -> list[str]:
    """Imports of a file that break the rule."""
    name = path.relative_to(ROOT).as_posix()
    room = name.split("/")[0]
    found = []
    for module, is_top in imports(path):
        target = room_of(module)
        if target is None:
            top = module.split(".")[0]
            if room == "spec" and top not in sys.stdlib_module_names | SPEC_PACKAGES:
                found.append(f"{name} imports {module}")
            if top in ROOMS and (ROOT / top).is_dir():
                found.append(f"{name} imports {module}: say convoy.{module}")
        elif target not in ROOMS[room] and not (target in BACKENDS and name.startswith(LAZY) and not is_top):
            found.append(f"{name} imports {module}" + (" at the top level" if name.startswith(LAZY) else ""))
    return found


def test_every_room_has_sources():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room):
    assert [text for path in SOURCES if path.relative_to(ROOT).parts[0] == room for text in violations(path)] == []


def test_the_driver_imports_downwards_only():
    driver = [
        path for path in SOURCES if path.is_relative_to(ROOT / "driver") and path != ROOT / "driver" / "__init__.py"
    ]
    assert [text for path in driver for text in upward_imports(path)] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from convoy.driver.emit.pack import x", ["driver/plan/x.py imports emit"]),
        ("from ..emit import pack", ["driver/plan/x.py imports emit"]),
        ("from convoy.driver.lower.work import Axis\nfrom .cost import x", []),
    ],
)
def test_upward_imports_are_found(tmp_path, monkeypatch, source, found):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "driver" / "plan" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert upward_imports(path) == found


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_of_imports(room):
    assert circles(room) == []


def test_circles_are_found():
    assert strongly_connected({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}).count({"b", "c"}) == 1


def test_every_folder_is_in_the_wheel():
    assert unlisted_packages() == set()


@pytest.mark.parametrize(
    ("name", "source", "count"),
    [
        ("golden/x.py", "from convoy.hw import emit", 1),
        ("golden/x.py", "from convoy.spec.isa import NN\nfrom .quant import double", 0),
        ("hw/nn/x.py", "from ..lib import queue", 0),
        ("hw/nn/x.py", "from ...golden import quant", 1),
        ("driver/x.py", "def f():\n    import convoy.golden.machine", 1),
        ("driver/cli.py", "def f():\n    from convoy import hw", 0),
        ("driver/cli.py", "from convoy import hw", 1),
        ("driver/devices/x.py", "def f():\n    from convoy.golden.machine import Machine", 0),
        ("spec/x.py", "import numpy", 1),
        ("spec/x.py", "import json, amaranth.lib", 0),
        ("hw/x.py", "import spec.isa", 1),
    ],
)
def test_the_check_itself(tmp_path, monkeypatch, name, source, count):
    for room in ROOMS:
        (tmp_path / room).mkdir()
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert len(violations(path)) == count
