# Needs Linux, Python 3.11 or newer, make and git. `make help` lists what there is.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo demo-s3 test test-slow soak fuzz cards bench bench-peers pictures check lock clean

PYTHON ?= python3
UV_VERSION := 0.13.9
WORKERS ?= 2
BIN := .venv/bin

# One place for the wheels of all checkouts; where the cache lies on another disk, uv copies by itself.
export UV_LINK_MODE ?= hardlink
# The largest wheel has a gigabyte.
export UV_HTTP_TIMEOUT ?= 300
# uv would otherwise install into whatever environment the shell has active.
export VIRTUAL_ENV := $(CURDIR)/.venv

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-11s %s\n", $$1, $$2 }'

setup: .venv/.installed  ## make .venv and install the locked packages (TORCH=cpu: PyTorch without CUDA)

.venv/bin/uv:
	@test "$$(uname -s)" = Linux || { echo "deepfake-scan runs on Linux only." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "deepfake-scan needs Python 3.11 or newer; name one: make setup PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# Byte code is compiled here, once, because the first import of torch takes 8 s without it.
INSTALL := $(BIN)/uv pip install --no-deps --compile-bytecode

.venv/.locked: requirements-dev.lock | .venv/bin/uv
ifeq ($(TORCH),cpu)
	# Not run by us: no machine of ours reaches that index. Its wheels have hashes that the lock does not know.
	awk '/^[a-z]/ { skip = /^(torch|torchvision|triton|nvidia-|cuda-)/ } !skip' requirements-dev.lock > .venv/cpu.lock
	$(INSTALL) --require-hashes -r .venv/cpu.lock
	$(INSTALL) --index-url https://download.pytorch.org/whl/cpu \
		$$(sed -nE 's/^((torch|torchvision)==[^ ]+).*/\1/p' requirements-dev.lock)
else
	$(INSTALL) --require-hashes -r requirements-dev.lock
endif
	@touch $@

# Built with the locked setuptools: build isolation would fetch another one, without hashes.
.venv/.installed: pyproject.toml .venv/.locked
	$(BIN)/uv pip install --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## make 16 short videos, scan them, show the table
	@rm -rf .demo && mkdir .demo
	$(BIN)/python -m tests.media .demo/videos
	@# 3 = finished, some videos failed: some of them are made to.
	$(BIN)/deepfake-scan scan .demo/videos --output .demo/out --include '*' || test $$? -eq 3
	@$(BIN)/deepfake-scan query summary .demo/out
	@$(BIN)/deepfake-scan query sql .demo/out "$$DEMO_TABLE"
	@printf '%s\n' '' 'Try next:' \
		'  $(BIN)/deepfake-scan explain .demo/videos/two-faces.mp4 --crops .demo/crops' \
		'  $(BIN)/deepfake-scan query failed .demo/out' \
		'  $(BIN)/deepfake-scan scan YOUR-FOLDER --output YOUR-RESULTS'

demo-s3: setup  ## the same scan, from a bucket into a bucket of a local S3 server
	@rm -rf .demo-s3 && mkdir .demo-s3
	$(BIN)/python -m tests.demo_s3 .demo-s3

define DEMO_TABLE
SELECT regexp_extract(uri, '[^/]*$$') AS video, status, verdict, round(p_fake, 3) AS p_fake,
       len(persons) AS persons, coalesce(reason, array_to_string(warnings, ', ')) AS remark
FROM latest ORDER BY status = 'failed', video
endef
export DEMO_TABLE

test: setup  ## what every change must pass: at most 15 minutes on 2 cores
	$(BIN)/pytest -m "not slow" -n $(WORKERS) --dist loadgroup $(ARGS)

test-slow: setup  ## kills, races, larger samples: at most an hour
	$(BIN)/pytest -m slow $(ARGS)

soak: setup  ## the full counts of one bar: make soak BAR=name
	@$(call run_bar,soak)

fuzz: setup  ## damaged files through the decoding child: COUNT=n (1000) of SEED=n (a fresh one, printed)
	@$(BIN)/python -m tests.soak.fuzz --fresh $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT))

cards: setup  ## measure the shipped weights again, and write model cards and the README's claim
	@$(BIN)/python -m tests.bench.cards $(ARGS)

bench: BAR ?= cost
bench: setup  ## measure what a video costs; another thing: make bench BAR=name
	@$(call run_bar,bench)

bench-peers: setup  ## the shipped weights beside the mean of their frames and beside MesoNet
	@$(BIN)/python -m tests.bench.peers

pictures: setup  ## take docs/pictures again, with Chromium: every kind of page at three widths
	$(BIN)/python -m tests.pictures

# A bar is a program tests/<kind>/<name>.py; beside them lie modules that cannot be run.
define run_bar
if [ -f "tests/$(1)/$(BAR).py" ]; then exec $(BIN)/python -m "tests.$(1).$(BAR)" $(ARGS); fi; \
echo "make $(1) BAR=name, where name is one of: $$(grep -l __main__ tests/$(1)/*.py | xargs -n1 basename -s .py | xargs)" >&2; \
exit 2
endef

check: setup  ## format, lint, types, import layers, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

lock: .venv/bin/uv  ## write both locks again from pyproject.toml and requirements*.in (UPGRADE=1: newest releases)
	$(COMPILE) requirements-dev.in $(if $(UPGRADE),--upgrade )--output-file requirements-dev.lock
	$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock

COMPILE = $(BIN)/uv pip compile --quiet --no-header --generate-hashes --python-version 3.11 \
	--override requirements-overrides.txt pyproject.toml --extra identities requirements.in

clean:  ## remove everything that make made, the environment included
	rm -rf .venv .demo .demo-s3 .bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find detector jobs tests weights -name __pycache__ -prune -exec rm -rf {} +
