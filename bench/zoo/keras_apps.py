"""Networks of `keras.applications`, each at two sizes, with random weights."""

from __future__ import annotations

from keras import applications
from keras_export import Recipe

CLASSES = 1000
_SIZES = {
    "MobileNet": (96, 224),
    "MobileNetV2": (96, 224),
    "MobileNetV3Small": (96, 224),
    "MobileNetV3Large": (128, 224),
    "EfficientNetB0": (64, 224),
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
_FEW_CLASSES = 10
_AS_ON_MICROCONTROLLERS = {
    "MobileNet": (96, {"alpha": 0.25}),
    "MobileNetV2": (96, {"alpha": 0.35}),
    "MobileNetV3Small": (88, {}),
    "EfficientNetB0": (44, {}),
    "ResNet50": (64, {}),
    "NASNetMobile": (96, {}),
}
"""Side of the image, and the share of the channels: with few classes, so that the last layer is not most of them."""
_OWN_SCALING = "MobileNetV3", "EfficientNet", "ConvNeXt"
"""These begin with a scaling of their input, which other networks leave to the caller."""


def _build(kind: str, size: int, classes: int = CLASSES, **options):
    if kind.startswith(_OWN_SCALING) and kind != "EfficientNetB0":
        options["include_preprocessing"] = False
    return getattr(applications, kind)(weights=None, input_shape=(size, size, 3), classes=classes, **options)


def recipes() -> dict[str, Recipe]:
    """By name; the largest size has a batch of one, smaller ones an unknown one, as Keras leaves it."""
    found = {}
    for kind, sizes in _SIZES.items():
        for size in sizes:
            found[f"{kind.lower()}_{size}"] = Recipe(
                lambda kind=kind, size=size: _build(kind, size), batch=1 if size == sizes[-1] else None
            )
    for kind, (size, options) in _AS_ON_MICROCONTROLLERS.items():
        name = "_".join([kind.lower(), *(str(share) for share in options.values()), f"{size}_c{_FEW_CLASSES}"])
        found[name] = Recipe(
            lambda kind=kind, size=size, options=options: _build(kind, size, _FEW_CLASSES, **options), batch=None
        )
    return found
