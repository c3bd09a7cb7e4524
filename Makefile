.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
PEERS := .venv/peers-installed
COMPILE := $(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: help install run test lint check format bench bench-growth bench-paced bench-quota bench-replicas bench-distance profile simulate torture lock clean

help: ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP) ## make .venv with exact versions of everything

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: $(STAMP) ## import the sample into a simulated service
	@$(BIN)/python -m benchmarks.demo

test: $(STAMP) ## run all tests
	@$(BIN)/pytest -n 4 --dist worksteal

lint: $(STAMP) ## format, linter, types, floors, all of worker/rules covered by unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/coverage run -m pytest tests/unit
	$(BIN)/coverage report --fail-under=100 --include="worker/rules/*"

check: lint ## lint, then the tests that it does not run
	$(BIN)/pytest -n 4 --dist worksteal tests/contract tests/simulation tests/process

format: $(STAMP) ## format, and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(PEERS): benchmarks/requirements.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --require-hashes -r benchmarks/requirements.lock
	@touch $@

bench: $(PEERS) ## measure the speed against peers, write docs/performance.md (RECORDS, ROUNDS)
	@$(BIN)/python -m benchmarks.throughput

bench-paced: $(STAMP) ## measure the CPU at 200 calls a second (RECORDS)
	@$(BIN)/python -m benchmarks.paced

bench-growth: $(STAMP) ## measure up to a million records (SIZES="10000 5000000" for others)
	@$(BIN)/python -m benchmarks.growth

profile: $(STAMP) ## show where a backfill spends its time, by function (RECORDS)
	@$(BIN)/python -m benchmarks.profiling

bench-quota: $(STAMP) ## measure the use of the quota against common limiters, write docs/quota.md
	@$(BIN)/python -m benchmarks.quota

bench-replicas: $(STAMP) ## measure replicas that share a queue and a quota (SOAK_MINUTES=10 adds a soak)
	@$(BIN)/python -m benchmarks.replicas

bench-distance: $(STAMP) ## measure replicas far from Redis, write docs/redis-distance.md (SECONDS)
	@$(BIN)/python -m benchmarks.distance

torture: $(STAMP) ## kill the real command hundreds of times
	@$(BIN)/pytest -m torture -s --timeout 3600

simulate: $(STAMP) ## serve a simulated service
	@$(BIN)/topic-import simulate

lock: $(STAMP) ## write requirements.lock and benchmarks/requirements.lock anew
	@mkdir -p build
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' > build/dev.in
	$(COMPILE) --extra redis --extra parquet --output-file requirements.lock pyproject.toml build/dev.in
	$(BIN)/python -c 'import tomllib; print("-c ../requirements.lock", *tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["bench"], sep="\n")' > build/bench.in
	$(COMPILE) --output-file benchmarks/requirements.lock build/bench.in

clean: ## remove everything that these commands made
	rm -rf .venv .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist out
