"""Networks whose file does not know all sizes: an unknown batch is 1, the rest is given, and every result has the
shape that LiteRT computes.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from convoy.driver import cli
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import load_tflite, read_tflite
from convoy.driver.graph.tflite_shapes import parse_shapes
from convoy.driver.litert import process as litert_process
from convoy.spec.config import NpuConfig
from convoy.verif.graphs import random_values, run_plan
from convoy.verif.litert import ModelBuilder, run_reference
from convoy.verif.operators import edited

SMALL = NpuConfig(
    num_cores=2, num_lanes=8, num_acc_entries=16, post_lanes=2, stripe_bytes=4096, window_words=32, tp_buffer_bytes=1024
)


def network(signature, num_inputs=1) -> bytes:
    """A convolution of stride 2, a pool and the mean of each channel, flattened; or of the sum of two inputs.

    As converters do, unknown sizes are written as 1.
    """
    rng, builder = np.random.default_rng(2), ModelBuilder()
    known = [1 if extent == -1 else extent for extent in signature]
    sources = [builder.tensor(known, np.int8, 0.05, 3, name=f"image{number}") for number in range(num_inputs)]
    image = sources[0]
    if num_inputs == 2:
        image = builder.tensor(known, np.int8, 0.1, 3)
        builder.op("ADD", sources, [image])
    wgt = builder.tensor((6, 3, 3, 3), np.int8, 0.01, 0, data=rng.integers(-127, 128, (6, 3, 3, 3)))
    bias, axes, flat = (
        builder.tensor(np.shape(values), np.int32, data=np.array(values))
        for values in (rng.integers(-900, 900, 6), [1, 2], [-1, 6])
    )
    conv, pool = (builder.tensor((1, 1, 1, 6), np.int8, 0.2, -5) for _ in range(2))
    mean, result = builder.tensor((1, 1, 1, 6), np.int8, 0.2, -5), builder.tensor((1, 6), np.int8, 0.2, -5)
    builder.op("CONV_2D", [image, wgt, bias], [conv], strideH=2, strideW=2, padding=0)
    builder.op("MAX_POOL_2D", [conv], [pool], filterHeight=2, filterWidth=2, strideH=2, strideW=2, padding=0)
    builder.op("MEAN", [pool, axes], [mean], keepDims=True)
    builder.op("RESHAPE", [mean, flat], [result])

    def sign(packed, subgraph):
        for index in (*sources, image, conv, pool, mean):
            subgraph.tensors[index].shapeSignature = [*signature[:3], subgraph.tensors[index].shape[3]]

    return edited(builder.finish(sources, [result]), sign)


HW = network([1, -1, -1, 3])
ALL = network([-1, -1, -1, 3])
BATCH = network([-1, 8, 9, 3])
TWO = network([-1, -1, 7, 3], 2)


def check(model: bytes, shapes) -> None:
    """Every tensor is LiteRT's, in its shape; the file that is handed on gives them too."""
    loaded = load_tflite(model, shapes)
    inputs = random_values(loaded.graph, 1)
    got = run_plan(compile_graph(loaded.graph, SMALL, keep_tensors=True, is_fusing=False), dict(inputs))
    expected = run_reference(loaded.data, list(inputs.values()))
    for op in loaded.graph.ops:
        assert got[op.outputs[0]].shape == expected[op.outputs[0]].shape == loaded.graph.tensors[op.outputs[0]].shape
        np.testing.assert_array_equal(got[op.outputs[0]], expected[op.outputs[0]])


@pytest.mark.parametrize(
    ("model", "shapes", "extents"),
    [
        (HW, {"": (1, 8, 9, 3)}, [(1, 4, 5, 6), (1, 2, 3, 6), (1, 1, 1, 6), (1, 6)]),
        (ALL, {"image0": (1, 13, 6, 3)}, [(1, 7, 3, 6), (1, 4, 2, 6), (1, 1, 1, 6), (1, 6)]),
        (BATCH, {}, [(1, 4, 5, 6), (1, 2, 3, 6), (1, 1, 1, 6), (1, 6)]),
        (
            TWO,
            {"image1": (1, 5, 7, 3), "image0": (1, 5, 7, 3)},
            [(1, 5, 7, 3), (1, 3, 4, 6), (1, 2, 2, 6), (1, 1, 1, 6), (1, 6)],
        ),
    ],
    ids=["rows and columns", "all", "batch", "two inputs"],
)
def test_shapes_of_results(model, shapes, extents):
    graph = read_tflite(model, shapes)
    assert [graph.tensors[op.outputs[0]].shape for op in graph.ops] == extents
    check(model, shapes)


def test_what_is_assumed_is_said():
    assert read_tflite(BATCH).notes == ("the batch of input image0 is unknown: it is taken as 1",)
    assert read_tflite(ALL, {"": (1, 8, 8, 3)}).notes == ()


@pytest.mark.parametrize(
    ("model", "shapes", "message"),
    [
        (
            HW,
            {},
            (
                r"input image0 is 1x\?x\?x3, of unknown \(\?\) size; give its shape: --shape image0=1x\?x\?x3 with "
                r"numbers "
                r"for \?"
            ),
        ),
        (ALL, {}, r"input image0 is \?x\?x\?x3, .* --shape image0=1x\?x\?x3"),
        (TWO, {"image0": (1, 5, 7, 3)}, r"input image1 is \?x\?x7x3, .* --shape image1=1x\?x7x3"),
        (
            HW,
            {"": (1, 8, 9, 4)},
            r"--shape image0=1x8x9x4: this input is 1x\?x\?x3; only what is unknown \(\?\) can be given",
        ),
        (HW, {"": (2, 8, 9, 3)}, r"--shape image0=2x8x9x3: this input is 1x\?x\?x3"),
        (
            HW,
            {"": (1, 100_000, 100_000, 3)},
            r"--shape image0=1x100000x100000x3: 30,000,000,000 numbers; the limit is 268,435,456",
        ),
        (HW, {"": (8, 9, 3)}, r"--shape image0=8x9x3: this input is 1x\?x\?x3"),
        (network([1, 8, 9, 3]), {"": (1, 8, 8, 3)}, r"--shape image0=1x8x8x3: this input is 1x8x9x3"),
        (
            HW,
            {"picture": (1, 8, 9, 3)},
            r"--shape picture=1x8x9x3: 0 inputs are called picture; they are image0=1x\?x\?x3",
        ),
        (
            TWO,
            {"": (1, 5, 7, 3)},
            r"it names no input, and the network has 2; they are image0=\?x\?x7x3, image1=\?x\?x7x3",
        ),
        (HW, {"": (1, 8, 9, 3), "image0": (1, 8, 8, 3)}, "the shape of image0 is given twice"),
        (
            TWO,
            {"image0": (1, 5, 7, 3), "image1": (1, 6, 7, 3)},
            "the shapes of the network cannot be computed; LiteRT says: .*ADD",
        ),
    ],
    ids=range(12),
)
def test_refusals(model, shapes, message):
    with pytest.raises(GraphError, match=message) as caught:
        read_tflite(model, shapes)
    assert "\n" not in str(caught.value)


def test_a_batch_that_is_given():
    assert read_tflite(BATCH, {"": (4, 8, 9, 3)}).tensors[0].shape == (4, 8, 9, 3)


def test_the_death_of_litert_is_one_line(monkeypatch):
    """As on files that make it abort. Sizes that the file has are taken where only the batch is unknown."""
    consistent = edited(
        load_tflite(BATCH).data, lambda packed, subgraph: setattr(subgraph.tensors[0], "shapeSignature", [-1, 8, 9, 3])
    )
    unknown = edited(consistent, lambda packed, subgraph: setattr(subgraph.tensors[5], "shapeSignature", [-1, 4, 5, 6]))
    monkeypatch.setattr(litert_process, "_servers", {})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(
        GraphError, match=r"the shapes of the network cannot be computed; LiteRT says: (it aborts|its process ends)"
    ):
        read_tflite(HW, {"": (1, 8, 9, 3)})
    assert read_tflite(unknown).tensors[5].shape == (1, 4, 5, 6)
    litert_process._stop_server()


@pytest.mark.parametrize("text", ["", "=", "a=", "1x", "1x-2", "1x2.0", "1x0x2", "a=1xb", "1x99999999999", "a=1x2=3y"])
def test_texts_that_are_no_shapes(text):
    with pytest.raises(GraphError, match=r"give positive sizes separated by x"):
        parse_shapes([text])


def test_texts_of_shapes():
    assert parse_shapes(["1x96x96x3"]) == {"": (1, 96, 96, 3)}
    assert parse_shapes(["a=b:0=1X2", "c=7"]) == {"a=b:0": (1, 2), "c": (7,)}
    with pytest.raises(GraphError, match="given twice"):
        parse_shapes(["a=1x2", "a=1x2"])


@pytest.mark.parametrize(
    "command", ["run --device golden --json", "estimate --json", "compile --json", "profile --device model --json"]
)
def test_every_command_takes_shapes(command, monkeypatch, capsys, tmp_path):
    """One that is needed, one that is missing, and an unknown batch, which is in the report."""
    (tmp_path / "hw.tflite").write_bytes(HW)
    (tmp_path / "batch.tflite").write_bytes(BATCH)

    def convoy(model: str, *options: str) -> tuple[int, str, str]:
        name, *rest = command.split()
        monkeypatch.setattr(sys, "argv", ["convoy", name, str(tmp_path / model), *rest, "-", *options])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, *capsys.readouterr()

    code, out, _ = convoy("hw.tflite", "--shape", "image0=1x8x9x3")
    assert (code, json.loads(out)["notes"], json.loads(out)["macs"]) == (0, [], 4 * 5 * 6 * 27)
    code, out, err = convoy("hw.tflite")
    assert (code, out, err.count("\n")) == (2, "", 1)
    code, out, _ = convoy("batch.tflite")
    assert (code, json.loads(out)["notes"]) == (0, ["the batch of input image0 is unknown: it is taken as 1"])
    if command.startswith("run"):
        assert json.loads(out)["bit_exact"] is True
