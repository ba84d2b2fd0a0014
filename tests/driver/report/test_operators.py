"""The list of operators says what the lowerings do; what a network needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convoy.driver.compile.expand import EXPANSIONS, expand
from convoy.driver.compile.join import join_functions
from convoy.driver.compile.lowering import lower_graph
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.lower.operands import MAX_PAD
from convoy.driver.lower.operators import LOWERINGS
from convoy.driver.lower.work import HostWork
from convoy.driver.report.operators import ENGINE_MEANINGS, catalogue, needs
from convoy.spec.config import PRESETS
from convoy.verif.litert import ModelBuilder
from convoy.verif.operators import operator_files
from convoy.verif.refdoc import where_tested

Q = PRESETS["Q"]
DTYPES = (np.int8, np.uint8, np.int16, np.float32)
UNTRIED = {"READ_VARIABLE", "ASSIGN_VARIABLE"}
"""Operators without a file of one of them."""
ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "examples" / "digits_int8.tflite"
FILES = [operator_files(dtype) for dtype in DTYPES]
ENTRIES = {entry.kind: entry for entry in catalogue()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_are_those_that_the_npu_takes(dtype):
    """Operators without a file are not LiteRT's with this dtype."""

    def is_taken(model):
        try:
            works = lower_graph(expand(join_functions(read_tflite(model)), Q))
        except GraphError:
            return False
        return not any(isinstance(work, HostWork) for work in works)

    taken = {kind for kind, model in operator_files(dtype).items() if is_taken(model)}
    listed = {kind for kind, entry in ENTRIES.items() if np.dtype(dtype).name in entry.dtypes}
    assert taken == listed - UNTRIED


def test_every_lowering_is_listed_with_its_engine_and_its_limits():
    assert set(LOWERINGS) | set(EXPANSIONS) == set(ENTRIES) - {"SOFTMAX", "DEQUANTIZE"} | {"TABLE"}
    assert all(set(entry.engines) <= set(ENGINE_MEANINGS) and entry.engines for entry in ENTRIES.values())
    assert [ENTRIES[kind].engines for kind in ("CONV_2D", "TANH", "RESHAPE", "SOFTMAX")] == [
        ("NN",),
        ("table",),
        ("view",),
        ("host",),
    ]
    assert f"pads pad and after along name; the limit is {MAX_PAD}" in ENTRIES["CONV_2D"].limits


@pytest.mark.parametrize("kind", ENTRIES)
def test_the_test_that_the_page_names_is_there(kind):
    text = (ROOT / where_tested(kind)).read_text()
    assert f'"{kind}"' in text or ("operator_files" in text and any(kind in files for files in FILES))


def test_what_a_network_needs():
    graph = read_tflite(DIGITS)
    rows = needs(graph, compile_graph(graph, Q))
    assert sum(row["count"] for row in rows) == len(graph.ops)
    assert [(row["op"], row["count"], bool(row["remedy"])) for row in rows if row["reason"]] == [("SOFTMAX", 1, True)]


def test_what_became_several_operators_is_one():
    """PRELU of several slopes, and a chain in float that is one table."""
    quant, builder = (0.05, 3), ModelBuilder()
    source, target = builder.tensor((1, 4, 3, 2), np.int8, *quant), builder.tensor((1, 4, 3, 2), np.int8, *quant)
    slopes = builder.tensor((2,), np.int8, *quant, data=np.array([9, -4]))
    before, behind = (builder.tensor((1, 4, 3, 2), np.float32) for _ in range(2))
    builder.op("PRELU", [source, slopes], [target])
    builder.op("DEQUANTIZE", [target], [before])
    builder.op("EXP", [before], [behind], version=1)
    made = builder.tensor((1, 4, 3, 2), np.int8, *quant)
    builder.op("QUANTIZE", [behind], [made])
    graph = read_tflite(builder.finish([source], [made]))
    rows = needs(graph, compile_graph(graph, Q))
    assert [(row["op"], row["count"], row["reason"]) for row in rows] == [
        (kind, 1, "") for kind in ("DEQUANTIZE", "EXP", "PRELU", "QUANTIZE")
    ]
    assert [row["engine"] == "merged" for row in rows] == [True, True, False, False]
