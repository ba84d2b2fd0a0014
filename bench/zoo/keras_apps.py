"""Networks of `keras.applications`, each at two sizes, with random weights."""

from __future__ import annotations

from keras import applications
from keras_export import Recipe

CLASSES = 1000
_SIZES = {
    "MobileNet": (96, 224),
    "MobileNetV2": (96, 224),
    "MobileNetV3Small": (88, 96, 224),
    "MobileNetV3Large": (128, 224),
    "EfficientNetB0": (44, 64, 224),
    "EfficientNetV2B0": (96, 224),
    "ResNet50": (64, 160),
    "ResNet50V2": (96, 160),
    "DenseNet121": (64, 128),
    "NASNetMobile": (96, 160),
    "InceptionV3": (75, 139),
    "Xception": (75, 128),
    "VGG16": (32, 64),
    "ConvNeXtTiny": (64, 96),
}
"""Sides of the square images; the last as the network's authors have it, or what converts in a minute."""
_THIN = {"MobileNetV2": (0.35, 96), "MobileNet": (0.25, 96)}
"""Share of the channels, and side of the image, as microcontrollers run them."""
_OWN_SCALING = "MobileNetV3", "EfficientNet", "ConvNeXt"
"""These begin with a scaling of their input, which other networks leave to the caller."""


def _build(kind: str, size: int, **options):
    if kind.startswith(_OWN_SCALING) and kind != "EfficientNetB0":
        options["include_preprocessing"] = False
    return getattr(applications, kind)(weights=None, input_shape=(size, size, 3), classes=CLASSES, **options)


def recipes() -> dict[str, Recipe]:
    """By name; the largest size has a batch of one, smaller ones an unknown one, as Keras leaves it."""
    found = {}
    for kind, sizes in _SIZES.items():
        for size in sizes:
            found[f"{kind.lower()}_{size}"] = Recipe(
                lambda kind=kind, size=size: _build(kind, size), batch=1 if size == sizes[-1] else None
            )
    for kind, (alpha, size) in _THIN.items():
        found[f"{kind.lower()}_{alpha}_{size}"] = Recipe(
            lambda kind=kind, size=size, alpha=alpha: _build(kind, size, alpha=alpha), batch=None
        )
    return found
