# `make run` and `make test` need nothing but Python 3.11 or newer; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test test-stores bench bench-quick bench-page bench-rotation bench-gate bench-gate-sockets check \
  format config lock clean test-system conformance-page conformance-peers soak abuse sbom

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or newer is needed; name it: make PYTHON=python3.13 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "make: this Python cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What the program needs, and what its developers need on top: installed again only when a lock changes.
$(VENV)/run.stamp: requirements/run.txt | $(BIN)/python
	$(PIP) install --require-hashes --only-binary :all: -r requirements/run.txt
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/run.stamp

# The key stores' client libraries, and the servers that they are tested against.
$(VENV)/stores.stamp: requirements/stores.txt $(VENV)/dev.stamp
	$(PIP) install --require-hashes --only-binary :all: -r requirements/stores.txt
	@touch $@

run: $(VENV)/run.stamp ## Serve on 127.0.0.1:8080: the real API if NANONETS_API_KEY or NANONETS_API_KEY_FILE is set, else the sandbox
	@if [ -n "$$NANONETS_API_KEY$$NANONETS_API_KEY_FILE" ]; then sandbox=; else sandbox=--sandbox; fi; \
	  PYTHONPATH=proxy exec $(BIN)/python -m nanonets_proxy serve $$sandbox $(ARGS)

test: $(VENV)/dev.stamp ## Run the tests (PYTEST_ARGS adds options)
	$(BIN)/python -m pytest -m "not system" --numprocesses auto --maxprocesses 4 --cov --cov-report=term $(PYTEST_ARGS)
	@$(BIN)/coverage report --include="*/nanonets_proxy/core/*,*/nanonets_proxy/errors.py" --fail-under=100 \
	  >/dev/null || { echo "make: the core's branch coverage is below 100 %" >&2; exit 1; }

test-stores: $(VENV)/stores.stamp ## Run the tests of the key stores, against a real OpenBao and a simulated AWS
	$(BIN)/python -m pytest tests/keys -m system $(PYTEST_ARGS)

bench-rotation: $(VENV)/dev.stamp ## Rotate keys 100 times in a minute under 500 requests a second, in three ways
	PYTHONPATH=tests $(BIN)/python -m support.rotation

abuse: $(VENV)/dev.stamp ## Attack the proxy at full scale (some minutes; needs 20,000 open files)
	ABUSE_SCALE=1 $(BIN)/python -m pytest tests/abuse -s $(PYTEST_ARGS)

sbom: ## Write dist/nanonets-proxy.cdx.json: what the locked program is made of, as CycloneDX
	@mkdir -p dist
	$(PYTHON) .ci/sbom.py "$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' proxy/nanonets_proxy/__init__.py)" \
	  < requirements/run.txt > dist/nanonets-proxy.cdx.json

check: $(VENV)/dev.stamp ## Format, lint, types, layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## Format the code, mend what the linter can
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

config: $(VENV)/dev.stamp ## Write config/ anew from the settings
	$(BIN)/nanonets-proxy config --reference > config/nanonets-proxy.toml
	$(BIN)/nanonets-proxy config --schema > config/nanonets-proxy.schema.json

conformance-page: $(VENV)/dev.stamp ## Write docs/conformance.md anew from the table of cases
	PYTHONPATH=tests $(BIN)/python -m conformance.page

conformance-peers: $(VENV)/dev.stamp ## Ask nginx, HAProxy and Caddy the same cases (root; installs them)
	tests/conformance/peers/setup.sh .system/peers
	PYTHONPATH=tests $(BIN)/python -m conformance.peers.compare .system/peers
	PYTHONPATH=tests $(BIN)/python -m conformance.page

soak: $(VENV)/dev.stamp ## Ten minutes of random faults on both sides (SOAK_S seconds, SOAK_SEED)
	SOAK_S=$${SOAK_S:-600} SOAK_SEED=$${SOAK_SEED:-$$(date +%s)} $(BIN)/python -m pytest tests/soak -s $(PYTEST_ARGS)

# `uv` only resolves; what it writes is what pip installs everywhere.
# With their extras: an older pip looks for the newest of what is asked for with an extra, past a pin without it.
RESOLVE = uv pip compile --quiet --no-strip-extras --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --custom-compile-command "make lock"
lock: ## Resolve the dependencies anew (needs `uv`)
	$(RESOLVE) pyproject.toml --output-file requirements/run.txt
	$(RESOLVE) pyproject.toml --group dev --output-file requirements/dev.txt
	$(RESOLVE) --group build --output-file requirements/build.txt
	$(RESOLVE) --group system --output-file requirements/system.txt
	$(RESOLVE) pyproject.toml --group stores --output-file requirements/stores.txt
	$(RESOLVE) --group bench --output-file requirements/bench.txt

# BENCH_ONLY and BENCH_PEERS take names with commas between. A whole run writes docs/speed.md.
# What is installed has its bytecode; without, each start would compile the program anew.
BENCH = $(BIN)/python -m compileall -q proxy && bench/speed/setup.sh .system/speed && PYTHONPATH=bench $(BIN)/python -m speed .system/speed
bench: $(VENV)/dev.stamp ## Measure speed beside nginx, Envoy and others (root; installs them; BENCH_ONLY, BENCH_PEERS, BENCH_ROUNDS)
	$(BENCH) --only "$(BENCH_ONLY)" --peers "$(BENCH_PEERS)" --rounds $${BENCH_ROUNDS:-5}

bench-quick: $(VENV)/dev.stamp ## The small GETs alone, beside Envoy and nginx: a minute
	$(BENCH) --only small_get,small_get_tls --peers Envoy,nginx --rounds $${BENCH_ROUNDS:-4}

bench-page: $(VENV)/dev.stamp ## Write docs/speed.md anew from the results of the last whole run
	PYTHONPATH=bench $(BIN)/python -m speed.page

bench-gate: $(VENV)/dev.stamp ## Compare the gate with other policies, in virtual time
	PYTHONPATH=bench $(BIN)/python -m simulator

bench-gate-sockets: $(VENV)/dev.stamp ## The same with real sockets, against the sandbox
	PYTHONPATH=bench:tests $(BIN)/python -m sockets

clean: ## Remove what was made
	rm -rf $(VENV) .venv-system .system dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# The tools of the system tests are commands, in an environment of their own: their needs must not move ours.
SYSTEM_VENV := .venv-system
$(SYSTEM_VENV)/system.stamp: requirements/system.txt | $(BIN)/python
	$(BIN)/python -m venv $(SYSTEM_VENV)
	$(SYSTEM_VENV)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes \
	  --only-binary :all: -r requirements/system.txt
	@touch $@

test-system: $(VENV)/dev.stamp $(SYSTEM_VENV)/system.stamp ## Build and run the image and the examples (root; installs Debian packages)
	tests/system/setup.sh .system
	$(BIN)/python -m pytest -m system tests/system $(PYTEST_ARGS)
	$(MAKE) soak SOAK_S=60 PYTEST_ARGS=--capture=fd # its log is long; a failure shows it
