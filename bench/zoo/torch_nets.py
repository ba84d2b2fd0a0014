"""Networks of torchvision, with random weights; both converters of PyTorch models write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torchvision import models


@dataclass(frozen=True)
class Recipe:
    """How one file is made."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """Of the input, NCHW."""


_SIZES = {
    "resnet18": 64,
    "mobilenet_v2": 96,
    "mobilenet_v3_small": 96,
    "mobilenet_v3_large": 96,
    "shufflenet_v2_x0_5": 96,
    "squeezenet1_1": 96,
    "regnet_y_400mf": 64,
    "regnet_x_400mf": 64,
    "efficientnet_b0": 64,
    "mnasnet0_5": 96,
    "googlenet": 96,
    "densenet121": 64,
    "convnext_tiny": 64,
    "vgg11_bn": 32,
    "alexnet": 96,
}
"""Sides of the square images."""


def recipes() -> dict[str, Recipe]:
    """By name."""
    found = {
        f"{name}_{size}": Recipe(
            lambda name=name: models.get_model(name, weights=None, **_options(name)), (1, 3, size, size)
        )
        for name, size in _SIZES.items()
    }
    return found | {
        "unet": Recipe(_Unet, (1, 3, 48, 48)),
        "residual_cnn": Recipe(_Residual, (1, 3, 32, 32)),
        "keyword_1d": Recipe(_Keyword, (1, 1, 2000)),
        "super_resolution": Recipe(_SuperResolution, (1, 1, 32, 32)),
        "transformer": Recipe(_Transformer, (1, 16, 32)),
    }


def _options(name: str) -> dict:
    return {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}


def _conv(num_ic: int, num_oc: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(num_ic, num_oc, 3, stride, 1, bias=False), nn.BatchNorm2d(num_oc), nn.ReLU())


class _Unet(nn.Module):
    """Skips, transposed convolutions."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([_conv(3, 8), _conv(8, 16)])
        self.bottom = _conv(16, 32)
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.join = nn.ModuleList([_conv(32, 16), _conv(16, 8)])
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([up(x), skips.pop()], 1))
        return self.head(x)


class _Residual(nn.Module):
    """Two residual blocks, a mean, classes."""

    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 16)
        self.first = nn.Sequential(_conv(16, 32, 2), nn.Conv2d(32, 32, 3, padding=1))
        self.short = nn.Conv2d(16, 32, 1, 2)
        self.second = nn.Sequential(_conv(32, 32), nn.Conv2d(32, 32, 3, padding=1))
        self.classes = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.first(x) + self.short(x))
        x = torch.relu(self.second(x) + x)
        return self.classes(x.mean((2, 3)))


class _Keyword(nn.Module):
    """Raw audio, dilated."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, 16, 40, 4), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(4),
            nn.Conv1d(16, 16, 3, padding=2, dilation=2), nn.PReLU(16), nn.AvgPool1d(2), nn.Conv1d(16, 24, 3, groups=4),
            nn.Hardswish(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 6), nn.LogSoftmax(-1),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


class _SuperResolution(nn.Module):
    """Pixel shuffle."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 24, 5, padding=2), nn.Tanh(), nn.Conv2d(24, 16, 3, padding=1), nn.LeakyReLU(0.1),
            nn.Conv2d(16, 9, 3, padding=1), nn.PixelShuffle(3),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


class _Transformer(nn.Module):
    """One encoder layer over 16 tokens."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.norms = nn.ModuleList([nn.LayerNorm(32), nn.LayerNorm(32)])
        self.feed = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.classes = nn.Linear(32, 4)

    def forward(self, x):
        y = self.norms[0](x)
        query, key, value = (
            layer(y).reshape(1, 16, 2, 16).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(2, 3) / 4, -1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(1, 16, 32))
        x = x + self.feed(self.norms[1](x))
        return self.classes(x[:, 0])


def trained_like(recipe: Recipe, seed: int) -> nn.Module:
    """The network, its normalisations random, ready to be exported."""
    torch.manual_seed(seed)
    model = recipe.build()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()
