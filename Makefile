# Targets explain themselves: `make help`.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
LOCK := requirements/airflow-3.3.txt
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A file stays in one process, because its tests share a platform.
PARALLEL := -n 2 --dist loadfile
# Where the demo runs: embedded, or system (real Kubernetes, SLURM and Apptainer; docs/real-stack.md).
BACKEND ?= embedded
# How long system-short may build Kubernetes before it is given up.
BUILD_MINUTES ?= 25
# Further words for release, such as RELEASE_WORDS=--no-demo.
RELEASE_WORDS ?=
# Further words for pytest, such as AGAIN=--last-failed.
AGAIN ?=

# What a site set for pip holds for uv, which reads variables of its own; both know HTTPS_PROXY and NO_PROXY.
export UV_SYSTEM_CERTS ?= true
ifneq ($(PIP_INDEX_URL),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifneq ($(PIP_EXTRA_INDEX_URL),)
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif
ifneq ($(PIP_FIND_LINKS),)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
# The index of a pip.conf, for recipes; empty where there is none, or where uv has one.
PIP_CONF_INDEX = $$([ -n "$${UV_DEFAULT_INDEX:-$${UV_INDEX_URL:-}}" ] || $(BIN)/python -m pip config get global.index-url 2>/dev/null || true)
UV = index="$(PIP_CONF_INDEX)"; env $${index:+UV_DEFAULT_INDEX="$$index"} $(BIN)/uv

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(STAMP) ## Create .venv from the lock file.

$(STAMP): $(LOCK) setup.cfg testbed/setup.cfg requirements/bootstrap.txt
	@echo "Setting up $(VENV) from $(LOCK)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "This Python cannot make virtual environments: install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/bootstrap.txt
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -r $(LOCK)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . -e testbed
	@touch $@

.PHONY: demo
demo: $(STAMP) ## Run the 3DGAN pipeline end to end on this machine and write demo-report/report.html.
	@exec $(BIN)/oscar-testbed demo --backend "$(BACKEND)"

.PHONY: up
up: $(STAMP) ## Leave the platform and Airflow running; prints the address and the login.
	@exec $(BIN)/oscar-testbed up --airflow --detach --directory .demo/up

.PHONY: down
down: ## Stop what `make up` started.
	@$(BIN)/oscar-testbed down --directory .demo/up

.PHONY: test
test: unit integration ## Run unit and integration tests; two processes each.

.PHONY: unit
unit: $(STAMP) ## Run the unit tests.
	@$(BIN)/python -m pytest tests/unit $(PARALLEL) $(AGAIN)

.PHONY: coverage
coverage: $(STAMP) ## Run unit tests and those of ingest/ with more examples of each property, and say which lines they run; it fails if core/ has less than 98 %.
	@$(BIN)/python -m pytest tests/unit tests/integration/ingest $(PARALLEL) --hypothesis-profile=thorough --cov --cov-report=term $(AGAIN)
	@$(BIN)/python -m coverage report --include='airflow_provider_oscar/core/*' --fail-under=98

.PHONY: integration
integration: $(STAMP) ## Run the integration tests against real servers and the embedded platform.
	@$(BIN)/python -m pytest tests/integration $(PARALLEL) --ignore=tests/integration/faults $(AGAIN)

.PHONY: postgresql
postgresql: $(STAMP) ## Run the tests of schedules and the hand-over with Airflow's metadata in a PostgreSQL, not in SQLite (minutes).
	@$(BIN)/python -m pytest tests/integration/ingest tests/integration/schedules tests/integration/watch/test_plain.py $(PARALLEL) --postgresql $(AGAIN)

.PHONY: faults
faults: $(STAMP) ## Kill, stop and corrupt what the watchers depend on, and count: 300 objects, none lost (minutes).
	@$(BIN)/python -m pytest tests/integration/faults

.PHONY: world
world: $(STAMP) ## Everything at once with faults at random, and count: none lost, doubled, forged or left (WORLD_SECONDS, WORLD_SEED).
	@$(BIN)/python -m pytest tests/world $(AGAIN)

# How long soak runs, and further words for it, such as SOAK_WORDS="--seed 7 --pace 5".
HOURS ?= 6
SOAK_WORDS ?=

.PHONY: soak
soak: $(STAMP) ## A steady stream for HOURS hours with restarts at random, also of real systems (BACKEND=system); the books of every ten minutes must balance.
	@$(BIN)/python -m tests.world.soak --backend "$(BACKEND)" --hours $(HOURS) $(SOAK_WORDS)

# A seed with incidents of every system; minutes on an idle machine.
WORLD_SHORT := WORLD_SEED=7 WORLD_SECONDS=90 WORLD_OBJECTS=12 WORLD_PATIENCE=600 WORLD_RECOVERY=300 WORLD_POSTGRESQL=1

.PHONY: world-short
world-short: $(STAMP) ## The world for a minute and a half, from one seed; names what the machine lacks and passes then.
	@$(WORLD_SHORT) $(BIN)/python -m pytest tests/world -rs $(AGAIN)

.PHONY: leaks
leaks: $(STAMP) ## A steady stream of objects and jobs; memory, descriptors and threads must stay flat (an hour; LEAKS_SECONDS).
	@$(BIN)/python -m tests.world.leaks

.PHONY: e2e
e2e: $(STAMP) ## Run the browser tests over the demo (needs chromium).
	@$(BIN)/python -m pytest tests/e2e

.PHONY: pictures
pictures: $(STAMP) ## Take the pictures of the forms and the page that `make docs` then shows (needs chromium).
	@$(BIN)/python -m pytest tests/e2e/test_ui.py tests/e2e/test_page.py -k "dialogs or fits_each_width"
	@$(BIN)/python -m tests.support.pictures

.PHONY: bench-detection
bench-detection: $(STAMP) ## Measure how new objects are found, against named peers, how the cost grows, and that of 5200 none is lost (an hour).
	@$(BIN)/python -m tests.bench.detection
	@$(BIN)/python -m tests.bench.growth --write
	@$(BIN)/python -m tests.bench.detection --no-loss

.PHONY: bench-inference
bench-inference: $(STAMP) ## Measure the 3DGAN inference against what a core can do, for each engine, and a process for each object against a worker.
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=docker/threedgan $(BIN)/python -m tests.bench.inference
	@PYTHONPATH=docker/threedgan $(BIN)/python -m tests.bench.persistent_worker

.PHONY: bench-hpc
bench-hpc: $(STAMP) ## Measure what waiting for jobs costs against the KubernetesPodOperator, batches against jobs, one object against Airflow alone, transfers (minutes).
	@$(BIN)/python -m tests.bench.hpc

.PHONY: quick-jobs
quick-jobs: $(STAMP) ## Run 200 jobs of one second through a whole Airflow and count lost tries (half an hour).
	@$(BIN)/python -m tests.integration.jobs.quick 200

.PHONY: oscar-faults
oscar-faults: $(STAMP) ## Run 200 OSCAR jobs without retries while OSCAR fails and the store restarts, and count (OSCAR_SUBMISSIONS, OSCAR_SEED; minutes).
	OSCAR_SUBMISSIONS=$${OSCAR_SUBMISSIONS:-200} $(BIN)/python -m pytest tests/integration/jobs/test_exactly_once.py -q -n 0 -s --timeout 3600

.PHONY: bench-oscar
bench-oscar: $(STAMP) ## Measure waiting for 1000 OSCAR jobs against one poll each, and submitting against oscar-python (`make clients`).
	@$(BIN)/python -m tests.bench.oscar

.PHONY: bench-placement
bench-placement: $(STAMP) ## Compare the placement policies with fixed choices and with an oracle, in simulated load.
	@$(BIN)/python -m tests.bench.placement --write docs/performance.md

.PHONY: placement-proof
placement-proof: $(STAMP) ## Let three DAGs place 201 objects on the embedded platform; export and score what they predicted (half an hour).
	@$(BIN)/python -m tests.integration.placement.proof --report build/placement

.PHONY: clients
clients: $(STAMP) ## Try the embedded OSCAR with oscar-python, OSCAR's own client (needs the package index).
	@test -x .venv-clients/bin/python || $(BIN)/python -m venv --without-pip .venv-clients
	@$(UV) pip install --quiet --python .venv-clients/bin/python -r requirements/oscar-python.txt
	@$(BIN)/python -m pytest tests/integration/testbed/test_oscar_python.py $(AGAIN)

.PHONY: fuzz
fuzz: $(STAMP) ## Fuzz every reader of what comes from outside, FUZZ_SECONDS (20) each, keeping new inputs in FUZZ_CORPUS (Linux on x86-64).
	@$(UV) pip install --quiet --python $(BIN)/python -r requirements/fuzz.txt
	@$(BIN)/python -m tests.fuzz

.PHONY: system-up
system-up: $(STAMP) ## Start real Kubernetes, SLURM and what else is there; prints what is real and what is embedded.
	@$(BIN)/python -m oscar_testbed.real up

.PHONY: system-down
system-down: $(STAMP) ## Stop what `make system-up` started, also after a crash.
	@$(BIN)/python -m oscar_testbed.real down

.PHONY: system
system: $(STAMP) ## Start the real stack, run the system tests on it, stop it.
	@$(BIN)/python -m oscar_testbed.real run $(AGAIN)

.PHONY: system-short
system-short: $(STAMP) ## The demo's scenario alone on the real stack; names what the machine lacks and passes then.
	@$(BIN)/python -m oscar_testbed.real run --short --build-minutes $(BUILD_MINUTES) $(AGAIN)

.PHONY: itwinai
itwinai: $(STAMP) ## Run real itwinai's 3DGAN pipeline through both operators (downloads 6.3 GB: itwinai 0.4.2 with PyTorch).
	@echo "Downloads once: itwinai 0.4.2 with PyTorch 2.6 and CUDA from the package index (6.3 GB installed, below the cache directory)," >&2
	@echo "and the code of its use case 3dgan from GitHub, unless ITWINAI_USE_CASE names a directory that has it." >&2
	@ITWINAI=1 $(BIN)/python -m pytest tests/system/test_itwinai.py -q -n 0

.PHONY: lint
lint: $(STAMP) ## Run ruff, mypy, import-linter and vulture.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.unreachable

.PHONY: format
format: $(STAMP) ## Let ruff format and fix what it can.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# All extras but testbed, which is this repository's other distribution.
LOCKED_EXTRAS := --extra threedgan --extra dev
# UPGRADE=--upgrade takes the newest versions; without it only what setup.cfg asks for changes.
UPGRADE ?=

.PHONY: lock
lock: $(STAMP) ## Resolve the lock file again from setup.cfg (UPGRADE=--upgrade for newer versions).
	@$(UV) pip compile setup.cfg testbed/setup.cfg $(LOCKED_EXTRAS) --python-version 3.11 --universal --quiet $(UPGRADE) -o $(LOCK)

.PHONY: docs
docs: $(STAMP) ## Build the documentation into build/site; a warning or a dead link is an error.
	@$(UV) pip install --quiet --python $(BIN)/python -r requirements/docs.txt
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

.PHONY: release
release: ## Build and check the distributions, also the demo from wheels alone: PROJECT_URL=https://host/owner/name.
	@test -n "$(PROJECT_URL)" || { echo "Say where it is published: make release PROJECT_URL=https://host/owner/name" >&2; exit 2; }
	@test -x .venv-release/bin/python || $(PYTHON) -m venv .venv-release
	@.venv-release/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/release.txt
	@.venv-release/bin/python .ci/release.py --project-url "$(PROJECT_URL)" --docs-url "$(DOCS_URL)" $(RELEASE_WORDS)

.PHONY: clean
clean: ## Remove the virtual environment and everything generated.
	@rm -rf $(VENV) .venv-bench .venv-clients .venv-release .demo .fuzz demo-report soak-report build dist *.egg-info testbed/build testbed/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
