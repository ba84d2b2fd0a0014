"""The example systems, as their makefiles build and run them: a small network on a small NPU, in Icarus Verilog."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convoy.spec.config import NpuConfig
from convoy.verif.litert import ModelBuilder

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIG = NpuConfig(
    num_cores=1,
    num_lanes=8,
    num_acc_entries=16,
    post_lanes=2,
    stripe_bytes=4096,
    window_words=16,
    weight_fifo_beats=32,
    tp_buffer_bytes=1024,
)
"""Also that of the tests of devices, so that its Verilog is made once."""


def small_network() -> bytes:
    """A convolution and a pool."""
    builder, rng = ModelBuilder(), np.random.default_rng(1)
    image = builder.tensor((1, 4, 4, 3), np.int8, 0.05, 3)
    wgt = builder.tensor((2, 1, 1, 3), np.int8, 0.01, 0, data=rng.integers(-127, 128, (2, 1, 1, 3)))
    bias = builder.tensor((2,), np.int32, 0.0005, 0, data=np.zeros(2))
    middle, result = (builder.tensor((1, size, size, 2), np.int8, 0.05, -5) for size in (4, 2))
    builder.op("CONV_2D", [image, wgt, bias], [middle], strideH=1, strideW=1, padding=0)
    builder.op("MAX_POOL_2D", [middle], [result], strideH=2, strideW=2, filterHeight=2, filterWidth=2, padding=1)
    return builder.finish([image], [result])


@pytest.fixture
def folder(tmp_path):
    """A folder with the network and the configuration."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    (tmp_path / "network.tflite").write_bytes(small_network())
    (tmp_path / "small.toml").write_text(CONFIG.to_toml())
    return tmp_path


def run(example: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The example's `make run` in that folder."""
    settings = {
        "BUILD": folder / "build",
        "CONFIG": folder / "small.toml",
        "MODEL": folder / "network.tflite",
        "BIN": Path(sys.executable).parent,
        "SIM": "icarus",
    }
    command = ["make", "-C", EXAMPLES / example, "run", *(f"{name}={value}" for name, value in settings.items())]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.icarus
def test_the_system_in_verilog(folder):
    done = run("soc", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS: " in done.stdout
    assert "warning" not in done.stdout + done.stderr

    expected = folder / "build" / "expected.hex"
    first, *others = expected.read_text().split()
    expected.write_text("\n".join([f"{int(first, 16) ^ 1:02x}", *others]))
    done = run("soc", folder)
    assert done.returncode != 0
    assert "FAIL: the memory is not as expected" in done.stdout


@pytest.mark.icarus
def test_the_system_of_litex(folder):
    pytest.importorskip("litex", reason="needs LiteX: pip install 'convoy-npu[litex]'", exc_type=ImportError)
    done = run("litex", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS: " in done.stdout
