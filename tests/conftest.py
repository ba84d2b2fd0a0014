"""Settings of hypothesis for the whole suite, and what is done about tools that are not installed; commands do not
speak up on a slow machine.
"""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from convoy.driver.report import progress
from convoy.verif.c_host import host_compiler

settings.register_profile(
    "convoy",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("convoy")

TOOLS = {
    "icarus": ("Icarus Verilog", "iverilog", "iverilog"),
    "c_compiler": ("a C compiler", host_compiler()[0], "gcc"),
}
"""By marker: title, command, and the package that has it."""


def pytest_runtest_setup(item):
    """Skip a test that needs a tool where there is none; where CI says so (`CONVOY_CI=1`, set by .ci/run), that is an
    error.
    """
    for marker, (title, command, package) in TOOLS.items():
        if item.get_closest_marker(marker) and shutil.which(command) is None:
            if os.environ.get("CONVOY_CI") == "1":
                pytest.fail(f"needs {title}, which CI has to install: apt-get install {package}", pytrace=False)
            pytest.skip(f"needs {title}: apt-get install {package}")


@pytest.fixture(autouse=True)
def _no_signs_of_life(monkeypatch):
    """What commands say depends on no clock."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 1e6)
