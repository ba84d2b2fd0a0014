"""Settings of hypothesis for the whole suite, and what is done about tools that are not installed; commands do not
speak up on a slow machine.
"""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from convoy.driver.report import progress

settings.register_profile(
    "convoy",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("convoy")


def pytest_runtest_setup(item):
    """Skip a test that needs Icarus Verilog where there is none; where CI says so (`CONVOY_CI=1`, set by .ci/run),
    that is an error.
    """
    if item.get_closest_marker("icarus") and shutil.which("iverilog") is None:
        if os.environ.get("CONVOY_CI") == "1":
            pytest.fail("needs Icarus Verilog, which CI has to install: apt-get install iverilog", pytrace=False)
        pytest.skip("needs Icarus Verilog: apt-get install iverilog")


@pytest.fixture(autouse=True)
def _no_signs_of_life(monkeypatch):
    """What commands say depends on no clock."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 1e6)
