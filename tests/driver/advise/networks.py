"""A network that breaks the rules of the contract, as a converter would write it."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convoy.verif.litert import ModelBuilder

SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
RELU, RELU6 = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.RELU6


class Layers:
    """Layers one behind another, with random weights."""

    def __init__(self, shape: tuple[int, ...]):
        self.builder, self.rng = ModelBuilder("layers"), np.random.default_rng(5)
        self.first = self.last = self.builder.tensor(shape, np.int8, 0.02, -3, name="input")
        self.shape = shape

    def _made(self, name: str, size: tuple[int, int], channels: int) -> int:
        self.shape = (1, *size, channels)
        self.last = self.builder.tensor(self.shape, np.int8, 6 / 255, -128, name=name)
        return self.last

    def _size(self, window: tuple[int, int], stride: int, padding: int) -> tuple[int, int]:
        rows, cols = (
            -(-size // stride) if padding == SAME else (size - taps) // stride + 1
            for size, taps in zip(self.shape[1:3], window, strict=True)
        )
        return rows, cols

    def conv(self, name, channels, kernel, stride=1, padding=SAME, activation=RELU, is_depthwise=False):
        """A convolution, or a depthwise one of as many channels as there are."""
        source, depth = self.last, self.shape[3]
        shape = (1, *kernel, depth) if is_depthwise else (channels, *kernel, depth)
        weights = self.rng.integers(-127, 128, shape)
        number = depth if is_depthwise else channels
        scales = self.rng.uniform(0.5, 1.5, number) / (40 * np.sqrt(weights.size / number))
        axis = 3 if is_depthwise else 0
        inputs = [
            source,
            self.builder.tensor(shape, np.int8, scales, 0, axis, weights, f"{name}/weights"),
            self.builder.tensor(
                (number,), np.int32, 0.02 * scales, 0, 0, self.rng.integers(-9, 9, number), f"{name}/b"
            ),
        ]
        output = self._made(name, self._size(kernel, stride, padding), number)
        options = {"depthMultiplier": 1} if is_depthwise else {}
        self.builder.op(
            "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D",
            inputs,
            [output],
            padding=padding,
            strideH=stride,
            strideW=stride,
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=activation,
            **options,
        )

    def dense(self, name, channels):
        """A fully connected layer on all that there is."""
        source, depth = self.last, int(np.prod(self.shape))
        weights = self.builder.tensor(
            (channels, depth), np.int8, 0.01, 0, 0, self.rng.integers(-127, 128, (channels, depth)), f"{name}/weights"
        )
        self.last = self.builder.tensor((1, channels), np.int8, 0.1, 0, name=name)
        self.builder.op("FULLY_CONNECTED", [source, weights, -1], [self.last])

    def pool(self, name, window, stride, padding):
        """A maximum pool."""
        source = self.last
        output = self._made(name, self._size((window, window), stride, padding), self.shape[3])
        self.builder.op(
            "MAX_POOL_2D",
            [source],
            [output],
            padding=padding,
            strideH=stride,
            strideW=stride,
            filterHeight=window,
            filterWidth=window,
        )

    def finish(self) -> bytes:
        return self.builder.finish([self.first], [self.last])


def offender() -> bytes:
    """17 channels, a stride of 3, a pool that cannot be fused, a depthwise layer with ReLU6, a kernel of 5x1."""
    layers = Layers((1, 36, 36, 8))
    layers.conv("seventeen", 17, (3, 3))
    layers.conv("strided", 16, (3, 3), stride=3)
    layers.pool("pool", 3, 2, SAME)
    layers.conv("depthwise", 16, (3, 3), activation=RELU6, is_depthwise=True)
    layers.conv("column", 16, (5, 1))
    layers.conv("wide", 12, (5, 5))
    layers.pool("large", 2, 2, VALID)
    layers.conv("last", 8, (1, 1))
    return layers.finish()
