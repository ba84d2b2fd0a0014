"""Limits speak of the configuration that they are asked about."""

from pathlib import Path

import pytest

from convoy.spec.config import NpuConfig
from convoy.spec.limits import FUSED_POOL_LIMITS, FusedPool, broken_limit, limit_text

LIMITS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "limits.md"


@pytest.mark.parametrize("line_bytes", [32, 64])
@pytest.mark.parametrize("element_bytes", [1, 2])
def test_the_width_of_a_3x3_pool(line_bytes, element_bytes):
    config = NpuConfig(pool_line_bytes=line_bytes)

    def broken(width):
        return broken_limit(FusedPool((3, 3), (2, 2), False, (5, width), element_bytes), config)

    width = line_bytes // element_bytes + 1
    assert broken(width - 2) is None
    assert broken(width) == (
        f"a fused 3x3 pool takes rows of fewer than {line_bytes} bytes (`pool_line_bytes`); "
        f"this is a 3x3 pool of stride 2x2 reading 5x{width}"
    )


def test_the_page_has_the_default_configuration():
    page = LIMITS_PAGE.read_text(encoding="utf-8")
    for limit in FUSED_POOL_LIMITS:
        assert f"* {limit_text(limit, NpuConfig())}\n" in page
        assert "\n" not in limit_text(limit, NpuConfig())
