# On a bare machine (Python 3.11, git, make): `make demo` or `make test` first creates .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
CORES ?= all
STUDY ?= demo
BIN := .venv/bin
READY := .venv/ready
LOCKED := sha256sum env/requirements.in  # of what the lock was made; it stands in its header
PYTHON_FILES := src tests benchmarks docs env studies  # not what a user puts beside them

.PHONY: demo paper plan verify test test-emulated test-slurm docs lint audit hooks lock clean

# A study with everything that it needs: results/<study>/paper.pdf. `paper`, the front report, takes
# hours. Any other study, by either engine:
#   .venv/bin/snakemake --cores 2 STUDY
#   .venv/bin/dvc repro studies/STUDY/dvc.yaml     (what Snakemake has made is up to date for DVC too)
demo paper: $(READY)
	$(BIN)/snakemake --cores $(CORES) $@

# After a change of config/ or of a study.yaml: what both engines read.
plan: $(READY)
	$(BIN)/crystalmesh plan

# Make a study again in a clean folder and compare every output with its ledger.
# OPTIONS: --from-checkpoints (train nothing), --from-predictions (only tables, figures and PDF),
# --quick (make nothing), --only GLOB; STUDY= stands for all published studies
verify: $(READY)
	$(BIN)/crystalmesh verify $(STUDY) $(OPTIONS)

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# On emulated CPUs of Intel and AMD; needs qemu-x86_64 (Debian: qemu-user), takes ten minutes.
test-emulated: $(READY)
	$(BIN)/python -m pytest -m emulated tests/workflow/test_portability.py

# Through Slurm, of which a node is started for it; needs root and slurmctld, slurmd and munged
# (Debian: slurm-wlm), takes four minutes.
test-slurm: $(READY)
	$(BIN)/python -m pytest -m slurm tests/workflow/test_slurm.py

# The documentation, build/docs/index.html; tests/test_docs.py checks it.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: $(READY)
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy
	@grep -qF "$$($(LOCKED))" env/requirements.lock || { echo "env/requirements.in was changed: make lock"; exit 1; }
	$(BIN)/uv pip check --quiet --python .venv
	$(BIN)/python env/lengths.py
	$(BIN)/crystalmesh plan --check
	$(BIN)/crystalmesh verify --quick

# Known vulnerabilities of the locked packages; names those of which the index says nothing.
audit: $(READY)
	$(BIN)/pip-audit --requirement env/requirements.lock --disable-pip --progress-spinner off
	$(BIN)/pip-audit --requirement env/torch.txt --no-deps --disable-pip --progress-spinner off

# Let Git refuse a commit with an old plan, or a published result that is not its ledger's.
hooks: $(READY)
	git config core.hooksPath .githooks

# Pin what env/requirements.in needs. Versions that the lock has stay as they are where they can:
# OPTIONS: --upgrade, --upgrade-package NAME
lock: $(READY)
	$(BIN)/uv pip compile env/requirements.in --output-file env/requirements.lock --excludes env/torch.txt \
		--generate-hashes --python-version 3.11.7 --python-platform linux --quiet $(OPTIONS) \
		--custom-compile-command "make lock  # $$($(LOCKED))" >/dev/null

# The environment and what tools leave behind; data, results and DVC's cache stay.
clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): env/requirements.lock env/torch.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement env/requirements.lock
	$(BIN)/python -m pip install --quiet --requirement env/torch.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
