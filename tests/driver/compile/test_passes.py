"""The passes of the compiler: each a function from values to a value, none of which goes back."""

import ast
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from convoy.driver.compile import pipeline
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import Graph
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker

DRIVER = Path(pipeline.__file__).resolve().parents[1]
LINE = (
    "cut",
    "join",
    "hoist",
    "expand",
    "lowering",
    "order",
    "interleave",
    "fuse",
    "weigh",
    "strides",
    "tilings",
    "orientation",
    "missing_units",
    "segments",
    "image",
    "pipeline",
)
"""The files of `driver/compile`; each imports only what stands before it."""
PASSES = (
    "cut",
    "join_functions",
    "hoist_functions",
    "expand",
    "lower_graph",
    "choose_order",
    "interleave",
    "choose_fusions",
    "choose_strides",
    "schedule",
    "choose_tilings",
    "choose_orientation",
    "find_segments",
    "emit_plan",
)
FUNCTIONS_OF_NUMBERS = {"emit/relocate.py", "lower/lut.py"}
"""Files whose functions take functions of numbers: those that tables are made of, and of addresses."""


def network():
    """A strided convolution, a sum, a pool and a fully connected layer that is folded, behind uint8 inputs."""
    maker = GraphMaker(5)
    source = maker.tensor((1, 32, 32, 4))
    first = maker.op("CONV_2D", (source, maker.weights((8, 4, 4, 4), 8, 0), -1), (1, 8, 8, 8), **same(4))
    second = maker.op("CONV_2D", (first, maker.weights((8, 3, 3, 8), 8, 0), -1), (1, 8, 8, 8), **same(1))
    total = maker.op("ADD", (first, second), (1, 8, 8, 8))
    flat = maker.op("RESHAPE", (total,), (1, 512), new_shape=(1, 512))
    target = maker.op("FULLY_CONNECTED", (flat, maker.weights((10, 512), 1, 0), -1), (1, 10))
    return maker.graph([source], [target])


def same(stride):
    return {"padding": "SAME", "stride_h": stride, "stride_w": stride}


def trees(*rooms):
    """(path in the driver, syntax tree) of every file of some folders."""
    for room in rooms:
        for path in sorted((DRIVER / room).glob("*.py")):
            yield path.relative_to(DRIVER).as_posix(), ast.parse(path.read_text())


def taken_functions(tree):
    """Parameters that are functions, and lambdas that are no sort key."""
    keys = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "key"}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None and "Callable" in ast.unparse(node.annotation):
            yield node.arg
        if isinstance(node, ast.Lambda) and id(node) not in keys:
            yield ast.unparse(node)


def test_files_form_a_line():
    files = {name.split("/")[1].removesuffix(".py"): tree for name, tree in trees("compile")}
    del files["__init__"]
    assert set(files) == set(LINE)
    for name, tree in files.items():
        others = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1}
        assert others <= set(LINE[: LINE.index(name)]), name


def test_no_stage_takes_a_function():
    found = {name: list(taken_functions(tree)) for name, tree in trees("lower", "plan", "emit", "compile")}
    assert {name: taken for name, taken in found.items() if taken and name not in FUNCTIONS_OF_NUMBERS} == {}


@pytest.mark.parametrize(
    ("source", "taken"),
    [
        ("def f(works: list, is_worth: Callable[[int], bool]): ...", ["is_worth"]),
        ("f(works, lambda work: g(work, config))", ["lambda work: g(work, config)"]),
        ("min(works, key=lambda work: work.cycles)", []),
    ],
)
def test_taken_functions_are_found(source, taken):
    assert list(taken_functions(ast.parse(source))) == taken


@pytest.mark.parametrize("layers", [None, range(0, 3)])
def test_the_network_never_returns_to_a_file(layers):
    """In every file behind lowering, calls with the network as an argument are consecutive."""
    visits = []

    def watch(frame, event, _):
        code = frame.f_code
        path = Path(code.co_filename)
        if event == "call" and path.is_relative_to(DRIVER) and path.parent.name in ("plan", "emit", "compile"):
            arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(isinstance(frame.f_locals.get(name), Graph) for name in arguments):
                visits.append(path.stem)

    graph, before = network(), sys.getprofile()
    sys.setprofile(watch)
    try:
        compile_graph(graph, PRESETS["Q"], layers=layers)
    finally:
        sys.setprofile(before)
    route = [name for name, _ in groupby(visits)]
    behind = ["order", "fuse", "strides", "schedule", "tilings", "missing_units", "segments", "image"]
    passed = ["join", "hoist", "expand", "lowering", *behind]
    assert route == ["pipeline", *(["cut", "pipeline"] if layers else []), *passed, "pipeline"]


def test_no_pass_changes_a_value(monkeypatch):
    made = []

    def watched(function):
        def run(*args, **kwargs):
            value = function(*args, **kwargs)
            made.append((function.__name__, value, repr(value)))
            return value

        return run

    for name in PASSES:
        monkeypatch.setattr(pipeline, name, watched(getattr(pipeline, name)))
    with np.printoptions(threshold=sys.maxsize):
        compile_graph(network(), PRESETS["Q"].with_(stripe_bytes=4096), layers=range(0, 5))
        assert {name for name, _, _ in made} == set(PASSES)
        assert [name for name, value, text in made if repr(value) != text] == []
