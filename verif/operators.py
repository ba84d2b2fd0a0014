"""A small TFLite file of every operator that the compiler knows, for activations of each dtype; and changes to such
files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convoy.driver.lower.functions import FLOAT_KINDS

from .litert import (
    ModelBuilder,
    Quantisation,
    add_model,
    conv_model,
    depthwise_model,
    fully_connected_model,
    pool_model,
    unary_model,
)
from .models import one_op

__all__ = ["NO_REFERENCE", "edited", "operator_files", "retyped"]

IMAGE = (1, 5, 6, 4)
NO_REFERENCE = frozenset(("CEIL", "ELU", "ROUND"))
"""Operators that LiteRT has ordinary kernels of, and no reference kernels."""
_ROOTS = "LOG", "RSQRT", "SQRT"
"""Functions of positive numbers."""
_PAIRS = "ADD", "SUB", "MUL", "DIV", "FLOOR_DIV", "FLOOR_MOD", "POW", "SQUARED_DIFFERENCE", "MAXIMUM", "MINIMUM"


def edited(model: bytes, edit: Callable[[Any, Any], Any]) -> bytes:
    """A file after `edit`, which is given the model and its main subgraph in the object API."""
    packed = schema.ModelT.InitFromPackedBuf(model, 0)
    edit(packed, packed.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(packed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def retyped(model: bytes, tensor: int, dtype: type) -> bytes:
    """A file with another dtype for one of its tensors; a constant keeps its numbers, modulo those of the dtype."""

    def edit(packed: Any, subgraph: Any) -> None:
        record = subgraph.tensors[tensor]
        names = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
        buffer = packed.buffers[record.buffer]
        if buffer.data is not None and len(buffer.data):
            values = np.frombuffer(np.asarray(buffer.data, np.uint8).tobytes(), names[record.type])
            buffer.data = np.frombuffer(values.astype(dtype).tobytes(), np.uint8)
        record.type = getattr(schema.TensorType, np.dtype(dtype).name.upper())

    return edited(model, edit)


def operator_files(dtype: type) -> dict[str, bytes]:
    """By kind of operator, a file with one of them, on activations of int8, uint8 or int16; without those that
    LiteRT has not for this dtype. Of float32: between DEQUANTIZE and QUANTIZE.
    """
    if dtype == np.float32:
        return _float_files()
    rng, is_wide, is_unsigned = np.random.default_rng(0), dtype == np.int16, dtype == np.uint8
    unit = 0.01 if is_wide else 1.0
    wgt_dtype, wgt_zero_point = (np.uint8, 120) if is_unsigned else (np.int8, 0)

    def zero(value: int) -> int:
        return 0 if is_wide else value + 128 * is_unsigned

    a, b, out = (0.05 * unit, zero(3)), (0.07 * unit, zero(2)), (0.2 * unit, zero(-5))

    def weights(*shape: int) -> np.ndarray:
        info = np.iinfo(wgt_dtype)
        return rng.integers(info.min + 1, info.max + 1, shape).astype(wgt_dtype)

    def bias(size: int) -> np.ndarray:
        return rng.integers(-2000, 2000, size).astype(np.int64 if is_wide else np.int32)

    def several(
        kind: str,
        shapes: list[tuple[int, ...]],
        out_shapes: list[tuple[int, ...]],
        before: list[Any],
        behind: list[Any],
        **options: Any,
    ) -> bytes:
        """`before` and `behind` the activations are constants of int32."""
        builder = ModelBuilder(kind)

        def constant(values: Any) -> int:
            return builder.tensor(np.shape(values), np.int32, data=np.array(values))

        first = [constant(values) for values in before]
        sources = [builder.tensor(shape, dtype, *a) for shape in shapes]
        last = [constant(values) for values in behind]
        targets = [builder.tensor(shape, dtype, *a) for shape in out_shapes]
        builder.op(kind, [*first, *sources, *last], targets, **options)
        return builder.finish(sources, targets)

    def padded() -> bytes:
        builder = ModelBuilder("PADV2")
        source, pads = (
            builder.tensor(IMAGE, dtype, *a),
            builder.tensor((4, 2), np.int32, data=np.array([[0, 0], [1, 1], [0, 1], [0, 0]])),
        )
        value, target = (
            builder.tensor((), dtype, *a, data=np.array(0 if is_wide else 7)),
            builder.tensor((1, 7, 7, 4), dtype, *a),
        )
        builder.op("PADV2", [source, pads, value], [target])
        return builder.finish([source], [target])

    def transposed() -> bytes:
        builder = ModelBuilder("TRANSPOSE_CONV")
        shape = builder.tensor((4,), np.int32, data=np.array([1, 11, 13, 5]))
        wgt = builder.tensor((5, 3, 3, 4), wgt_dtype, 0.01, wgt_zero_point, data=weights(5, 3, 3, 4))
        bias_dtype = np.int64 if is_wide else np.int32
        source, offset = builder.tensor(IMAGE, dtype, *a), builder.tensor((5,), bias_dtype, 0.0005, 0, data=bias(5))
        target = builder.tensor((1, 11, 13, 5), dtype, *out)
        builder.op(
            "TRANSPOSE_CONV", [shape, wgt, source, offset], [target], strideH=2, strideW=2, padding=schema.Padding.VALID
        )
        return builder.finish([source], [target])

    def layer(
        make: Callable[..., bytes], wgt: np.ndarray, num_oc: int, shape: tuple[int, ...] = IMAGE, **options: Any
    ) -> bytes:
        return make(shape, wgt, bias(num_oc), a, 0.01, out, dtype=dtype, weight_zero_point=wgt_zero_point, **options)

    fixed: dict[str, Quantisation] = (
        dict.fromkeys(("LOGISTIC", "TANH"), (1 / 32768, 0))
        if is_wide
        else {"LOGISTIC": (1 / 256, zero(-128)), "TANH": (1 / 128, zero(0))}
    )

    def unary(kind: str) -> bytes:
        options = {"alpha": 0.1} if kind == "LEAKY_RELU" else {}
        source = (a[0], zero(-128)) if kind in _ROOTS else a
        return unary_model(kind, IMAGE, source, fixed.get(kind, out), (dtype, dtype), **options)

    def with_constant(kind: str) -> bytes:
        builder = ModelBuilder(kind)
        source, target = builder.tensor(IMAGE, dtype, *a), builder.tensor(IMAGE, dtype, *out)
        builder.op(kind, [source, builder.tensor((1,), dtype, *b, data=np.array([zero(40)]))], [target])
        return builder.finish([source], [target])

    def dilated() -> bytes:
        builder, shapes = ModelBuilder("dilated"), [(1, 8, 8, 4), (4, 4, 4, 4), (4, 2, 2, 6), (1, 4, 4, 6)]
        quants = a, a, out, out
        tensors = [builder.tensor(shape, dtype, *quant) for shape, quant in zip(shapes, quants, strict=True)]
        block = builder.tensor((2,), np.int32, data=np.array([2, 2]))
        edges = builder.tensor((2, 2), np.int32, data=np.zeros((2, 2)))
        wgt = builder.tensor((6, 3, 3, 4), wgt_dtype, 0.01, wgt_zero_point, data=weights(6, 3, 3, 4))
        offset = builder.tensor((6,), np.int64 if is_wide else np.int32, 0.01 * a[0], 0, data=bias(6))
        builder.op("SPACE_TO_BATCH_ND", [tensors[0], block, edges], tensors[1:2])
        builder.op(
            "CONV_2D", [tensors[1], wgt, offset], tensors[2:3], strideH=1, strideW=1, padding=schema.Padding.VALID,
            dilationHFactor=1, dilationWFactor=1,
        )  # fmt: skip
        builder.op("BATCH_TO_SPACE_ND", [tensors[2], block, edges], tensors[3:])
        return builder.finish(tensors[:1], tensors[3:])

    files = {
        "CONV_2D": layer(conv_model, weights(6, 3, 3, 4), 6, activation="RELU"),
        "DEPTHWISE_CONV_2D": layer(depthwise_model, weights(1, 3, 3, 4), 4),
        "FULLY_CONNECTED": layer(fully_connected_model, weights(5, 12), 5, (2, 12)),
        **{kind: add_model(IMAGE, a, b, out, dtype=dtype, kind=kind) for kind in ("ADD", "SUB", "MUL")},
        **{kind: several(kind, [IMAGE, IMAGE], [IMAGE], [], []) for kind in ("MAXIMUM", "MINIMUM")},
        **{
            kind: pool_model(kind, (1, 6, 6, 3), (2, 2), (2, 2), a, dtype=dtype)
            for kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D")
        },
        "RESHAPE": one_op("RESHAPE", IMAGE, (1, 30, 4), [[1, 30, 4]], a, a, dtype),
        "SQUEEZE": one_op("SQUEEZE", (1, 4, 1, 2), (1, 4, 2), [], a, a, dtype, squeezeDims=[2]),
        "EXPAND_DIMS": one_op("EXPAND_DIMS", (1, 4, 2), (1, 4, 1, 2), [2], a, a, dtype),
        "PAD": one_op("PAD", IMAGE, (1, 7, 7, 4), [[[0, 0], [1, 1], [0, 1], [0, 0]]], a, a, dtype),
        "PADV2": padded(),
        "SLICE": one_op("SLICE", IMAGE, (1, 2, 5, 2), [[0, 1, 1, 2], [1, 2, -1, 2]], a, a, dtype),
        "STRIDED_SLICE": one_op(
            "STRIDED_SLICE", IMAGE, (1, 2, 3, 4), [[0, 1, 0, 0], [1, 5, 6, 4], [1, 2, 2, 1]], a, a, dtype
        ),
        "TRANSPOSE": one_op("TRANSPOSE", IMAGE, (1, 6, 5, 4), [[0, 2, 1, 3]], a, a, dtype),
        "RESIZE_NEAREST_NEIGHBOR": one_op("RESIZE_NEAREST_NEIGHBOR", IMAGE, (1, 10, 12, 4), [[10, 12]], a, a, dtype),
        "CONCATENATION": several("CONCATENATION", [(1, 3, 4, 2), (1, 3, 4, 3)], [(1, 3, 4, 5)], [], [], axis=3),
        "SPLIT": several("SPLIT", [(1, 3, 4, 6)], [(1, 3, 4, 3)] * 2, [3], [], numSplits=2),
        "SPLIT_V": several("SPLIT_V", [(1, 3, 4, 6)], [(1, 3, 4, 2), (1, 3, 4, 4)], [], [[2, 4], 3], numSplits=2),
    }
    files |= {
        "MEAN": one_op("MEAN", IMAGE, (1, 4), [[1, 2]], a, out, dtype),
        "REDUCE_MAX": one_op("REDUCE_MAX", IMAGE, (1, 4), [[1, 2]], a, a, dtype),
        "REDUCE_MIN": one_op("REDUCE_MIN", IMAGE, (1, 4), [[1, 2]], a, a, dtype),
        "PACK": several("PACK", [(1, 3, 4)] * 2, [(1, 3, 2, 4)], [], [], axis=2, valuesCount=2),
        "UNPACK": several("UNPACK", [(1, 3, 2, 4)], [(1, 3, 4)] * 2, [], [], axis=2, num=2),
        "GATHER": one_op("GATHER", IMAGE, (1, 5, 6, 3), [[0, 3, 1]], a, a, dtype, axis=3),
        "TILE": one_op("TILE", (1, 3, 2, 4), (1, 6, 2, 8), [[1, 2, 1, 2]], a, a, dtype),
        "MIRROR_PAD": one_op("MIRROR_PAD", IMAGE, (1, 7, 6, 4), [[[0, 0], [1, 1], [0, 0], [0, 0]]], a, a, dtype),
        "BROADCAST_TO": one_op("BROADCAST_TO", (1, 1, 6, 1), IMAGE, [list(IMAGE)], a, a, dtype),
        "BATCH_TO_SPACE_ND": dilated(),
        "TRANSPOSE_CONV": transposed(),
        "RESIZE_BILINEAR": one_op("RESIZE_BILINEAR", IMAGE, (1, 10, 12, 4), [[10, 12]], a, a, dtype),
        "PRELU": with_constant("PRELU"),
        **{kind: unary(kind) for kind in ("LEAKY_RELU", "LOGISTIC", "TANH", "GELU", "RELU", "RELU6", "QUANTIZE")},
    }
    if not is_wide:
        files |= {
            "SPACE_TO_DEPTH": one_op("SPACE_TO_DEPTH", (1, 4, 6, 2), (1, 2, 3, 8), [], a, a, dtype, blockSize=2),
            "DEPTH_TO_SPACE": one_op("DEPTH_TO_SPACE", (1, 2, 3, 8), (1, 4, 6, 2), [], a, a, dtype, blockSize=2),
            "SUM": one_op("SUM", IMAGE, (1, 4), [[1, 2]], a, out, dtype),
            "DIV": with_constant("DIV"),
            **{kind: unary(kind) for kind in ("HARD_SWISH", "RELU_N1_TO_1", "RELU_0_TO_1")},
        }
    if not is_unsigned:
        files |= {kind: unary(kind) for kind in ("ABS", "EXP", "LOG", "NEG")}
    if dtype == np.int8:
        files |= {kind: with_constant(kind) for kind in ("FLOOR_DIV", "FLOOR_MOD", "SQUARED_DIFFERENCE")}
        files |= {kind: unary(kind) for kind in ("ELU", "RSQRT", "SQRT")}
    return files


def _float_files() -> dict[str, bytes]:
    files = {}
    for kind in FLOAT_KINDS - {"DEQUANTIZE", "QUANTIZE"}:
        builder = ModelBuilder(kind)
        source, target = builder.tensor(IMAGE, np.int8, 0.05, -128), builder.tensor(IMAGE, np.int8, 0.1, -5)
        before, behind = builder.tensor(IMAGE, np.float32), builder.tensor(IMAGE, np.float32)
        operand = builder.tensor((1,), np.float32, data=np.array([0.3]))
        builder.op("DEQUANTIZE", [source], [before])
        builder.op(kind, [before, operand] if kind in (*_PAIRS, "PRELU") else [before], [behind], version=1)
        builder.op("QUANTIZE", [behind], [target])
        files[kind] = builder.finish([source], [target])
    return files
