"""ONNX files of every kind: read, run on the golden machine, and compared with onnxruntime tensor by tensor."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.onnx_reader import load_float, load_onnx
from convoy.spec.config import PRESETS
from convoy.verif.onnx_models import check_onnx, qdq_model, quantised_weights

Q = PRESETS["Q"]
NODE = helper.make_node
RNG = np.random.default_rng(0)
WEIGHTS = RNG.integers(-127, 128, (8, 6, 3, 3)).astype(np.int8)
SCALES = RNG.uniform(0.002, 0.01, 8)
IMAGE = (1, 6, 7, 5)
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]


def plain(kind, x, constants=(), **attrs):
    """One node with constants behind its activations."""
    names = {f"c{n}": np.asarray(values) for n, values in enumerate(constants)}
    return [NODE(kind, [*x, *names], ["y"], **attrs)], names


def weighted(kind, x, weights=WEIGHTS, scale=0.004, zero_point=0, axis=0, bias=None, then=(), **attrs):
    """A node with quantised weights, perhaps a float bias, and nodes behind it."""
    nodes, constants = quantised_weights("w", weights, scale, zero_point, axis)
    more = {} if bias is None else {"bias": np.asarray(bias, np.float32)}
    names = ["m", *(f"m{n}" for n in range(len(then)))]
    names[-1] = "y"
    nodes = [*nodes, NODE(kind, [*x, "w", *more], [names[0]], **attrs)]
    nodes += [NODE(other, [names[n]], [names[n + 1]]) for n, other in enumerate(then)]
    return nodes, constants | more


def silu(x):
    return [NODE("Sigmoid", x, ["s"]), NODE("Mul", [x[0], "s"], ["y"])], {}


def moved(x):
    return [
        NODE("Transpose", x, ["t"], perm=[0, 2, 3, 1]),
        NODE("Relu", ["t"], ["r"]),
        NODE("Flatten", ["r"], ["y"]),
    ], {}


def pixel_shuffle(x):
    shapes = {"c0": np.int64([1, 2, 3, 3, 3, 4]), "c1": np.int64([1, 2, 9, 12])}
    return [
        NODE("Reshape", [*x, "c0"], ["r"]),
        NODE("Transpose", ["r"], ["t"], perm=[0, 1, 4, 2, 5, 3]),
        NODE("Reshape", ["t", "c1"], ["y"]),
    ], shapes


CASES = {
    "conv": ([IMAGE], partial(weighted, "Conv", scale=SCALES, pads=[1, 0, 2, 1], strides=[2, 1]), set()),
    "conv_bias": ([IMAGE], partial(weighted, "Conv", bias=RNG.normal(size=8)), set()),
    "conv_same_lower": ([IMAGE], partial(weighted, "Conv", auto_pad="SAME_LOWER", strides=[2, 2]), set()),
    "conv_dilated": ([(1, 6, 9, 9)], partial(weighted, "Conv", dilations=[2, 3]), set()),
    "conv_depthwise": ([IMAGE], partial(weighted, "Conv", weights=WEIGHTS[:6, :1], group=6), set()),
    "conv_1d": ([(1, 6, 11)], partial(weighted, "Conv", weights=WEIGHTS[:, :, 0].copy(), pads=[1, 1]), set()),
    "conv_leaky": ([IMAGE], partial(weighted, "Conv", then=["LeakyRelu"]), {"FusedConv"}),
    "conv_1d_batch": ([(2, 6, 11)], partial(weighted, "Conv", weights=WEIGHTS[:, :3, 0].copy(), group=2), set()),
    "matmul": ([(1, 4, 6)], partial(weighted, "MatMul", weights=WEIGHTS[:6, 0].reshape(6, 9)), set()),
    "gemm": ([(3, 6)], partial(weighted, "Gemm", weights=WEIGHTS[:, :, 0, 0].copy(), bias=np.ones(8), transB=1), set()),
    "gemm_turned": (
        [(6, 3)],
        partial(weighted, "Gemm", weights=WEIGHTS[:, :, 0, 0].copy(), bias=np.ones(8), transA=1, transB=1),
        set(),
    ),
    "matmul_activations": ([(1, 4, 6), (1, 6, 5)], partial(plain, "MatMul"), {"QLinearMatMul"}),
    "add": ([IMAGE, IMAGE], partial(plain, "Add"), set()),
    "add_broadcast": ([IMAGE, (1, 6, 1, 1)], partial(plain, "Add"), set()),
    "add_scalar": ([IMAGE], partial(plain, "Add", constants=[np.float32(0.7)]), set()),
    "sub": ([IMAGE, IMAGE], partial(plain, "Sub"), set()),
    "mul": ([IMAGE, IMAGE], partial(plain, "Mul"), set()),
    "div": ([IMAGE, (1, 1, 1, 1)], partial(plain, "Div"), {"Div"}),
    "relu": ([IMAGE], partial(plain, "Relu"), set()),
    "clip": ([IMAGE], partial(plain, "Clip", constants=[np.float32(0), np.float32(6)]), set()),
    "leaky_relu": ([IMAGE], partial(plain, "LeakyRelu", alpha=0.1), set()),
    "sigmoid": ([IMAGE], partial(plain, "Sigmoid"), set()),
    "tanh": ([IMAGE], partial(plain, "Tanh"), set()),
    "hard_swish": ([IMAGE], partial(plain, "HardSwish"), set()),
    "silu": ([IMAGE], silu, set()),
    "prelu": ([IMAGE], partial(plain, "PRelu", constants=[RNG.random((6, 1, 1), np.float32)]), {"PRelu"}),
    "softmax": ([(1, 6)], partial(plain, "Softmax", axis=1), {"QLinearSoftmax"}),
    "max_pool": ([IMAGE], partial(plain, "MaxPool", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1), set()),
    "average_pool": ([IMAGE], partial(plain, "AveragePool", kernel_shape=[3, 3]), set()),
    "global_average": ([IMAGE], partial(plain, "GlobalAveragePool"), set()),
    "global_max": ([IMAGE], partial(plain, "GlobalMaxPool"), set()),
    "reduce_mean": ([(1, 6, 2, 2)], partial(plain, "ReduceMean", axes=[2, 3]), set()),
    "reduce_mean_of_channels": ([IMAGE], partial(plain, "ReduceMean", axes=[1]), {"ReduceMean"}),
    "concat": ([IMAGE, (1, 4, 7, 5)], partial(plain, "Concat", axis=1), set()),
    "resize": (
        [IMAGE],
        partial(plain, "Resize", constants=[np.float32([]), np.float32([1, 1, 2, 1.5])], mode="nearest"),
        set(),
    ),
    "resize_linear": (
        [IMAGE],
        partial(plain, "Resize", constants=[np.float32([]), np.float32([1, 1, 2, 2])], mode="linear"),
        {"Resize"},
    ),
    "pad": ([IMAGE], partial(plain, "Pad", constants=[np.int64([0, 0, 1, 2, 0, 0, 0, 1])]), set()),
    "slice": ([IMAGE], partial(plain, "Slice", constants=[np.int64(v) for v in ([1], [-1], [2], [2])]), set()),
    "gather": ([IMAGE], partial(plain, "Gather", constants=[np.int64([1, 3, 5])], axis=1), set()),
    "gather_one": ([IMAGE], partial(plain, "Gather", constants=[np.int64(2)], axis=2), set()),
    "moved": ([IMAGE], moved, set()),
    "depth_to_space": ([(1, 8, 3, 4)], partial(plain, "DepthToSpace", blocksize=2), set()),
    "depth_to_space_by_channel": ([(1, 12, 3, 4)], partial(plain, "DepthToSpace", blocksize=2, mode="CRD"), set()),
    "pixel_shuffle": ([(1, 18, 3, 4)], pixel_shuffle, set()),
    "space_to_depth": ([(1, 3, 4, 6)], partial(plain, "SpaceToDepth", blocksize=2), set()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_float_operator_between_quantised_tensors_is_onnxruntimes(name, dtype):
    shapes, make, hosted = CASES[name]
    _, found = check_onnx(qdq_model(shapes, make, dtype=dtype), Q)
    assert found == hosted


TRANSPOSED = {"weights": WEIGHTS.transpose(1, 0, 2, 3)[:6].copy(), "strides": [2, 2], "pads": [1, 1, 0, 0]}
TURNED = {"transA": 1, "transB": 1}
FLOATS = {
    "conv_transpose": ([IMAGE], partial(weighted, "ConvTranspose", **TRANSPOSED, bias=np.ones(8))),
    "conv_transpose_groups": (
        [(2, 6, 7, 5)],
        partial(weighted, "ConvTranspose", **TRANSPOSED | {"group": 2}, bias=np.ones(16)),
    ),
    "conv_transpose_group_scales": (
        [IMAGE],
        partial(weighted, "ConvTranspose", **TRANSPOSED | {"group": 3, "dilations": [2, 3]}, scale=SCALES, axis=1),
    ),
    "conv_transpose_size": (
        [IMAGE],
        partial(weighted, "ConvTranspose", weights=TRANSPOSED["weights"], strides=[2, 2], output_shape=[14, 11]),
    ),
    "conv_transpose_same": (
        [IMAGE],
        partial(weighted, "ConvTranspose", weights=TRANSPOSED["weights"], strides=[3, 2], auto_pad="SAME_UPPER"),
    ),
    "conv_transpose_1d": (
        [(1, 6, 11)],
        partial(weighted, "ConvTranspose", weights=TRANSPOSED["weights"][:, :, 0].copy(), strides=[2], pads=[1, 0]),
    ),
    "conv_relu": ([IMAGE], partial(weighted, "Conv", bias=RNG.normal(size=8), then=["Relu"])),
    "depthwise_relu": ([IMAGE], partial(weighted, "Conv", weights=WEIGHTS[:6, :1], group=6, then=["Relu"])),
    "gemm_factors": (
        [(6, 3)],
        partial(
            weighted, "Gemm", weights=WEIGHTS[:, :, 0, 0].copy(), bias=np.ones((1, 8)), alpha=0.3, beta=2.0, **TURNED
        ),
    ),
    "gemm_relu": ([(3, 6)], partial(weighted, "Gemm", weights=WEIGHTS[:6, :, 0, 0].copy(), then=["Relu"])),
}


@pytest.mark.parametrize("name", FLOATS)
def test_what_onnxruntime_adds_in_float32_may_differ_by_one(name):
    shapes, make = FLOATS[name]
    num_groups = make.keywords.get("group", 1) if make.args == ("ConvTranspose",) else 1
    plan, hosted = check_onnx(qdq_model(shapes, make), Q, num_doubts=num_groups * 8 * 255)
    assert hosted == set()
    assert plan.doubts


def test_products_with_too_many_ties_are_left_to_the_host():
    _, hosted = check_onnx(qdq_model([IMAGE, IMAGE], partial(plain, "Mul"), scale=0.0625, scale_out=0.125), Q)
    assert hosted == {"MUL"}


@pytest.mark.parametrize("opset", [13, 18, 21])
@pytest.mark.parametrize(("dtype", "zero_point"), [(np.uint8, 120), (np.int8, 5)])
def test_asymmetric_weights_in_every_opset(opset, dtype, zero_point):
    weights = (WEIGHTS.view(np.uint8) ^ 0x80 if dtype is np.uint8 else WEIGHTS).copy()
    make = partial(weighted, "Conv", weights=weights, zero_point=zero_point)
    _, hosted = check_onnx(qdq_model([IMAGE], make, dtype=np.uint8, opset=opset), Q)
    assert hosted == set()


def conv_network(**attrs) -> bytes:
    """A QLinearConv on bytes, as the operator's own quantised form, with bytes at the edges."""
    constants = {
        "x_scale": np.float32(0.02), "x_zero_point": np.uint8(120), "w": WEIGHTS[:, :3].view(np.uint8),
        "w_scale": np.float32(0.004), "w_zero_point": np.uint8(99), "y_scale": np.float32(0.06),
        "y_zero_point": np.uint8(30), "bias": np.arange(8, dtype=np.int32) * 100,
    }  # fmt: skip
    graph = helper.make_graph(
        [NODE("QLinearConv", ["x", *constants], ["y"], **attrs)],
        "qlinear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()


def test_qlinear_operators_on_bytes():
    plan, hosted = check_onnx(conv_network(pads=[1, 1, 1, 1]), Q)
    assert hosted == set()
    assert [op.kind for op in plan.graph.ops] == ["TRANSPOSE", "CONV_2D", "TRANSPOSE"]
    assert any("batch" in note for note in plan.graph.notes)


@pytest.mark.parametrize("shape", [(8,), (1, 8)])
def test_a_qgemm_with_a_factor(shape):
    constants = {"s": np.float32(0.05), "z": np.uint8(99), "w": WEIGHTS[:, :, 0, 0], "v": np.float32(0.004),
                 "n": np.int8(0), "bias": np.arange(8, dtype=np.int32).reshape(shape) * 100,
                 "t": np.float32(0.0213)}  # fmt: skip
    names = ["x", "s", "z", "w", "v", "n", "bias", "t", "z"]
    node = NODE("QGemm", names, ["y"], domain="com.microsoft", alpha=0.3, transB=1)
    plan, hosted = check_onnx(_network([node], {"x": (np.uint8, (5, 6))}, ["y"], constants, np.uint8), Q)
    assert hosted == set()
    assert not plan.doubts


@pytest.mark.parametrize("names", [("x", "one"), ("one", "x"), ("x", "x")])
def test_a_qlinear_operator_on_one_tensor_is_a_table(names):
    quant = {"s": np.float32(0.05), "z": np.uint8(99), "t": np.float32(0.0713), "one": np.uint8(180)}
    node = NODE("QLinearAdd", [names[0], "s", "z", names[1], "s", "z", "t", "z"], ["y"], domain="com.microsoft")
    plan, hosted = check_onnx(_network([node], {"x": (np.uint8, IMAGE)}, ["y"], quant, np.uint8), Q)
    assert hosted == set()
    assert "TABLE" in {op.kind for op in plan.graph.ops}


def test_the_shapes_of_inputs_can_be_given():
    assert load_onnx(conv_network(), {"x": (1, 3, 8, 8)}).graph.notes == ()
    with pytest.raises(GraphError, match="axis 2 is 8 in the file"):
        load_onnx(conv_network(), {"": (1, 3, 9, 9)})
    with pytest.raises(GraphError, match="--shape z: no such input; the inputs are x"):
        load_onnx(conv_network(), {"z": (1, 3, 8, 8)})


def test_an_input_without_a_shape_is_given_one():
    model = onnx.load_model_from_string(conv_network())
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(GraphError, match="input x: its shape is not known; give it by --shape x=1x"):
        load_onnx(model.SerializeToString())
    loaded = load_onnx(model.SerializeToString(), {"x": (1, 3, 8, 8)})
    assert loaded.graph.tensors[loaded.graph.inputs[0]].shape == (1, 3, 8, 8)


def _float_network() -> bytes:
    value = partial(helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = helper.make_graph(
        [NODE("Relu", ["x"], ["y"])], "float", [value("x", shape=[1, 4])], [value("y", shape=[1, 4])]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()


def test_a_float_network_says_how_to_quantise_it(tmp_path):
    with pytest.raises(GraphError, match="not quantised: convoy quantize MODEL --calibration FOLDER"):
        load_onnx(_float_network())
    path = tmp_path / "float.onnx"
    path.write_bytes(_float_network())
    assert load_float(path)[1]["x"].shape == (1, 4)
    path.write_bytes(conv_network())
    with pytest.raises(GraphError, match="quantised already"):
        load_float(path)


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"", "not an ONNX file"), (b"\xff" * 99, "not an ONNX file"), (conv_network()[:-99], "not an ONNX file")],
)
def test_damaged_files_are_one_line(raw, text):
    with pytest.raises(GraphError, match=text) as info:
        load_onnx(raw)
    assert "\n" not in str(info.value)


def test_sequences_are_refused():
    def split(x):
        nodes = [NODE("SplitToSequence", x, ["s"], axis=1), NODE("SequenceAt", ["s", "at"], ["y"])]
        return nodes, {"at": np.array(0, np.int64)}

    with pytest.raises(GraphError, match="sequences and subgraphs"):
        load_onnx(qdq_model([(1, 4)], split))


def _network(nodes, inputs, outputs, constants=None, dtype=np.float32) -> bytes:
    """Inputs as (dtype, shape) by name, the names of outputs and their dtype."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [
            info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
            for name, (dtype, shape) in inputs.items()
        ],
        [info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None) for name in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=10).SerializeToString()


def test_scales_chosen_at_run_time_are_the_hosts():
    nodes = [
        NODE("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        NODE("Neg", ["x"], ["n"]),
        NODE("QuantizeLinear", ["n", "s", "z"], ["m"]),
        NODE("DequantizeLinear", ["m", "s", "z"], ["y"]),
    ]
    plan, hosted = check_onnx(_network(nodes, {"x": (np.float32, [1, 4])}, ["y"]), Q)
    assert hosted == {"DynamicQuantizeLinear", "Neg", "QuantizeLinear", "DequantizeLinear"}
    assert any("quantise the float network statically" in note for note in plan.graph.notes)


def test_bytes_that_become_float_at_once():
    weights, constants = quantised_weights("w", WEIGHTS, 0.004)
    nodes = [NODE("DequantizeLinear", ["x", "s", "z"], ["f"]), *weights, NODE("Conv", ["f", "w"], ["y"])]
    constants |= {"s": np.float32(0.02), "z": np.uint8(128)}
    _, hosted = check_onnx(_network(nodes, {"x": (np.uint8, IMAGE)}, ["y"], constants), Q)
    assert hosted == {"Conv"}


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(GraphError, match=r"pip install 'convoy-npu\[onnx\]'"):
        load_onnx(b"")
