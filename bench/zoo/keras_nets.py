"""Networks written in Keras as their authors publish them, small: 1-D, detection, segmentation, super-resolution,
generators, autoencoders, recurrent ones, attention, and blocks that papers are made of.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers as L
from keras import ops
from keras_export import Recipe

_FOUND: dict[str, Recipe] = {}


def recipes() -> dict[str, Recipe]:
    """By name."""
    return _FOUND


def _net(*variants: tuple[str, dict], **options: object) -> Callable[[Callable], Callable]:
    """Adds a function's network, and its variants by suffix of their names."""

    def add(build: Callable) -> Callable:
        for suffix, more in (("", {}), *variants):
            _FOUND[build.__name__ + suffix] = Recipe(build, **options | more)
        return build

    return add


DYNAMIC = ("_dynamic", {"batch": None})
UINT8 = ("_uint8", {"io": "uint8"})
WIDE = ("_16x8", {"is_16x8": True, "io": "int16"})
PER_TENSOR = ("_per_tensor", {"is_per_tensor": True})
FLOAT_IO = ("_float_io", {"io": "float32"})
FOUR = ("_batch4", {"batch": 4})


def _bn_relu(x, activation: str = "relu"):
    return L.Activation(activation)(L.BatchNormalization()(x))


def _conv(x, channels: int, kernel: int | tuple = 3, strides: int | tuple = 1, activation: str = "relu", **options):
    return _bn_relu(L.Conv2D(channels, kernel, strides, padding="same", use_bias=False, **options)(x), activation)


def _separable(x, channels: int, strides: int | tuple = 1, activation: str = "relu", kernel: int | tuple = 3):
    x = _bn_relu(L.DepthwiseConv2D(kernel, strides, padding="same", use_bias=False)(x), activation)
    return _conv(x, channels, 1, activation=activation)


def _squeeze_excite(x, ratio: int = 4):
    channels = x.shape[-1]
    gate = L.GlobalAveragePooling2D()(x)
    gate = L.Reshape((1, 1, channels))(gate)
    gate = L.Dense(channels // ratio, activation="relu")(gate)
    return x * L.Dense(channels, activation="sigmoid")(gate)


# What MLPerf Tiny and TinyML courses use


@_net(DYNAMIC, UINT8, WIDE, PER_TENSOR, FLOAT_IO, FOUR)
def ds_cnn():
    """Keyword spotting on 49 x 10 features."""
    inputs = x = L.Input((49, 10, 1))
    x = _conv(x, 16, (10, 4), 2)
    for _ in range(3):
        x = _separable(x, 16)
    x = L.AveragePooling2D((25, 5))(x)
    return keras.Model(inputs, L.Dense(12, activation="softmax")(L.Flatten()(x)))


@_net(DYNAMIC, WIDE, FOUR)
def resnet_cifar():
    """Residual network for 32 x 32 images."""
    inputs = x = L.Input((32, 32, 3))
    x = _conv(x, 16)
    for channels, strides in ((16, 1), (32, 2), (64, 2)):
        y = _conv(x, channels, 3, strides)
        y = L.BatchNormalization()(L.Conv2D(channels, 3, padding="same")(y))
        if strides > 1:
            x = L.Conv2D(channels, 1, strides, padding="same")(x)
        x = L.ReLU()(L.Add()([x, y]))
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(10, activation="softmax")(x))


@_net(DYNAMIC, WIDE, PER_TENSOR)
def dense_autoencoder():
    """Anomaly detection: fully connected layers only."""
    inputs = x = L.Input((640,))
    for size in (128, 128, 8, 128, 128):
        x = _bn_relu(L.Dense(size)(x))
    return keras.Model(inputs, L.Dense(640)(x))


@_net(UINT8)
def lenet():
    """Pools, tanh, fully connected layers."""
    inputs = x = L.Input((28, 28, 1))
    for channels in (6, 16):
        x = L.AveragePooling2D(2)(L.Conv2D(channels, 5, activation="tanh")(x))
    x = L.Flatten()(x)
    for size in (120, 84):
        x = L.Dense(size, activation="tanh")(x)
    return keras.Model(inputs, L.Dense(10, activation="softmax")(x))


# One dimension


@_net(DYNAMIC, WIDE)
def tcn():
    """Temporal convolutional network: causal, dilated, residual."""
    inputs = x = L.Input((128, 16))
    for dilation in (1, 2, 4, 8, 16):
        y = L.Conv1D(24, 3, padding="causal", dilation_rate=dilation, activation="relu")(x)
        y = L.Conv1D(24, 3, padding="causal", dilation_rate=dilation, activation="relu")(y)
        x = L.Add()([L.Conv1D(24, 1)(x), y])
    return keras.Model(inputs, L.Dense(5)(x[:, -1, :]))


@_net(DYNAMIC)
def wavenet():
    """Gated units with dilations and skip connections."""
    inputs = L.Input((256, 1))
    x, skips = L.Conv1D(16, 2, padding="causal")(inputs), []
    for dilation in (1, 2, 4, 8, 16, 32, 64):
        gate = L.Conv1D(16, 2, padding="causal", dilation_rate=dilation, activation="sigmoid")(x)
        y = L.Conv1D(16, 2, padding="causal", dilation_rate=dilation, activation="tanh")(x) * gate
        skips.append(L.Conv1D(16, 1)(y))
        x = x + L.Conv1D(16, 1)(y)
    x = L.ReLU()(L.Add()(skips))
    return keras.Model(inputs, L.Conv1D(32, 1)(L.Conv1D(16, 1, activation="relu")(x)))


@_net(DYNAMIC)
def m5_audio():
    """Raw audio: the first kernel has 80 taps and a stride of 4."""
    inputs = x = L.Input((8000, 1))
    for channels, kernel, strides in ((32, 80, 4), (32, 3, 1), (64, 3, 1), (64, 3, 1)):
        x = _bn_relu(L.Conv1D(channels, kernel, strides, use_bias=False)(x))
        x = L.MaxPooling1D(4)(x)
    return keras.Model(inputs, L.Dense(35)(L.GlobalAveragePooling1D()(x)))


@_net()
def m11_long_stride():
    """Raw audio, a stride of 16."""
    inputs = x = L.Input((16000, 1))
    for channels, kernel, strides in ((24, 64, 16), (24, 9, 2), (48, 9, 2), (48, 5, 2)):
        x = _bn_relu(L.Conv1D(channels, kernel, strides, padding="same", use_bias=False)(x))
    return keras.Model(inputs, L.Dense(10)(L.GlobalMaxPooling1D()(x)))


@_net()
def ecg_resnet_1d():
    """Residual network over a heart's signal, separable convolutions."""
    inputs = x = L.Input((360, 2))
    x = L.Conv1D(16, 7, 2, padding="same", activation="relu")(x)
    for channels in (16, 32, 64):
        y = L.SeparableConv1D(channels, 5, padding="same", activation="relu")(x)
        y = L.SeparableConv1D(channels, 5, padding="same")(y)
        x = L.MaxPooling1D(2)(L.ReLU()(L.Conv1D(channels, 1)(x) + y))
    return keras.Model(inputs, L.Dense(5, activation="softmax")(L.GlobalAveragePooling1D()(x)))


@_net()
def crnn_1d():
    """Convolutions, then a recurrent layer."""
    inputs = x = L.Input((64, 8))
    for channels in (16, 32):
        x = L.MaxPooling1D(2)(L.Conv1D(channels, 5, padding="same", activation="relu")(x))
    return keras.Model(inputs, L.Dense(6, activation="softmax")(L.LSTM(16, unroll=True)(x)))


# Detection


def _backbone(x, widths: tuple[int, ...] = (16, 32, 64)):
    maps = []
    x = _conv(x, 8, 3, 2, "relu6")
    for channels in widths:
        x = _separable(x, channels, 2, "relu6")
        x = _separable(x, channels, 1, "relu6")
        maps.append(x)
    return maps


@_net(DYNAMIC, UINT8)
def ssd_head():
    """Boxes and classes of three maps, joined."""
    inputs = L.Input((96, 96, 3))
    boxes, classes = [], []
    for x in _backbone(inputs):
        boxes.append(L.Reshape((-1, 4))(L.Conv2D(12, 3, padding="same")(x)))
        classes.append(L.Reshape((-1, 5))(L.Conv2D(15, 3, padding="same")(x)))
    return keras.Model(inputs, [L.Concatenate(1)(boxes), L.Softmax()(L.Concatenate(1)(classes))])


@_net(DYNAMIC)
def yolo_head():
    """Leaky activations, an upsampled path, raw maps as outputs."""
    inputs = L.Input((96, 96, 3))
    x = inputs
    maps = []
    for channels in (8, 16, 32, 64):
        x = _conv(x, channels, 3, 2, "leaky_relu")
        maps.append(x)
    up = L.UpSampling2D()(_conv(x, 32, 1, activation="leaky_relu"))
    fine = _conv(L.Concatenate()([up, maps[-2]]), 32, 3, activation="leaky_relu")
    return keras.Model(inputs, [L.Conv2D(24, 1)(x), L.Conv2D(24, 1)(fine)])


@_net(("_float", {"has_float": True, "io": "float32"}))
def yolo_decoded():
    """With its decoding: sigmoid of centres, a grid, exponentials of sizes."""
    inputs = x = L.Input((64, 64, 3))
    for channels in (8, 16, 32, 64):
        x = _conv(x, channels, 3, 2, "silu")
    x = L.Reshape((4 * 4 * 3, 8))(L.Conv2D(24, 1)(x))
    centres = ops.sigmoid(x[..., :2]) * 2.0 - 0.5
    sizes = ops.exp(x[..., 2:4])
    return keras.Model(inputs, L.Concatenate()([centres, sizes, ops.sigmoid(x[..., 4:])]))


@_net()
def centernet_head():
    """Heat map, its peaks by a pool, sizes."""
    inputs = L.Input((64, 64, 3))
    maps = _backbone(inputs)
    x = maps[-1]
    for channels in (32, 16):
        x = _bn_relu(L.Conv2DTranspose(channels, 4, 2, padding="same")(x))
    heat = L.Conv2D(3, 1, activation="sigmoid")(x)
    peak = L.MaxPooling2D(3, 1, padding="same")(heat)
    return keras.Model(inputs, [heat, peak, L.Conv2D(2, 1)(x)])


@_net()
def fpn_head():
    """A pyramid of maps with sums of nearest neighbours."""
    inputs = L.Input((64, 64, 3))
    maps = [L.Conv2D(24, 1)(x) for x in _backbone(inputs)]
    x, outputs = maps[-1], []
    for other in reversed(maps[:-1]):
        x = L.Add()([L.UpSampling2D(interpolation="nearest")(x), other])
        outputs.append(L.Conv2D(9, 3, padding="same")(x))
    return keras.Model(inputs, outputs)


@_net()
def pose_head():
    """Heat maps of joints, the place of each peak."""
    inputs = L.Input((64, 64, 3))
    x = _backbone(inputs, (16, 32))[-1]
    x = L.Conv2DTranspose(16, 3, 2, padding="same", activation="relu")(x)
    heat = L.Conv2D(7, 1)(x)
    return keras.Model(inputs, L.Lambda(_best)(L.Reshape((-1, 7))(heat)))


def _best(x):
    import tensorflow as tf

    return tf.argmax(x, 1, tf.int32)


def _best_class(x):
    import tensorflow as tf

    return tf.argmax(x, -1, tf.int32)


# Segmentation


@_net(DYNAMIC, WIDE)
def unet():
    """Skips, transposed convolutions."""
    inputs = x = L.Input((48, 48, 3))
    skips = []
    for channels in (8, 16, 32):
        x = _conv(_conv(x, channels), channels)
        skips.append(x)
        x = L.MaxPooling2D()(x)
    x = _conv(x, 64)
    for channels, skip in zip((32, 16, 8), reversed(skips), strict=True):
        x = L.Conv2DTranspose(channels, 2, 2, padding="same")(x)
        x = _conv(L.Concatenate()([x, skip]), channels)
    return keras.Model(inputs, L.Conv2D(4, 1, activation="softmax")(x))


@_net()
def unet_bilinear():
    """Odd sizes, bilinear upsampling, a crop."""
    inputs = x = L.Input((44, 52, 1))
    skips = []
    for channels in (8, 16):
        x = _conv(x, channels)
        skips.append(x)
        x = L.MaxPooling2D()(x)
    for channels, skip in zip((16, 8), reversed(skips), strict=True):
        x = L.Concatenate()([L.UpSampling2D(interpolation="bilinear")(x), skip])
        x = _conv(x, channels)
    return keras.Model(inputs, L.Cropping2D(2)(L.Conv2D(1, 1, activation="sigmoid")(x)))


@_net(DYNAMIC)
def deeplab():
    """Atrous convolutions at four rates beside a pooled image."""
    inputs = x = L.Input((64, 64, 3))
    x = _conv(x, 16, 3, 2)
    x = _separable(x, 32, 2)
    x = _separable(x, 32)
    size = x.shape[1:3]
    branches = [_conv(x, 16, 1), *(_conv(x, 16, 3, dilation_rate=rate) for rate in (2, 4, 6))]
    image = L.GlobalAveragePooling2D(keepdims=True)(x)
    branches.append(L.UpSampling2D(size, interpolation="bilinear")(_conv(image, 16, 1)))
    x = _conv(L.Concatenate()(branches), 32, 1)
    x = L.UpSampling2D(4, interpolation="bilinear")(L.Conv2D(5, 1)(x))
    return keras.Model(inputs, x)


@_net()
def fast_scnn():
    """Pyramid of pools, two paths added."""
    inputs = x = L.Input((64, 96, 3))
    x = _separable(_conv(x, 8, 3, 2), 16, 2)
    deep = _separable(_separable(x, 24, 2), 32)
    pools = [deep]
    for size in (2, 4):
        y = _conv(L.AveragePooling2D(size)(deep), 8, 1)
        pools.append(L.Resizing(*deep.shape[1:3], interpolation="bilinear")(y))
    deep = _conv(L.Concatenate()(pools), 32, 1)
    deep = L.Resizing(*x.shape[1:3], interpolation="bilinear")(deep)
    y = L.Add()([L.Conv2D(32, 1)(x), L.Conv2D(32, 1)(L.DepthwiseConv2D(3, padding="same", dilation_rate=2)(deep))])
    return keras.Model(inputs, L.Lambda(_best_class)(L.Conv2D(6, 1)(L.ReLU()(y))))


# Super-resolution, generators, autoencoders


@_net(DYNAMIC, WIDE)
def espcn():
    """Depth to space."""
    inputs = x = L.Input((40, 40, 1))
    x = L.Conv2D(32, 5, padding="same", activation="tanh")(x)
    x = L.Conv2D(16, 3, padding="same", activation="tanh")(x)
    x = L.Conv2D(9, 3, padding="same")(x)
    return keras.Model(inputs, L.Lambda(_depth_to_space)(x))


def _depth_to_space(x):
    import tensorflow as tf

    return tf.nn.depth_to_space(x, 3)


@_net()
def fsrcnn():
    """PReLU, a transposed 9 x 9 convolution of stride 3."""
    inputs = x = L.Input((32, 32, 1))
    for channels, kernel in ((28, 5), (8, 1), (8, 3), (8, 3), (28, 1)):
        x = L.PReLU(shared_axes=[1, 2])(L.Conv2D(channels, kernel, padding="same")(x))
    return keras.Model(inputs, L.Conv2DTranspose(1, 9, 3, padding="same")(x))


@_net()
def edsr():
    """Residual blocks with scaled sums, no normalisation."""
    inputs = L.Input((32, 32, 3))
    x = first = L.Conv2D(16, 3, padding="same")(L.Rescaling(1 / 255)(inputs))
    for _ in range(3):
        y = L.Conv2D(16, 3, padding="same")(L.Conv2D(16, 3, padding="same", activation="relu")(x))
        x = x + y * 0.1
    x = L.Lambda(_depth_to_two)(L.Conv2D(12, 3, padding="same")(x + first))
    return keras.Model(inputs, x)


def _depth_to_two(x):
    import tensorflow as tf

    return tf.nn.depth_to_space(x, 2)


@_net(DYNAMIC)
def dcgan():
    """A generator: from a vector to an image."""
    inputs = x = L.Input((32,))
    x = L.Reshape((4, 4, 64))(_bn_relu(L.Dense(4 * 4 * 64, use_bias=False)(x), "leaky_relu"))
    for channels in (32, 16):
        x = _bn_relu(L.Conv2DTranspose(channels, 5, 2, padding="same", use_bias=False)(x), "leaky_relu")
    return keras.Model(inputs, L.Conv2DTranspose(3, 5, 2, padding="same", activation="tanh")(x))


@_net()
def conv_autoencoder():
    """Down by strides and up again."""
    inputs = x = L.Input((32, 32, 1))
    for channels in (8, 16, 32):
        x = L.Conv2D(channels, 3, 2, padding="same", activation="elu")(x)
    for channels in (16, 8):
        x = L.Conv2DTranspose(channels, 3, 2, padding="same", activation="elu")(x)
    return keras.Model(inputs, L.Conv2DTranspose(1, 3, 2, padding="same", activation="sigmoid")(x))


@_net()
def style_transfer():
    """Mirrored pads, instance normalisation, nearest neighbours."""
    inputs = x = L.Input((32, 32, 3))
    x = L.Lambda(_mirror)(x)
    x = L.Conv2D(16, 9, activation="relu")(x)
    x = L.Conv2D(24, 3, 2, padding="same")(x)
    mean = ops.mean(x, (1, 2), keepdims=True)
    x = x - mean
    x = L.ReLU()(x * ops.rsqrt(ops.mean(ops.square(x), (1, 2), keepdims=True) + 1e-3))
    x = L.UpSampling2D(2, interpolation="nearest")(x)
    return keras.Model(inputs, L.Conv2D(3, 9, padding="same", activation="tanh")(x))


def _mirror(x):
    import tensorflow as tf

    return tf.pad(x, [[0, 0], [4, 4], [4, 4], [0, 0]], "REFLECT")


# Recurrent


@_net(DYNAMIC)
def lstm():
    """Rolled: one operator, or a loop."""
    inputs = L.Input((20, 12))
    return keras.Model(inputs, L.Dense(6, activation="softmax")(L.LSTM(24)(inputs)))


def _unrolled(cell):
    inputs = L.Input((12, 10))
    return keras.Model(inputs, L.Dense(6, activation="softmax")(cell(16, unroll=True)(inputs)))


@_net()
def gru_rolled():
    """A loop."""
    inputs = L.Input((20, 12))
    return keras.Model(inputs, L.Dense(6)(L.GRU(16)(inputs)))


@_net(WIDE)
def gru_unrolled():
    """Each step written out."""
    return _unrolled(L.GRU)


@_net()
def rnn_unrolled():
    """The simplest cell."""
    return _unrolled(L.SimpleRNN)


@_net()
def bilstm_unrolled():
    """Both directions."""
    inputs = L.Input((10, 8))
    x = L.Bidirectional(L.LSTM(8, return_sequences=True, unroll=True))(inputs)
    return keras.Model(inputs, L.Dense(4)(x))


# Attention


def _attention(x, heads: int):
    width = x.shape[-1]
    y = L.LayerNormalization(epsilon=1e-3)(x)
    y = L.MultiHeadAttention(heads, width // heads)(y, y)
    x = x + y
    y = L.LayerNormalization(epsilon=1e-3)(x)
    return x + L.Dense(width)(L.Dense(2 * width, activation="relu")(y))


@_net(DYNAMIC, ("_float", {"has_float": True, "io": "float32"}))
def vit():
    """Patches, attention, a mean over tokens."""
    inputs = x = L.Input((32, 32, 3))
    x = L.Reshape((64, 32))(L.Conv2D(32, 4, 4)(x))
    x = L.Dense(32)(x)
    for _ in range(2):
        x = _attention(x, 2)
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling1D()(x)))


@_net()
def transformer_1d():
    """An encoder over a sequence, GELU by tanh."""
    inputs = x = L.Input((24, 16))
    x = _attention(L.Dense(24)(x), 3)
    x = L.Activation(lambda value: ops.gelu(value, approximate=True))(L.Dense(24)(x))
    return keras.Model(inputs, L.Dense(3, activation="softmax")(x[:, 0]))


@_net(DYNAMIC)
def mlp_mixer():
    """Fully connected over tokens and over channels."""
    inputs = x = L.Input((32, 32, 3))
    x = L.Reshape((64, 24))(L.Conv2D(24, 4, 4)(x))
    for _ in range(2):
        y = L.Permute((2, 1))(L.LayerNormalization(epsilon=1e-3)(x))
        x = x + L.Permute((2, 1))(L.Dense(64)(L.Dense(32, activation="gelu")(y)))
        x = x + L.Dense(24)(L.Dense(48, activation="relu")(L.LayerNormalization(epsilon=1e-3)(x)))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling1D()(x)))


@_net()
def conv_mixer():
    """Depthwise 9 x 9 with a residual, GELU."""
    inputs = x = L.Input((32, 32, 3))
    x = _conv(x, 24, 2, 2, "gelu")
    for _ in range(3):
        x = x + _bn_relu(L.DepthwiseConv2D(9, padding="same")(x), "gelu")
        x = _conv(x, 24, 1, activation="gelu")
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


# Blocks of papers


@_net(DYNAMIC, WIDE, UINT8)
def squeeze_excite():
    """Gates from global means, hard swish."""
    inputs = x = L.Input((48, 48, 3))
    x = _conv(x, 16, 3, 2, "hard_swish")
    for channels in (16, 24, 32):
        x = L.DepthwiseConv2D(5, 2, padding="same")(x)
        x = _conv(_squeeze_excite(x), channels, 1, activation="hard_swish")
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


@_net(DYNAMIC)
def shufflenet():
    """Channels split and shuffled."""
    inputs = x = L.Input((48, 48, 3))
    x = L.MaxPooling2D(3, 2, padding="same")(_conv(x, 24, 3, 2))
    for _ in range(3):
        left, right = x[..., :12], x[..., 12:]
        right = _conv(right, 12, 1)
        right = L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same")(right))
        right = _conv(right, 12, 1)
        _, height, width, channels = x.shape
        x = L.Reshape((height, width, 2, channels // 2))(L.Concatenate()([left, right]))
        x = L.Reshape((height, width, channels))(L.Permute((1, 2, 4, 3))(x))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


@_net(DYNAMIC)
def resnext():
    """Grouped convolutions."""
    inputs = x = L.Input((32, 32, 3))
    x = _conv(x, 32)
    for strides in (1, 2):
        y = _conv(x, 32, 1)
        y = L.ReLU()(L.Conv2D(32, 3, strides, padding="same", groups=8)(y))
        y = L.Conv2D(32, 1)(y)
        x = L.ReLU()(y + (L.Conv2D(32, 1, strides)(x) if strides > 1 else x))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


@_net()
def squeezenet():
    """Fire modules, maximum pools."""
    inputs = x = L.Input((64, 64, 3))
    x = L.MaxPooling2D(3, 2)(L.Conv2D(32, 3, 2, activation="relu")(x))
    for squeeze, expand in ((8, 24), (8, 24), (16, 48)):
        x = L.Conv2D(squeeze, 1, activation="relu")(x)
        x = L.Concatenate()([L.Conv2D(expand, kernel, padding="same", activation="relu")(x) for kernel in (1, 3)])
    x = L.Conv2D(10, 1, activation="relu")(L.MaxPooling2D(3, 2)(x))
    return keras.Model(inputs, L.Softmax()(L.GlobalAveragePooling2D()(x)))


@_net()
def ghostnet():
    """Half of each layer's channels from cheap depthwise kernels."""
    inputs = x = L.Input((48, 48, 3))
    x = _conv(x, 16, 3, 2)
    for channels in (16, 24, 32):
        y = _conv(x, channels // 2, 1)
        x = L.Concatenate()([y, _bn_relu(L.DepthwiseConv2D(3, padding="same")(y))])
        x = L.DepthwiseConv2D(3, 2, padding="same")(x)
    return keras.Model(inputs, L.Dense(10)(L.GlobalMaxPooling2D()(x)))


@_net()
def prelu_face():
    """PReLU after each layer, a global depthwise layer, a normalised vector."""
    inputs = x = L.Input((56, 56, 3))
    for channels, strides in ((16, 2), (16, 1), (32, 2), (32, 2)):
        x = L.PReLU(shared_axes=[1, 2])(L.BatchNormalization()(L.Conv2D(channels, 3, strides, padding="same")(x)))
    x = L.Flatten()(L.Conv2D(32, 1)(L.DepthwiseConv2D(7)(x)))
    return keras.Model(inputs, L.UnitNormalization()(x))


@_net()
def patchify():
    """Kernels as large as their stride: 7, 12."""
    inputs = L.Input((84, 84, 3))
    a = L.Conv2D(16, 7, 7, activation="relu")(inputs)
    b = L.Conv2D(16, 12, 12, activation="relu")(inputs)
    joined = L.Concatenate()([L.GlobalAveragePooling2D()(a), L.GlobalAveragePooling2D()(b)])
    return keras.Model(inputs, L.Dense(4)(joined))


@_net()
def large_kernels():
    """Kernels of 13, 31 x 1 and 1 x 31."""
    inputs = x = L.Input((40, 40, 3))
    x = _conv(x, 16, 5, 2)
    x = x + L.DepthwiseConv2D(13, padding="same")(x)
    x = L.Conv2D(16, (31, 1), padding="same")(L.Conv2D(16, (1, 31), padding="same")(x))
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(L.ReLU()(x))))


@_net()
def two_inputs():
    """An image and a vector, joined."""
    image, vector = L.Input((32, 32, 3)), L.Input((12,))
    x = L.GlobalAveragePooling2D()(_separable(_conv(image, 16, 3, 2), 32, 2))
    y = L.Dense(16, activation="relu")(vector)
    x = L.Concatenate()([x, y])
    return keras.Model([image, vector], [L.Dense(3, activation="softmax")(x), L.Dense(1)(x)])


@_net()
def siamese():
    """One network over two images, their distance."""
    left, right = L.Input((32, 32, 1)), L.Input((32, 32, 1))
    inner = L.Input((32, 32, 1))
    tower = keras.Model(inner, L.Dense(16)(L.Flatten()(_conv(_conv(inner, 8, 3, 2), 16, 3, 2))))
    a, b = tower(left), tower(right)
    return keras.Model([left, right], [ops.abs(a - b), ops.sum(a * b, -1, keepdims=True), ops.maximum(a, b)])


@_net()
def conv3d_video():
    """Frames as a third axis."""
    inputs = x = L.Input((8, 16, 16, 3))
    x = L.Conv3D(8, 3, padding="same", activation="relu")(x)
    x = L.Conv3D(12, (1, 3, 3), 2, padding="same", activation="relu")(x)
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling3D()(x)))


@_net()
def video_time_distributed():
    """The same convolutions for each frame, a mean over time."""
    inputs = x = L.Input((6, 24, 24, 3))
    x = L.TimeDistributed(L.Conv2D(8, 3, 2, activation="relu"))(x)
    x = L.TimeDistributed(L.GlobalAveragePooling2D())(x)
    return keras.Model(inputs, L.Dense(4)(ops.mean(x, 1)))


@_net()
def odd_activations():
    """What few networks use."""
    inputs = L.Input((16, 16, 8))
    names = ("selu", "softplus", "softsign", "mish", "exponential", "hard_sigmoid", "gelu", "silu", "relu6")
    x = inputs
    for name in names:
        x = L.Conv2D(8, 3, padding="same", activation=name)(x)
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(x)))


@_net()
def log_mel():
    """A feature frontend inside the network: squares, logarithm, mean and deviation."""
    inputs = x = L.Input((32, 40, 1))
    x = ops.log(ops.square(x) + 0.1)
    x = x - ops.mean(x, (1, 2), keepdims=True)
    x = _separable(_conv(x, 8, 3, 2), 16, 2)
    return keras.Model(inputs, L.Dense(4)(L.Flatten()(x)))


@_net()
def capsule():
    """Dynamic routing: matrix products, norms, divisions."""
    inputs = x = L.Input((20, 20, 1))
    x = L.Conv2D(16, 9, activation="relu")(x)
    x = L.Reshape((36, 8))(L.Conv2D(32, 7, 2)(x)[:, :3, :3, :])
    norm = ops.sum(ops.square(x), -1, keepdims=True)
    x = x * (norm / (1.0 + norm))
    scores = ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1))), -1)
    return keras.Model(inputs, ops.matmul(scores, x))


_FOUND["lstm_unrolled"] = Recipe(lambda: _unrolled(L.LSTM))
