"""The wheel: built, installed in an empty environment, and used there."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
LAYER = ("layer", "--op", "conv", "--input", "8x8x16", "--oc", "16", "--kernel", "3x3", "--config", "S")


def call(*command: object, **options) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of what is or may come under version control, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in call("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / path).is_file():
            target = folder / "source" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / path).read_bytes())
    call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, folder / "source")
    return next(folder.glob("*.whl"))


def test_every_module_is_in_the_wheel(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    folders = [ROOT / name for name in ("spec", "golden", "hw", "driver", "verif")]
    sources = {
        path
        for folder in folders
        for suffix in ("py", "c", "cc", "h", "toml", "csv")
        for path in folder.rglob(f"*.{suffix}")
    }
    assert packed == {f"convoy/{path.relative_to(ROOT)}" for path in sources}


def test_a_layer_in_an_empty_environment(wheel, tmp_path):
    """With what the wheel depends on and nothing else, outside of the checkout; and the lines that the page for those
    who deploy a network shows.
    """
    call(sys.executable, "-m", "venv", tmp_path / "env")
    python = tmp_path / "env/bin/python"
    call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    printed = call(tmp_path / "env/bin/convoy", *LAYER, "--device", "native", cwd=tmp_path)
    assert "every tensor equals the reference" in printed
    text = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "users" / "deploy.md").read_text(), re.DOTALL)[1]
    assert len([line for line in text.splitlines() if line]) <= 10
    shutil.copy(ROOT / "examples" / "digits_int8.tflite", tmp_path / "model.tflite")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "digit.png")
    assert re.fullmatch(r"(class .*\n){3}0\.\d+ ms, .* bytes\n\d+\n", call(python, "-c", text, cwd=tmp_path))
    here = call(python, "-c", "import convoy.driver; print(convoy.driver.__file__)", cwd=tmp_path)
    assert Path(here.strip()).is_relative_to(tmp_path / "env")
