"""The area of any configuration, from those that were mapped."""

from __future__ import annotations

import pytest

from convoy.driver.bench.area import COLUMNS, LOGIC, MAPPED, area_model, estimate_area, fit, read_mapped
from convoy.spec.config import FEATURES, PRESETS

SMALL = PRESETS["S"]
VARIED = [
    SMALL,
    SMALL.with_(num_cores=4),
    SMALL.with_(num_cores=8, num_lanes=8),
    SMALL.with_(num_lanes=8),
    SMALL.with_(num_lanes=32),
    SMALL.with_(post_lanes=4),
    SMALL.with_(port_bits=128),
    SMALL.with_(window_words=16),
    SMALL.with_(num_cores=2, window_words=128, post_lanes=1),
    SMALL.with_(num_cores=2, port_bits=32),
    SMALL.with_(num_cores=4, num_lanes=32, post_lanes=8),
    SMALL.with_(window_words=256),
]


def test_a_sum_of_terms_is_found_again():
    values = (9000, 70, 900, 300, 1500, 0.5, 20)
    terms = dict(list(LOGIC.items())[: len(values)])
    factors = dict(zip(terms, values, strict=True))
    cells = [round(sum(factor * terms[name](config) for name, factor in factors.items())) for config in VARIED]
    found = fit(terms, VARIED, cells)
    assert found.factors == pytest.approx(factors, rel=0.01)
    assert found.mean_error <= found.max_error < 0.001


def test_nothing_is_said_of_units_that_were_never_left_out():
    assert estimate_area(PRESETS["S"]) is not None
    lacking = {name for config, _ in read_mapped(MAPPED.read_text()) for name in FEATURES if not getattr(config, name)}
    for name in FEATURES:
        assert (estimate_area(PRESETS["S"].with_(**{name: False})) is None) == (name not in lacking)


def test_errors_are_of_configurations_left_out():
    cells = [10_000] * len(VARIED)
    cells[4] = 20_000
    found = fit({"once": lambda config: 1}, VARIED, cells)
    assert found.max_error == pytest.approx(0.5), "the others say 10,000"


def test_who_alone_has_a_term_is_not_left_out():
    terms = {"once": lambda config: 1, "wide": lambda config: config.port_bits > 64}
    cells = [30_000 if terms["wide"](config) else 10_000 for config in VARIED]
    assert cells.count(30_000) == 1
    found = fit(terms, VARIED, cells)
    assert found.factors == pytest.approx({"once": 10_000, "wide": 20_000})
    assert found.max_error == pytest.approx(0, abs=1e-9)


def test_mapped_configurations_are_estimated_no_worse_than_is_said():
    mapped, model = read_mapped(MAPPED.read_text()), area_model()
    assert {PRESETS["S"], PRESETS["Q"]} <= {config for config, _ in mapped}
    for config, cells in mapped:
        area = estimate_area(config)
        seen = {"LUT4": area.lut4, "sites": area.sites, "DP16KD": area.block_rams, "MULT18X18D": area.dsp_blocks}
        for name, value in seen.items():
            assert abs(value - cells[name]) <= model[name].max_error * cells[name] + 0.5


def test_few_configurations_have_few_terms():
    found = fit(LOGIC, VARIED[:4], [100, 400, 600, 60])
    assert list(found.factors) == ["once", "lane of all cores", "lane of the drain"]


def test_more_cores_take_more():
    small, large = (estimate_area(PRESETS[name]) for name in "SQ")
    assert small.lut4 < large.lut4
    assert small.sites < large.sites
    assert small.block_rams < large.block_rams
    assert small.dsp_blocks < large.dsp_blocks
    assert set(area_model()) == set(COLUMNS)


def test_a_parameter_that_was_not_there_has_its_default():
    header, line = "num_cores,num_lanes,LUT4,sites,DP16KD,MULT18X18D", "1,16,1,2,3,4"
    cells = {"LUT4": 1, "sites": 2, "DP16KD": 3, "MULT18X18D": 4}
    assert read_mapped(f"{header}\n{line}\n") == [(PRESETS["Q"].with_(num_cores=1), cells)]
