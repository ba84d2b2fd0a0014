"""The list of operators says what the lowerings do; what a network needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convoy.driver.compile.lowering import lower_graph
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.lower.operators import LOWERINGS, MAX_PAD
from convoy.driver.lower.work import HostWork
from convoy.driver.report.operators import ENGINE_MEANINGS, catalogue, needs
from convoy.driver.report.plan_report import plan_report
from convoy.spec.config import PRESETS
from convoy.verif.operators import operator_files
from convoy.verif.refdoc import where_tested

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "examples" / "digits_int8.tflite"
ENTRIES = {entry.kind: entry for entry in catalogue()}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_dtypes_are_those_that_the_npu_takes(dtype):
    files = operator_files(dtype)
    works = {kind: lower_graph(read_tflite(model))[0] for kind, model in files.items()}
    taken = {kind for kind, work in works.items() if not isinstance(work, HostWork)}
    assert taken == {kind for kind in files if np.dtype(dtype).name in ENTRIES[kind].dtypes}


def test_every_lowering_is_listed_with_its_engine_and_its_limits():
    assert set(LOWERINGS) <= set(ENTRIES)
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
    assert f'"{kind}"' in text or ("operator_files" in text and kind in operator_files(np.int8))


def test_what_a_network_needs():
    graph = read_tflite(DIGITS)
    rows = needs(plan_report(compile_graph(graph, PRESETS["Q"])))
    assert sum(row["count"] for row in rows) == len(graph.ops)
    assert [(row["op"], row["count"], bool(row["remedy"])) for row in rows if row["reason"]] == [("SOFTMAX", 1, True)]
