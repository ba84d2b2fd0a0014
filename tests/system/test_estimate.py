"""Estimated cycles against those of the compiled RTL: the digits network on every preset, small layers in a row,
random layers, layers bound by the tensor processor, and networks from a folder; every layer.
"""

import os
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import PRESETS
from convoy.verif.campaign import RTL_CONFIGS
from convoy.verif.estimates import FAR_APART, compare, separable_network
from convoy.verif.graphs import GraphMaker

DIGITS = Path(__file__).parents[2] / "examples" / "digits_int8.tflite"
CONFIGS = {**PRESETS, "small": RTL_CONFIGS["small"]}
LAYER_LIMIT, NETWORK_LIMIT = 0.10, 0.03
MODELS = sorted(Path(os.environ["CONVOY_MODELS"]).glob("*.tflite")) if "CONVOY_MODELS" in os.environ else []
"""Networks that are no part of this project."""


def check(found):
    """A network and its layers are within their limits."""
    assert abs(found.error) < NETWORK_LIMIT, found.whole
    assert not {index: found.layers[index] for index, error in found.layer_errors.items() if abs(error) >= LAYER_LIMIT}


@pytest.mark.parametrize("name", CONFIGS)
def test_digits(name):
    check(compare(compile_graph(read_tflite(DIGITS), CONFIGS[name])))


@pytest.mark.parametrize("name", ["Q", "O", "X"])
@pytest.mark.parametrize("shape", [(25, 5, 64), (24, 24, 16)], ids=lambda shape: "x".join(map(str, shape)))
def test_small_layers_that_wait_for_one_another(name, shape):
    """Many cores on a port that is narrow for them: what a job's pixels share it with decides."""
    check(compare(compile_graph(separable_network(*shape), CONFIGS[name])))


@pytest.mark.skipif(
    not MODELS, reason="set CONVOY_MODELS to a folder of TFLite files, such as the MLPerf Tiny networks"
)
@pytest.mark.parametrize("name", FAR_APART)
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_networks_of_a_folder(model, name):
    found = compare(compile_graph(read_tflite(model), FAR_APART[name]))
    assert abs(found.error) < NETWORK_LIMIT, found.whole


def strided(op, size, channels, kernel, stride, dtype="int8", pool="none"):
    num_oc = channels if op == "depthwise" else 8
    return make_layer(
        LayerSpec(op, (size, size, channels), num_oc, (kernel, kernel), (stride, stride), dtype=dtype, pool=pool)
    ).graph


def sum_of_int16(kind):
    maker = GraphMaker(1, np.int16)
    operands = [maker.tensor((1, 20, 20, 8), scale=scale) for scale in (0.05, 0.07)]
    return maker.graph(operands, [maker.op(kind, operands, (1, 20, 20, 8), activation="NONE")])


def pool_of_int16(kind):
    maker = GraphMaker(1, np.int16)
    source = maker.tensor((1, 21, 21, 6))
    target = maker.op(
        kind,
        (source,),
        (1, 11, 11, 6),
        padding="SAME",
        filter_h=3,
        filter_w=3,
        stride_h=2,
        stride_w=2,
        activation="NONE",
    )
    return maker.graph([source], [target])


TP_LAYERS = {
    "depthwise, stride 3": lambda: strided("depthwise", 30, 32, 3, 3),
    "depthwise, stride 5": lambda: strided("depthwise", 40, 16, 5, 5),
    "depthwise, stride 6": lambda: strided("depthwise", 42, 16, 5, 6),
    "convolution, stride 3": lambda: strided("conv", 96, 3, 3, 3),
    "convolution, stride 4": lambda: strided("conv", 96, 3, 4, 4),
    "convolution, stride 8": lambda: strided("conv", 48, 3, 8, 8),
    **{f"{op} of int16, stride 3": partial(strided, op, 40, 12, 3, 3, "int16") for op in ("conv", "depthwise")},
    "convolution of int16, stride 3, pool": lambda: strided("conv", 49, 12, 3, 3, "int16", "2x2"),
    **{f"{kind} of int16": partial(sum_of_int16, kind) for kind in ("ADD", "SUB")},
    **{f"{kind} of int16": partial(pool_of_int16, kind) for kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D")},
}
"""Layers that the tensor processor bounds, alone or with the NN engine on the same port."""


@pytest.mark.parametrize("name", TP_LAYERS)
def test_layers_bound_by_the_tensor_processor(name):
    graph = TP_LAYERS[name]()
    found = compare(compile_graph(replace(graph, inputs=()), CONFIGS["Q"], layers=range(1)))
    assert abs(found.error) < LAYER_LIMIT, found.whole


def random_layer(seed):
    rng = random.Random(seed)
    op = rng.choice(("conv", "conv", "depthwise"))
    num_ic, kernel, stride = rng.choice((3, 8, 16, 24, 32)), rng.choice((1, 3, 5)), rng.choice((1, 1, 2))
    num_oc, pad = num_ic if op == "depthwise" else rng.choice((8, 10, 16, 32)), rng.choice((0, kernel // 2))
    return LayerSpec(
        op,
        (rng.randint(8, 24), rng.randint(8, 24), num_ic),
        num_oc,
        (kernel, kernel),
        (stride, stride),
        (pad,) * 4,
        rng.choice((1, 0.5, 0.2)),
    )


@pytest.mark.parametrize("name", ["Q", "small"])
def test_fused_pools_of_int16(name):
    layers = [
        LayerSpec(op, (extent, extent, 12), 12, (3, 3), pads=(1,) * 4, pool=pool, dtype="int16")
        for op in ("conv", "depthwise")
        for extent, pool in ((16, "2x2"), (15, "3x3"), (24, "2x2"))
    ]
    found = {
        layer: compare(compile_graph(replace(make_layer(layer).graph, inputs=()), CONFIGS[name])) for layer in layers
    }
    assert not {layer: each.whole for layer, each in found.items() if abs(each.error) >= LAYER_LIMIT}


@pytest.mark.parametrize("name", ["Q", "small"])
def test_random_layers(name):
    found = {}
    for seed in range(8):
        graph = make_layer(random_layer(seed), seed).graph
        found[seed] = compare(compile_graph(replace(graph, inputs=()), CONFIGS[name], layers=range(1)))
    assert not {seed: each.whole for seed, each in found.items() if abs(each.error) >= LAYER_LIMIT}
