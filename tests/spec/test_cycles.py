"""What the documents say about cycles."""

from pathlib import Path

from convoy.spec.cycles import INTERRUPT_CYCLES, RESET_CYCLES

ARCHITECTURE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_resets_and_the_interrupt_are_documented():
    assert f"in turn, over {RESET_CYCLES} cycles," in ARCHITECTURE
    assert f"The interrupt comes {INTERRUPT_CYCLES} cycles after the last answer of the bus" in ARCHITECTURE
