# make demo: sets up and runs the main job on the embedded images.   make test: sets up and passes the tests.
# Everything is relative, so that a path with spaces in it does no harm.
PYTHON ?= python3
WORKDIR ?= runs/demo
JOBS ?= 2# test files at a time
READY := .venv/.ready
RUN := .venv/bin/python

.PHONY: setup demo test test-slurm lint format types lock bench tpu-compiler clean

setup: $(READY)

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { echo "error: no venv module (on Debian: apt-get install python3-venv)" >&2; exit 2; }
	@echo "setting up .venv (about 1 GB, once) ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(READY)

demo: $(READY)
	@$(RUN) -m launch.sweep --config configs/sweeps/quickstart_alpha.py --workdir "$(WORKDIR)" --backend local --max-parallel 2

test: $(READY)
	@$(RUN) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slurm: $(READY)  # on a real Slurm, which the tests start and stop (Debian: slurm-wlm munge; as root)
	@VIT_ATTN_TEST_SLURM=1 $(RUN) -m pytest tests/launch/test_launch_slurm.py $(ARGS)

lint: $(READY)
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

types: $(READY)
	@$(RUN) -m mypy

format: $(READY)
	@$(RUN) -m ruff format . && $(RUN) -m ruff check --fix .

# The same versions for every kind of machine: the extras are resolved under the plain lock's constraints.
UV := $(RUN) -m uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --no-annotate pyproject.toml
lock: $(READY)
	@$(UV) --extra dev -o requirements.txt $(ARGS)
	@$(UV) --extra dev --extra tpu -c requirements.txt -o requirements-tpu.txt
	@$(UV) --extra dev --extra gpu -c requirements.txt -o requirements-gpu.txt

# The TPU compiler, which needs no TPU: for benchmarks/{tpu_attention,tpu_step,scale,seq_parallel,augment}.py and some tests.
# In a folder of its own, for jax would look for a TPU if it were installed. The version that RESULTS.md was made with.
LIBTPU := libtpu==0.0.52
tpu-compiler: .tpu/$(LIBTPU)
.tpu/$(LIBTPU): | $(READY)
	@rm -rf .tpu
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --target .tpu $(LIBTPU)
	@touch "$@"

bench: $(READY)
	@for program in step pack startup attention; do $(RUN) -m benchmarks.$$program || exit 1; done

clean:
	@rm -rf .venv .tpu .mypy_cache .pytest_cache .ruff_cache
