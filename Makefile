# `make run` and `make test` need only Python 3.11 or newer. `make help` lists all commands.
PYTHON ?= python3
VENV := .venv
SYSTEM_VENV := .venv-system
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST_ARGS ?=
# Without bytecode, each process that a test starts would compile the program anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test coverage explore test-newest test-stores test-fleet test-valkey bench-fleet fresh-machine bench bench-quick bench-instructions bench-telemetry bench-page bench-rotation bench-restart bench-gate bench-gate-sockets check \
  format config lock clean test-system conformance-page status-page metrics-page helm-chart conformance-peers soak soak-jobs abuse release

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "make: Python 3.11 or newer is needed. If it is installed under another name: make PYTHON=python3.13 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: this Python cannot make virtual environments. On Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# run.stamp: the program's dependencies. dev.stamp: also the developers' tools. A changed lock file reinstalls them.
$(VENV)/run.stamp: requirements/run.txt | $(BIN)/python
	$(PIP) install --require-hashes --only-binary :all: -r requirements/run.txt
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/run.stamp

# The client libraries of the key stores, and the servers for their tests.
$(VENV)/stores.stamp: requirements/stores.txt $(VENV)/dev.stamp
	$(PIP) install --require-hashes --only-binary :all: -r requirements/stores.txt
	@touch $@

run: $(VENV)/run.stamp ## Serve on localhost:8080; without NANONETS_API_KEY or NANONETS_API_KEY_FILE: the simulated API
	@if [ -n "$$NANONETS_API_KEY$$NANONETS_API_KEY_FILE" ]; then sandbox=; else sandbox=--sandbox; fi; \
	  PYTHONPATH=proxy exec $(BIN)/python -m nanonets_proxy serve $$sandbox $(ARGS)

PYTEST = -m pytest -m "not system" --numprocesses auto --dist worksteal
test: $(VENV)/dev.stamp ## Run the tests (PYTEST_ARGS adds options)
	$(BIN)/python $(PYTEST) $(PYTEST_ARGS)

coverage: $(VENV)/dev.stamp ## Run the tests of the core; they must reach 100 % of its branches
	$(BIN)/python $(PYTEST) --cov --cov-report=term tests/core $(PYTEST_ARGS)

explore: $(VENV)/dev.stamp ## Run the property tests with new random examples (`make test` repeats the same ones)
	$(BIN)/python $(PYTEST) -m "hypothesis and not system" --hypothesis-profile=explore $(PYTEST_ARGS)

# No stamp: each run looks for newer releases. pip 25.1 is the first that reads dependency groups.
NEWEST := .venv-newest
NEWEST_PIP := $(NEWEST)/bin/python -m pip --quiet --disable-pip-version-check install --upgrade
test-newest: ## Run the tests with the newest release of each dependency, without the lock files
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST_PIP) "pip>=25.1"
	$(NEWEST_PIP) --upgrade-strategy eager --group dev --editable .
	$(NEWEST)/bin/python -m pip list --disable-pip-version-check
	$(NEWEST)/bin/python $(PYTEST) $(PYTEST_ARGS)

fresh-machine: ## Run `make run` and `make test` as an ordinary user on a fresh Debian (root; SUITE=trixie)
	.ci/fresh-machine $(or $(SUITE),bookworm) "$(PYTEST_ARGS)"

test-stores: $(VENV)/stores.stamp ## Run the tests of the key stores against a real OpenBao and a simulated AWS
	$(BIN)/python -m pytest tests/keys -m system $(PYTEST_ARGS)

# The client of Redis. The server is Debian's.
$(VENV)/redis.stamp: requirements/extra-redis.txt $(VENV)/dev.stamp
	$(PIP) install --require-hashes --only-binary :all: -r requirements/extra-redis.txt
	@touch $@

test-fleet: $(VENV)/redis.stamp ## Run the tests of a fleet against a real Redis (root; installs Debian's redis-server)
	tests/admission/fleet/setup.sh
	$(BIN)/python -m pytest tests/admission/fleet -m system $(PYTEST_ARGS)

# The tests of what the server itself does: scripts, rights, memory.
test-valkey: $(VENV)/redis.stamp ## Run the tests of scripts and rights against Valkey (root; takes it from Debian 13)
	tests/admission/fleet/valkey.sh .system/valkey
	REDIS_PROGRAM=$(CURDIR)/.system/valkey/valkey-server $(BIN)/python -m pytest -m system \
	  tests/admission/fleet/bus/test_scripts.py tests/admission/fleet/test_redis_faults.py $(PYTEST_ARGS)

bench-fleet: $(VENV)/redis.stamp ## Run fleets of 3 and 8 proxies over a real Redis (root; installs it; FLEET_ARGS adds options)
	tests/admission/fleet/setup.sh
	PYTHONPATH=bench:tests $(BIN)/python -m fleet $(FLEET_ARGS)

bench-rotation: $(VENV)/dev.stamp ## Rotate keys under load: 100 times in a minute at 500 requests a second, in three ways
	PYTHONPATH=tests $(BIN)/python -m support.commands.rotation

bench-restart: $(VENV)/dev.stamp ## Restart the proxy 50 times under 1,000 requests a second (RESTARTS, RATE)
	PYTHONPATH=tests:bench $(BIN)/python -m restarts

abuse: $(VENV)/dev.stamp ## Attack the proxy at full scale (a few minutes; needs 20,000 open files)
	ABUSE_SCALE=1 $(BIN)/python -m pytest tests/abuse -o faulthandler_timeout=0 -s $(PYTEST_ARGS)

release: $(VENV)/dev.stamp $(SYSTEM_VENV)/system.stamp ## Build wheel, sdist, images, bill of materials and checksums in dist/ (docker or podman)
	.ci/release

check: $(VENV)/dev.stamp ## Check format, lint rules, types and imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## Format the code and apply the automatic fixes of the linter
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

config: $(VENV)/dev.stamp ## Generate the files in config/ from the settings
	$(BIN)/nanonets-proxy config --reference > config/nanonets-proxy.toml
	$(BIN)/nanonets-proxy config --schema > config/nanonets-proxy.schema.json

metrics-page: $(VENV)/dev.stamp ## Generate docs/reference/metrics.md from the metrics
	PYTHONPATH=tests $(BIN)/python -m reference.metrics_page

conformance-page: $(VENV)/dev.stamp ## Generate docs/conformance.md from the table of cases
	PYTHONPATH=tests $(BIN)/python -m conformance.page

status-page: $(VENV)/dev.stamp ## Generate docs/reference/status.md and the JSON schema of GET /status
	PYTHONPATH=tests $(BIN)/python -m support.telemetry.status_page

helm-chart: $(VENV)/dev.stamp ## Generate the Helm chart's values and README from its values.schema.json
	PYTHONPATH=tests $(BIN)/python -m reference.helm_chart

conformance-peers: $(VENV)/dev.stamp ## Run the conformance cases against nginx, HAProxy and Caddy (root; installs them)
	tests/conformance/peers/setup.sh .system/peers
	PYTHONPATH=tests $(BIN)/python -m conformance.peers.compare .system/peers
	PYTHONPATH=tests $(BIN)/python -m conformance.page

soak: $(VENV)/dev.stamp ## Inject random faults on both sides for ten minutes (SOAK_S: seconds; SOAK_SEED)
	SOAK_S=$${SOAK_S:-600} SOAK_SEED=$${SOAK_SEED:-$$(date +%s)} $(BIN)/python -m pytest tests/soak -o faulthandler_timeout=0 -s $(PYTEST_ARGS)

soak-jobs: $(VENV)/dev.stamp ## Kill a proxy with jobs 1,000 times: none is lost, none is sent twice (ROUNDS, SEED)
	PYTHONPATH=tests $(BIN)/python -m support.commands.job_kills $${ROUNDS:-1000} $${SEED:-$$(date +%s)}

# `uv` only resolves the versions; pip installs them.
# --no-strip-extras: if the lock pins `name==1` and a dependency asks for `name[extra]`, an older pip ignores the pin.
RESOLVE = uv pip compile --quiet --no-strip-extras --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --custom-compile-command "make lock"
lock: ## Update the lock files in requirements/ (needs `uv`)
	$(RESOLVE) pyproject.toml --output-file requirements/run.txt
	for extra in aws pages redis vault; do $(RESOLVE) pyproject.toml --extra $$extra --constraint requirements/run.txt \
	  --output-file requirements/extra-$$extra.txt || exit 1; done
	$(RESOLVE) pyproject.toml --group dev --output-file requirements/dev.txt
	$(RESOLVE) --group build --output-file requirements/build.txt
	$(RESOLVE) --group system --output-file requirements/system.txt
	$(RESOLVE) --group clients --output-file requirements/clients.txt
	$(RESOLVE) pyproject.toml --group stores --output-file requirements/stores.txt
	$(RESOLVE) --group bench --output-file requirements/bench.txt
	$(RESOLVE) --group bench-gate --output-file requirements/bench-gate.txt

# BENCH_ONLY and BENCH_PEERS take names separated by commas. A whole run writes docs/speed.md.
# An installed program has its bytecode, so the benchmark compiles it too; otherwise each start would.
BENCH = $(BIN)/python -m compileall -q proxy && bench/speed/setup.sh .system/speed && PYTHONPATH=bench $(BIN)/python -m speed .system/speed
bench: $(VENV)/dev.stamp ## Compare speed with nginx, Envoy and others (root; installs them; BENCH_ONLY, BENCH_PEERS, BENCH_ROUNDS)
	$(BENCH) --only "$(BENCH_ONLY)" --peers "$(BENCH_PEERS)" --rounds $${BENCH_ROUNDS:-5}

bench-quick: $(VENV)/dev.stamp ## Compare only small GETs, with Envoy and nginx (one minute)
	$(BENCH) --only small_get,small_get_tls --peers Envoy,nginx --rounds $${BENCH_ROUNDS:-4}

bench-instructions: $(VENV)/dev.stamp ## Count the instructions of a request, on a busy machine too (two minutes; needs valgrind)
	@command -v valgrind >/dev/null || { echo "make: valgrind is missing. On Debian: apt-get install valgrind" >&2; exit 1; }
	PYTHONPATH=bench $(BIN)/python -m instructions

bench-telemetry: $(VENV)/dev.stamp ## Measure what ledger, traces and metrics add to a request (three minutes; needs nginx and wrk; ONLY, ROUNDS, RATE)
	PYTHONPATH=bench $(BIN)/python -m telemetry

bench-page: $(VENV)/dev.stamp ## Generate docs/speed.md from the results of the last whole run
	PYTHONPATH=bench $(BIN)/python -m speed.report.page

bench-gate: $(VENV)/dev.stamp ## Compare the gate with other policies in virtual time
	PYTHONPATH=bench $(BIN)/python -m simulator

$(VENV)/bench-gate.stamp: requirements/bench-gate.txt $(VENV)/dev.stamp
	$(PIP) install --require-hashes --only-binary :all: -r requirements/bench-gate.txt
	@touch $@

bench-gate-sockets: $(VENV)/bench-gate.stamp ## Compare the gate with other policies over real sockets, against the sandbox
	PYTHONPATH=bench:tests $(BIN)/python -m socket_jobs
	PYTHONPATH=bench:tests $(BIN)/python -m sockets

clean: ## Remove all generated files
	rm -rf $(VENV) $(NEWEST) .venv-system .system dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# The system tests' tools have an environment of their own, so that their dependencies cannot change the versions of ours.
$(SYSTEM_VENV)/system.stamp: requirements/system.txt requirements/docstrange.txt | $(BIN)/python
	$(BIN)/python -m venv $(SYSTEM_VENV)
	$(SYSTEM_VENV)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes \
	  --only-binary :all: -r requirements/system.txt
	$(SYSTEM_VENV)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps \
	  --only-binary :all: -r requirements/docstrange.txt
	@touch $@

test-system: $(VENV)/redis.stamp $(SYSTEM_VENV)/system.stamp ## Build and run the image and the examples for real (root; installs Debian packages)
	tests/system/setup.sh .system
	tests/system/clients/setup.sh .system/clients
	$(BIN)/python -m pytest -m system tests/system $(PYTEST_ARGS)
	$(MAKE) soak SOAK_S=60 SOAK_SEED=1 PYTEST_ARGS=--capture=fd # the log is long; pytest shows it after a failure
