.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: help install run test check format bench bench-quota bench-replicas simulate torture lock clean

help: ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP) ## make .venv with everything, exact versions

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: $(STAMP) ## import the sample from an empty folder against the simulator
	@$(BIN)/python -m benchmarks.demo

test: $(STAMP) ## run all tests
	@$(BIN)/pytest -n 4 --dist worksteal

check: $(STAMP) ## format, lint, types, floors, tests with coverage
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/coverage run -m pytest tests/unit
	$(BIN)/coverage report --fail-under=100 --include="worker/rules/*"
	$(BIN)/pytest -n 4 --dist worksteal tests/contract tests/simulation tests/process

format: $(STAMP) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure against a bare loop of posts, in one run
	@$(BIN)/python -m benchmarks.throughput

bench-quota: $(STAMP) ## measure the use of the quota against common limiters, into docs/
	@$(BIN)/python -m benchmarks.quota

bench-replicas: $(STAMP) ## measure several replicas on one Redis and one quota (SOAK_MINUTES=10 adds a soak)
	@$(BIN)/python -m benchmarks.replicas

torture: $(STAMP) ## kill the real command hundreds of times
	@$(BIN)/pytest -m torture -s --timeout 3600

simulate: $(STAMP) ## serve the stand-in of the service
	@$(BIN)/topic-import simulate

lock: $(STAMP) ## renew the hashed lock
	@mkdir -p build
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' > build/dev.in
	$(BIN)/pip-compile --quiet --extra redis --strip-extras --allow-unsafe --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements.lock pyproject.toml build/dev.in

clean: ## remove what was made
	rm -rf .venv .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist out
