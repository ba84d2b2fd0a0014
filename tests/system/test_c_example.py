"""The example in C: digits on the compiled RTL, through its registers and memory."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "c"


@pytest.mark.c_compiler
def test_digits(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    command = ["make", "-C", FOLDER, "run", f"BUILD={tmp_path}", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "10 of 10 results equal LiteRT's" in done.stdout
    assert "with a limit of 1000 cycles: TIMEOUT; without: a 3 is taken for a 3; scores equal" in done.stdout
