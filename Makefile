# Thin targets: each is one command you could type yourself. `make help` lists them.

BIN := .venv/bin
STAMP := .venv/.stamp
WORKERS ?= 3# test processes: half of the time they wait for servers and programs, so one more than two cores
ARGS ?=# passed on, e.g. make test ARGS='-k closure'

# Byte code is written whatever the environment says: programs that a test starts would compile our modules each time.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r target text; do printf '  make %-18s %s\n' "$$target" "$$text"; done

$(STAMP): requirements.lock pyproject.toml scripts/venv hatch_build.py $(wildcard crochet_tasks/engine/*.pyx)
	@scripts/venv

.PHONY: venv
venv: $(STAMP) ## create .venv from the lock file (other targets do so when needed)

.PHONY: demo
demo: $(STAMP) ## find every ortho of a sample text, in a private Postgres in .state/demo
	$(BIN)/crochet run examples/harbour.txt --state .state/demo
	@echo 'Look at them in a browser: $(BIN)/crochet view --state .state/demo'

.PHONY: services
services: ## install the servers that tests start, unless they are installed
	@scripts/services

.PHONY: test
test: $(STAMP) services ## run all tests but the container tests
	$(BIN)/python -m pytest -n $(WORKERS) --junitxml .state/tests/junit.xml $(ARGS)

.PHONY: durations
durations: $(STAMP) ## how long each test took in the newest `make test`, and which got slower since the one before
	$(BIN)/python scripts/runs_of_tests.py durations .state/tests/junit.xml

.PHONY: coverage
coverage: $(STAMP) services ## which lines and branches unit and integration tests do not run (ARGS='tests/unit/engine' for some of them)
	$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term $(if $(ARGS),$(ARGS),tests/unit tests/integration)

.PHONY: coverage-engine
coverage-engine: $(STAMP) ## the same of the engine by its unit tests, without those of Genesis and of large orthos; fails below 97 %
	$(BIN)/python -m pytest -q -n $(WORKERS) --hypothesis-profile few --cov --cov-report= tests/unit/engine -k "not genesis and not large_orthos"
	$(BIN)/coverage report --include='crochet_tasks/engine/*' --fail-under=97

TIMES ?= 10# that make flaky runs them

.PHONY: flaky
flaky: $(STAMP) services ## run tests again and again, report those that fail now and then: make flaky TIMES=20 ARGS='-n 2 tests/unit'
	$(BIN)/python scripts/runs_of_tests.py flaky --runs $(TIMES) $(ARGS)

SEED ?= 0# of the first run of make simulate
RUNS ?= 1000

.PHONY: simulate
simulate: $(STAMP) ## run the pipeline by seeds, with faults at every point: make simulate SEED=7 RUNS=1 (docs/simulation.md)
	$(BIN)/python -m tests.simulation --seed $(SEED) --runs $(RUNS) $(ARGS)

KILLS ?= 1000

.PHONY: chaos
chaos: $(STAMP) services ## kill, stop and cut off the processes and servers of a deployment at random, then check everything
	$(BIN)/python -m tests.chaos --kills $(KILLS) --seed $(SEED) $(ARGS)

HOURS ?= 1

.PHONY: soak
soak: $(STAMP) services ## run a deployment under load for hours, and report what grew: make soak HOURS=8
	$(BIN)/python -m tests.soak --hours $(HOURS) $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) services ## run all Hypothesis tests with 20 times as many examples, those of the engine with sanitizers too, and send generated requests to the API (ARGS='--fuzz-examples 2000')
	scripts/sanitized python -m pytest -n $(WORKERS) --kernel sanitized --timeout 0 --hypothesis-profile fuzz tests/unit/engine
	$(BIN)/python -m pytest -n $(WORKERS) --timeout 0 --hypothesis-profile fuzz $$(grep -rl "^from hypothesis" tests --include="test_*.py")
	$(BIN)/python -m pytest -n 0 --timeout 0 tests/integration/api/test_schema.py --fuzz-examples 200 --fuzz-seed $$(date +%s) $(ARGS)

.PHONY: test-fast
test-fast: $(STAMP) ## run the tests that need no services and take seconds
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not integration and not acceptance" $(ARGS)

.PHONY: test-long
test-long: $(STAMP) services ## run the tests that show at length what others show too; five minutes
	$(BIN)/python -m pytest -n $(WORKERS) -m long $(ARGS)

.PHONY: test-kernel
test-kernel: $(STAMP) ## run the engine's tests with builds of the kernel that check bounds, memory and undefined behaviour
	$(BIN)/python -m pytest -n $(WORKERS) --kernel checked tests/unit/engine $(ARGS)
	scripts/sanitized python -m pytest -n $(WORKERS) --kernel sanitized tests/unit/engine $(ARGS)
	$(BIN)/python -m pytest -n 0 -m sanitizers tests/integration/engine

.PHONY: test-deploy
test-deploy: $(STAMP) services ## run the container tests, in the Docker engine that answers or (as root) one of their own, and the topology of production; half an hour to an hour
	@scripts/containers
	$(BIN)/python -m pytest -n 0 -m deploy tests/acceptance $(ARGS)

.PHONY: image
image: ## build the image crochet-tasks:VERSION with docker, podman or nerdctl (make image ENGINE=podman), with its bill of materials in dist/
	@scripts/image $(ENGINE)

.PHONY: drill
drill: $(STAMP) services ## practise recovery: back up under load, destroy the database, restore, compare
	$(BIN)/python -m pytest -n 0 tests/acceptance/pipeline/test_recovery.py $(ARGS)

.PHONY: lint
lint: $(STAMP) ## check style, format, who imports whom, and that the lock file satisfies pyproject.toml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check_lock.py
	$(BIN)/lint-imports

.PHONY: audit
audit: $(STAMP) ## look for known vulnerabilities of what is pinned, for other licences than those agreed to, and for secrets in files
	PATH="$(BIN):$$PATH" $(BIN)/python scripts/audit.py $(ARGS)

.PHONY: format
format: $(STAMP) ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: types
types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

.PHONY: drift
drift: $(STAMP) ## check that the migrations create the schema that the code describes
	$(BIN)/python -m pytest tests/integration/db/test_migrations.py

.PHONY: bench
bench: $(STAMP) ## measure speed, memory and storage; writes benchmarks/results/
	$(BIN)/python -m benchmarks.closure $(ARGS)

.PHONY: bench-scale
bench-scale: $(STAMP) services ## measure a store of 100 million orthos, of Debian's bible-kjv-text (ARGS='--orthos 20000000' for fewer)
	$(BIN)/python -m benchmarks.scale $(ARGS)

.PHONY: bench-best
bench-best: $(STAMP) ## measure how long it takes to prove the best orthos (ARGS=--bible for the Bible, an hour)
	$(BIN)/python -m benchmarks.best $(ARGS)

.PHONY: bench-distributed
bench-distributed: $(STAMP) services ## measure the distributed run against the embedded one
	$(BIN)/python -m benchmarks.distributed $(ARGS)

.PHONY: bench-paths
bench-paths: $(STAMP) services ## measure and draw where the time goes from POST to closed
	$(BIN)/python -m benchmarks.paths $(ARGS)

.PHONY: bench-finding
bench-finding: $(STAMP) services ## measure the reads of the API over millions of orthos
	$(BIN)/python -m benchmarks.finding $(ARGS)

.PHONY: bench-api
bench-api: $(STAMP) services ## measure the API with 1, 10 and 50 clients (ARGS=--quick to try it)
	$(BIN)/python -m benchmarks.api $(ARGS)

.PHONY: bench-start
bench-start: $(STAMP) services ## measure the CPU time that each kind of process takes until it is ready
	$(BIN)/python -m benchmarks.start $(ARGS)

.PHONY: bench-page
bench-page: $(STAMP) services ## measure how long one waits for the page of a corpus of 10 million orthos (ARGS='--orthos 100000' to try it)
	$(BIN)/python -m benchmarks.page $(ARGS)

.PHONY: profile
profile: $(STAMP) ## where the time of a run goes, by stage and function: make profile ARGS='FILE...' (docs/testing.md)
	$(BIN)/python -m benchmarks.profile $(ARGS)

.PHONY: screenshots
screenshots: $(STAMP) services ## write pictures of the page to docs/images
	$(BIN)/python scripts/screenshots.py

.PHONY: dashboards
dashboards: $(STAMP) ## generate Grafana's dashboards from scripts/dashboards.py
	$(BIN)/python scripts/dashboards.py

.PHONY: reference
reference: $(STAMP) ## generate docs/settings.md and docs/cli.md from the code
	$(BIN)/python scripts/reference.py

.PHONY: bench-telemetry
bench-telemetry: $(STAMP) services ## measure what logs, traces, metrics and profiles cost (ARGS=--quick to try it)
	$(BIN)/python -m benchmarks.telemetry $(ARGS)

.PHONY: structure
structure: $(STAMP) ## count files, lines, floors and circles of imports (make structure ARGS=FOLDER for another checkout)
	$(BIN)/python scripts/structure.py $(ARGS)

LOCKED = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --fork-strategy fewest \
  --generate-hashes --no-config --no-emit-index-url --no-emit-find-links --annotation-style split --custom-compile-command 'make lock'

.PHONY: lock
lock: $(STAMP) ## renew requirements.lock, and its part that the image is made of (make lock ARGS=--upgrade for newer versions)
	$(LOCKED) --all-extras --output-file requirements.lock $(ARGS)
	$(LOCKED) --extra build --extra embedded --constraint requirements.lock --output-file requirements.image.lock

.PHONY: clean
clean: ## remove .venv, caches and build output; .state (your data) stays
	rm -rf .venv .venv.lock .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -path ./.state -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
