"""Networks as C: names, texts, numbers. That they run is tested beside the runtime."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convoy.driver.c import runtime_files
from convoy.driver.c.arrays import MAX_DIMS, c_files, c_name, left_out
from convoy.driver.c.layout import ALIGN_BYTES, layout_of
from convoy.driver.c.offload import find_offload
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.spec.config import PRESETS

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"


@pytest.fixture(scope="module")
def plan():
    return compile_graph(read_tflite(DIGITS), PRESETS["Q"])


def test_one_file_or_two(plan):
    two, one = (c_files(plan, find_offload(plan), "d.tflite", Path(name)) for name in ("digits.c", "digits.h"))
    assert [path.name for path in two] == ["digits.c", "digits.h"]
    assert [path.name for path in one] == ["digits.h"]
    assert "extern const convoy_network digits_network;" in two[Path("digits.h")]
    assert "static const convoy_network digits_network = {" in one[Path("digits.h")]


def test_words_are_the_constants(plan):
    found = find_offload(plan)
    text = c_files(plan, found, "d.tflite", Path("digits.c"))[Path("digits.c")]
    for name, expected in (
        ("constants", layout_of([step.program for step in found.steps]).constants),
        ("descriptors", b"".join(layout_of([step.program for step in found.steps]).descriptors)),
    ):
        block = re.search(rf"digits_{name}\[\] = {{(.*?)}};", text, re.DOTALL).group(1)
        words = np.array([int(word, 16) for word in re.findall(r"0x\w+", block)], "<u4")
        assert words.tobytes() == expected


def test_tensors_are_described(plan):
    text = c_files(plan, find_offload(plan), "d.tflite", Path("digits.h"))[Path("digits.h")]
    tensor = plan.graph.tensors[plan.graph.inputs[0]]
    addr = plan.placements[tensor.index].addr
    row = f'{{"input", {addr}u, 64u, 4u, {{1u, 8u, 8u, 1u}}, CONVOY_INT8, CONVOY_LINEAR, 0.003921569f, -128}},'
    assert row in text
    assert " * left to the application, behind the NPU's: operator 9 SOFTMAX: SOFTMAX is not supported" in text
    assert "of configuration Q" in left_out.__doc__ or "for configuration Q" in text


def test_any_name_is_a_string_of_c(plan):
    """And ends no comment."""
    (index,) = plan.graph.inputs
    tensors = [replace(t, name='a"\\?\n*/ü') if t.index == index else t for t in plan.graph.tensors]
    named = replace(plan, graph=replace(plan.graph, tensors=tuple(tensors)))
    text = c_files(named, find_offload(named), "m*/.tflite", Path("digits.h"))[Path("digits.h")]
    assert r'{"a\042\134\077\012*/\303\274", ' in text
    assert text.index("*/") == text.index(" */\n#ifndef") + 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("net.txt", r"ends in \.c"),
        ("1net.c", "letters, digits and underscores"),
        ("my net.c", "letters, digits and underscores"),
        ("convoy_regs.h", "are the runtime's"),
    ],
)
def test_files_that_are_no_names(path, message):
    with pytest.raises(GraphError, match=message):
        c_name(Path(path))


def test_names():
    assert c_name(Path("some/ds-cnn_2.c")) == "ds_cnn_2"


def test_what_the_runtime_does_not_know(plan):
    (index,) = plan.graph.inputs

    def changed(**values):
        tensors = [replace(t, **values) if t.index == index else t for t in plan.graph.tensors]
        return replace(plan, graph=replace(plan.graph, tensors=tuple(tensors)))

    with pytest.raises(GraphError, match=r"'input' is int32; the C runtime copies int8, uint8, int16, bool"):
        c_files(changed(dtype=np.dtype(np.int32)), find_offload(plan), "d", Path("d.h"))
    deep = replace(plan.placements[index], shape=(1,) * (MAX_DIMS + 1))
    with pytest.raises(GraphError, match="has 9 dimensions; the C runtime takes at most 8"):
        c_files(replace(plan, placements=plan.placements | {index: deep}), find_offload(plan), "d", Path("d.h"))


def test_the_runtime_has_the_same_limits():
    text = runtime_files()["convoy.h"]
    assert f"#define CONVOY_MAX_DIMS {MAX_DIMS}u" in text
    assert f"#define CONVOY_ALIGN {ALIGN_BYTES}u" in text
