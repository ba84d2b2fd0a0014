"""Train a small CNN on handwritten digits, quantise it to int8 and write `digits_int8.tflite`.

    pip install -e .[train]
    python examples/train_digits.py

Half a minute on one CPU core. The seed is fixed; another version of PyTorch may still give other weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from digits import MODEL_PATH, NUM_TRAIN, load_digits
from torch import nn
from torch.nn import functional as F

from convoy.driver.graph.graph import Graph, Op, Quant, Tensor
from convoy.driver.graph.tflite_writer import write_tflite


class Net(nn.Module):
    """Convolution, a depthwise residual block, a strided convolution, one more, max pooling, a fully connected
    layer.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.down = nn.Conv2d(16, 32, 3, stride=2)
        self.wide = nn.Conv2d(32, 48, 3, padding=1)
        self.head = nn.Linear(2 * 2 * 48, 10)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every activation by name, for calibration; images (N, 1, 8, 8)."""
        acts = {"input": x}
        acts["stem"] = F.relu(self.stem(x))
        acts["depthwise"] = F.relu(self.depthwise(acts["stem"]))
        acts["pointwise"] = self.pointwise(acts["depthwise"])
        acts["residual"] = F.relu(acts["stem"] + acts["pointwise"])
        acts["down"] = F.relu(
            self.down(F.pad(acts["residual"], (0, 1, 0, 1)))
        )  # TFLite's SAME padding of a strided layer
        acts["wide"] = F.relu(self.wide(acts["down"]))
        acts["pool"] = F.max_pool2d(acts["wide"], 2)
        acts["logits"] = self.head(F.dropout(acts["pool"].permute(0, 2, 3, 1).flatten(1), 0.3, self.training))
        return acts


def train(images: torch.Tensor, labels: torch.Tensor, epochs: int) -> Net:
    """Train on images (N, 1, 8, 8), shifted at random by up to a pixel."""
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    padded = F.pad(images, (1, 1, 1, 1))
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            y, x = torch.randint(0, 3, (2,)).tolist()
            loss = F.cross_entropy(
                net(padded[batch, :, y : y + 8, x : x + 8])["logits"], labels[batch], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return net.eval()


def activation_quant(values: np.ndarray) -> Quant:
    """Asymmetric int8 over the range of `values`, which is widened to include zero."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = np.float32((high - low) / 255)
    return Quant(np.array([scale], np.float32), np.array([np.clip(round(-128 - low / scale), -128, 127)], np.int64))


class Quantiser:
    """Builds the int8 graph layer by layer; `acts` are the float activations of the training images."""

    def __init__(self, acts: dict[str, np.ndarray]):
        self.acts, self.tensors, self.ops = acts, [], []

    def tensor(self, name: str, shape, dtype, quant: Quant | None, data: np.ndarray | None = None) -> int:
        """Append a tensor; its index."""
        self.tensors.append(Tensor(len(self.tensors), name, tuple(shape), np.dtype(dtype), quant, data))
        return len(self.tensors) - 1

    def act(self, name: str, shape, quant: Quant | None = None) -> int:
        """Append an int8 activation, quantised over its range unless `quant` is given."""
        return self.tensor(name, shape, np.int8, quant or activation_quant(self.acts[name]))

    def op(self, kind: str, inputs: list[int], output: int, **options) -> int:
        """Append an operator; its output."""
        self.ops.append(Op(len(self.ops), kind, tuple(inputs), (output,), options))
        return output

    def weights(self, name: str, x: int, weights: np.ndarray, bias: np.ndarray, axis: int | None) -> list[int]:
        """Append weights (per channel along `axis`, or per tensor) and bias; operands [x, weights, bias]."""
        others = tuple(i for i in range(weights.ndim) if i != axis)
        scale = np.maximum(np.abs(weights).max(axis=others if axis is not None else None, keepdims=True), 1e-6).astype(
            np.float32
        ) / np.float32(127)
        values = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
        scale = scale.reshape(-1)
        zeros = np.zeros(scale.shape, np.int64)
        bias_scale = self.tensors[x].quant.scale * scale
        return [
            x,
            self.tensor(f"{name}/weights", values.shape, np.int8, Quant(scale, zeros, axis or 0), values),
            self.tensor(
                f"{name}/bias",
                bias.shape,
                np.int32,
                Quant(bias_scale, zeros),
                np.rint(bias / bias_scale).astype(np.int32),
            ),
        ]


def quantise(net: Net, acts: dict[str, np.ndarray]) -> Graph:
    """Post-training quantisation: int8 activations, int8 weights per output channel (the last layer per tensor),
    int32 bias.
    """
    q = Quantiser(acts)
    parameters = {name: value.detach().numpy() for name, value in net.named_parameters()}
    conv = {"dilation_h": 1, "dilation_w": 1, "padding": "SAME"}
    one, two = {"stride_h": 1, "stride_w": 1, **conv}, {"stride_h": 2, "stride_w": 2, **conv}

    def layer(kind: str, name: str, x: int, extent: int, activation: str, options: dict) -> int:
        weights, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        is_depthwise = kind == "DEPTHWISE_CONV_2D"
        weights = weights.transpose((1, 2, 3, 0) if is_depthwise else (0, 2, 3, 1))
        operands = q.weights(name, x, np.ascontiguousarray(weights), bias, 3 if is_depthwise else 0)
        return q.op(kind, operands, q.act(name, (1, extent, extent, len(bias))), activation=activation, **options)

    image = q.act("input", (1, 8, 8, 1))
    stem = layer("CONV_2D", "stem", image, 8, "RELU", one)
    depthwise = layer("DEPTHWISE_CONV_2D", "depthwise", stem, 8, "RELU", {**one, "depth_multiplier": 1})
    pointwise = layer("CONV_2D", "pointwise", depthwise, 8, "NONE", one)
    residual = q.op("ADD", [stem, pointwise], q.act("residual", (1, 8, 8, 16)), activation="RELU")
    down = layer("CONV_2D", "down", residual, 4, "RELU", two)
    wide = layer("CONV_2D", "wide", down, 4, "RELU", one)
    pool = q.op(
        "MAX_POOL_2D",
        [wide],
        q.act("pool", (1, 2, 2, 48), q.tensors[wide].quant),
        stride_h=2,
        stride_w=2,
        filter_h=2,
        filter_w=2,
        padding="VALID",
        activation="NONE",
    )
    shape = q.tensor("flat/shape", (2,), np.int32, None, np.array([1, 192], np.int32))
    flat = q.op("RESHAPE", [pool, shape], q.act("flat", (1, 192), q.tensors[pool].quant), new_shape=(1, 192))
    head = q.weights("head", flat, parameters["head.weight"], parameters["head.bias"], None)
    logits = q.op("FULLY_CONNECTED", head, q.act("logits", (1, 10)), activation="NONE", keep_num_dims=False)
    probabilities = q.op(
        "SOFTMAX",
        [logits],
        q.act("probabilities", (1, 10), Quant(np.array([1 / 256], np.float32), np.array([-128], np.int64))),
        beta=1.0,
    )
    return Graph("digits", tuple(q.tensors), tuple(q.ops), (image,), (probabilities,))


def accuracy_int8(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images that LiteRT's reference kernels recognise with the file."""
    from convoy.driver.graph.tflite_reader import read_tflite
    from convoy.driver.workload.reference import Reference

    graph = read_tflite(path)
    quant = graph.tensors[graph.inputs[0]].quant
    values = np.clip(np.rint(images / quant.scale[0]) + quant.zero_point[0], -128, 127).astype(np.int8)
    reference = Reference(path.read_bytes())
    hits = [
        reference.run([value[np.newaxis]])[graph.outputs[0]].argmax() == label
        for value, label in zip(values, labels, strict=True)
    ]
    return float(np.mean(hits))


def main() -> None:
    """Train, quantise, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=MODEL_PATH)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    images, labels = load_digits()
    nchw = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    net = train(nchw[:NUM_TRAIN], torch.from_numpy(labels[:NUM_TRAIN]), args.epochs)
    with torch.no_grad():
        acts = {name: value.numpy() for name, value in net(nchw[:NUM_TRAIN]).items()}
        hits = net(nchw[NUM_TRAIN:])["logits"].argmax(1).numpy() == labels[NUM_TRAIN:]
    args.output.write_bytes(write_tflite(quantise(net, acts)))
    print(f"float: {hits.mean():.2%} of {hits.size} images by other writers")
    print(
        f"int8:  {accuracy_int8(args.output, images[NUM_TRAIN:], labels[NUM_TRAIN:]):.2%} with LiteRT's reference "
        "kernels"
    )
    print(f"{args.output}: {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
