# Every target sets up what it misses. `make help` lists them.

PYTHON ?= python3
CONFIG ?= Q
WORKERS ?= 2
SEED ?= 1
EXAMPLES ?= 2000
RTL_EXAMPLES ?= 300
SIM ?= verilator
ROUNDS ?= 1
JOBS ?= 20000
VENV := .venv
ZOO := build/zoo
BIN := $(VENV)/bin
TYPED := convoy.spec convoy.golden convoy.hw convoy.driver

given = $(if $(filter command% environment%,$(origin $(1))),$($(1)),$(2))

.PHONY: help setup demo test sim campaign hostile nightly lint formal synth bitstream survey contract zoo verilog reference docs recipes diagrams
.PHONY: clean distclean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.setup build/typing/convoy  ## create .venv with Convoy (editable) and its development tools

$(VENV)/.setup: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.synth: $(VENV)/.setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[synth]'
	@touch $@

build/typing/convoy:
	@mkdir -p $(@D)
	@ln -sfn ../.. $@

demo: setup  ## run a quantised network on the simulated RTL
	$(BIN)/python examples/demo.py

lint: setup  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	MYPYPATH=build/typing $(BIN)/mypy $(addprefix -p ,$(TYPED))

test: lint  ## lint, then all tests; skipped ones are listed with their reasons
	$(BIN)/pytest -n $(WORKERS) -rs

sim: setup  ## cocotb tests of the NPU; SIM=verilator|icarus CONFIG=S SEED=n TEST=name ROUNDS=1 WAVES=1
	$(BIN)/python -m convoy.verif.sim --sim $(SIM) --config $(call given,CONFIG,S) --rounds $(ROUNDS) $(addprefix --seed ,$(call given,SEED)) \
		$(addprefix --test ,$(TEST)) $(if $(filter-out 0,$(WAVES)),--waves)

campaign: setup  ## random layers against LiteRT on golden model and RTL; SEED=1 EXAMPLES=2000 RTL_EXAMPLES=300
	$(BIN)/python -m convoy.verif.campaign --seed $(SEED) --golden $(EXAMPLES) --native $(RTL_EXAMPLES) --workers $(WORKERS)

hostile: setup  ## hostile jobs on the compiled RTL of three configurations; SEED=1 JOBS=20000 WORKERS=2
	$(BIN)/python -m convoy.verif.hostile --seed $(SEED) --jobs $(JOBS) --workers $(WORKERS)

nightly: setup  ## all long campaigns, with a page of results in build/nightly; SEED=1 WORKERS=2
	$(BIN)/python -m convoy.verif.nightly --seed $(SEED) --workers $(WORKERS)

$(VENV)/.formal: $(VENV)/.setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[formal]'
	@touch $@

formal: setup $(VENV)/.formal  ## unbounded proofs: no burst leaves the memory windows or breaks AXI4's rules
	$(BIN)/python -m convoy.verif.formal

synth: setup $(VENV)/.synth  ## area and Fmax, written to docs/synthesis.md; UNIT=post.requant CONFIG=S SEEDS=1: one unit
	$(BIN)/python bench/synth/run.py $(addprefix --unit ,$(UNIT)) $(addprefix --config ,$(call given,CONFIG,)) \
		$(addprefix --seeds ,$(SEEDS)) $(addprefix --minutes ,$(MINUTES)) $(addprefix --model ,$(MODELS)) --workers $(WORKERS)

$(VENV)/.litex: $(VENV)/.setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[litex]'
	@touch $@

bitstream: setup $(VENV)/.synth $(VENV)/.litex  ## an NPU with a memory for a ULX3S board, examples/ulx3s/build/ulx3s.bit; CONFIG=S MHZ=40
	$(MAKE) -C examples/ulx3s bitstream CONFIG=$(call given,CONFIG,S)

survey: setup $(VENV)/.synth  ## area of many configurations, from which `convoy sweep` estimates; FIRST=12: of so many
	$(BIN)/python bench/synth/survey.py --workers $(WORKERS) $(addprefix --first ,$(FIRST))

$(VENV)/.plots: $(VENV)/.setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[plots]'
	@touch $@

contract: setup $(VENV)/.plots  ## every rule of the contract measured, written to docs/contract.md; CONFIG=Q
	$(BIN)/python bench/contract.py --config $(CONFIG)

zoo: setup $(VENV)/.plots  ## networks from real converters, run and written to docs/networks.md; ZOO_PYTHON=interpreter that has them
	test -n "$(ZOO_PYTHON)" || test -x $(ZOO)/bin/python || $(PYTHON) -m venv $(ZOO)
	test -n "$(ZOO_PYTHON)" || $(ZOO)/bin/python -m pip install --quiet --disable-pip-version-check -r bench/zoo/requirements.txt
	$(BIN)/python bench/zoo/run.py --python $(call given,ZOO_PYTHON,$(ZOO)/bin/python) --config $(CONFIG) --jobs $(WORKERS) $(addprefix --model ,$(MODELS))

verilog: setup  ## write the IP into build/ip (CONFIG=Q: preset or TOML file)
	$(BIN)/convoy verilog --config $(CONFIG) --output build/ip

reference: setup  ## write docs/reference and driver/c/convoy_regs.h from spec
	$(BIN)/python -m convoy.verif.refdoc
	$(BIN)/python -m convoy.verif.c_header

$(VENV)/.docs: $(VENV)/.setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

docs: setup $(VENV)/.docs  ## the documentation as a site, written to build/site; every warning is an error
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

diagrams: setup  ## simulate what docs/timing.md shows, written to docs/diagrams and docs/images
	$(BIN)/python -m convoy.verif.diagrams

recipes: setup  ## follow the recipes of docs/recipes: each patch on a copy of the last commit, with its tests
	$(BIN)/python -m convoy.verif.recipes

clean:  ## remove what was built, except .venv
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean  ## and .venv too
	rm -rf $(VENV) *.egg-info
