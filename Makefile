# Everything a developer or a newcomer runs. `make` alone explains itself.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help bootstrap venv check format test test-system test-openvswitch test-cloudimage fuzz demo lab bench soak packages wheel clean

BIN := .venv/bin
PACKAGES := lochness lochness_node lochness_controller lochness_lab
ARGS ?=
# Most of a test's time is waiting for real parts: two processes keep two cores busy, more make limits tight.
WORKERS ?= 2

help: ## this text
	@awk 'BEGIN {FS = ":.*## "} /^[a-z%-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS='...' is handed on to pytest (make test), the demo (make demo) and the laboratory (make lab)."

bootstrap:
	@packaging/bootstrap.sh all

venv: ## .venv, the development environment, and what building it needs
	@packaging/bootstrap.sh venv

check: venv ## ruff, mypy --strict, the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: bootstrap ## install what is missing and run every test, the real parts included
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

test-system: ## tests on whole hosts that boot, installed from the packages: some minutes, needs root
	@packaging/bootstrap.sh lab
	$(BIN)/python -m pytest -m hosts tests/system/hosts $(ARGS)

test-openvswitch: ## VLANs of real guests on an Open vSwitch of the test's own: half a minute, needs root
	@packaging/bootstrap.sh switch
	$(BIN)/python -m pytest -m openvswitch tests/contract/agent/test_agent_openvswitch.py $(ARGS)

test-cloudimage: ## a Debian with cloud-init as a guest, seen from inside: 10 to 40 minutes without KVM, needs root
	@packaging/bootstrap.sh cloudimage
	$(BIN)/python -m pytest -m cloudimage tests/contract/agent/test_agent_cloudimage.py $(ARGS)

fuzz: bootstrap ## requests made up from the OpenAPI documents of controller and agent, many more than make test tries
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-300} $(BIN)/python -m pytest -q --timeout 0 tests/contract/api/test_any_request.py tests/contract/agent/test_agent_document.py $(ARGS)

demo: bootstrap ## install what is missing and show a guest running, on an etcd and a libvirtd of its own
	@$(BIN)/python -m lochness_lab.demo $(ARGS)

lab: ## three hypervisors and a management host that boot, and a first guest; ARGS='-n 5', see lochness-lab
	@packaging/bootstrap.sh lab
	@$(BIN)/lochness-lab prepare
	@$(BIN)/lochness-lab up $(ARGS)

bench-%: ## one goal: make bench-R1; QUICK=1 for a small run; ends with one line for machines
	@$(BIN)/python -m "$$(ls bench/$$(tr A-Z a-z <<<'$*')_*.py | sed 's|/|.|; s|\.py$$||')"

soak: bootstrap ## R7: two hours of guests that come and go, with a picture of memory and files; R7_MINUTES=10
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/python -m pip install -qq 'matplotlib>=3.8'
	@$(BIN)/python -m bench.r7_soak

bench: bootstrap ## every goal that can be measured, its last line into bench/results.md
	@$(BIN)/python -m bench.all

packages: venv ## Debian packages for hypervisors, controllers and clients, in dist/
	@packaging/packages.sh

wheel: venv ## the wheel, in dist/: pip install 'dist/lochness-....whl[node]'
	@$(BIN)/python -m pip wheel -qq --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean: ## remove what make made in the checkout
	rm -rf .venv .venv.lock dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
