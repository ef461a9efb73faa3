# Everything a fresh machine needs is python3, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
READY := $(VENV)/.ready
OUT ?= demo
LGG ?= work/lgg
WHEELHOUSE ?= dist/wheelhouse
EXTRAS ?= encrypt,dicom
FUZZ ?= work/fuzz
FUZZ_SECONDS ?= 600
PAPER ?= work/paper-lgg
PEERS ?= work/peers

.PHONY: demo test test-slow wheelhouse sbom fuzz fuzz-parsers lgg lgg-folds paper-lgg study-losses study-gap bench bench-preprocess bench-evaluate bench-train bench-aggregate attack-rules study-registration overfit-3d own-trainer docs docs-site review-pack clean

demo: $(READY)
	$(BIN)/brainfed demo --out $(OUT)

test: $(READY)
	$(BIN)/ruff format --check src tests docs install
	$(BIN)/ruff check src tests docs install
	$(BIN)/mypy
	$(BIN)/lint-imports
	# A thread for each of the two processes: more would wait for each other.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

test-slow: $(READY)
	$(BIN)/pytest -m slow

# All that a machine without a network needs, 350 MB; see docs/how-to/install-offline.md. CUDA=cu128 takes
# that build of torch in place of the one for the CPU, KEY=FILE signs the digests with an SSH key.
wheelhouse: $(READY)
	$(BIN)/python install/wheelhouse.py gather $(WHEELHOUSE) --extras $(EXTRAS) \
	  --torch $(or $(CUDA),cpu) $(if $(KEY),--key $(KEY))

# The SBOM of what brainfed needs, with all extras, as it is installed here.
sbom: OUT = dist/sbom.cdx.json
sbom: $(READY)
	$(BIN)/python install/wheelhouse.py sbom $(OUT)

# A million wrong files through the checks of import, ten thousand through import itself.
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz.fuzz_core --cases 1000000 --imports 10000

# Each parser of what comes from outside, ten minutes; atheris is no part of the set-up.
fuzz-parsers: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	rm -rf $(FUZZ) && $(BIN)/python -m tests.fuzz.parsers corpus $(FUZZ)
	for target in header manifest signature roster; do \
	  mkdir -p $(FUZZ)/found-$$target && $(BIN)/python -m tests.fuzz.parsers $$target \
	    $(FUZZ)/found-$$target $(FUZZ)/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
	    -artifact_prefix=$(FUZZ)/crash-$$target- || exit 1; \
	done

# The real scans of ../shared/data/lgg-sites, pooled and as a federation; then five-fold
# cross-validation, and the losses beside each other. All can be stopped and go on. PRECISION=bf16
# where the processor has the units for it takes half the time.
lgg: $(READY)
	$(BIN)/python tests/lgg.py $(LGG)

lgg-folds: $(READY)
	$(BIN)/python tests/lgg_folds.py $(LGG)

# The paper's comparison on the real sites, then on eight random ones; see docs/results/paper-lgg.md for
# the time. Can be stopped and goes on.
paper-lgg: $(READY)
	$(BIN)/python tests/lgg_paper.py $(PAPER)

study-losses: $(READY)
	$(BIN)/python tests/benchmarks/study_losses.py $(LGG)

# What brings federated training nearer to pooled, on the sites that `make lgg` prepared: half an hour
# of one core at a small scale, then two hours at the plan's; can be stopped and goes on.
study-gap: $(READY)
	$(BIN)/python tests/benchmarks/study_gap.py $(LGG)

bench: $(READY)
	$(BIN)/python tests/benchmarks/bench_help.py
	$(BIN)/python tests/benchmarks/bench_reading.py
	$(BIN)/python tests/benchmarks/bench_import.py
	$(BIN)/python tests/benchmarks/bench_audit.py

# A raw case from native to case, and registration beside its peers, which get environments of
# their own (about 1 GB).
bench-preprocess: $(READY)
	$(BIN)/python tests/benchmarks/bench_case.py
	$(BIN)/python tests/benchmarks/bench_brainmask.py
	$(BIN)/python tests/benchmarks/bench_preprocess.py --work $(PEERS)

# Measures beside surface-distance, MONAI and a plain restatement; about 15 minutes.
bench-evaluate: $(READY)
	$(BIN)/python tests/benchmarks/bench_evaluate.py
	$(BIN)/python tests/benchmarks/bench_evaluate_many.py

# A training step beside nnU-Net's, which gets an environment of its own, and MONAI's; on a GPU
# where there is one. About 8 minutes.
bench-train: $(READY)
	$(BIN)/python tests/benchmarks/bench_train.py --work $(PEERS)

# Aggregation beside NVIDIA FLARE and Flower, which get environments of their own, and how far a mean
# is from the correctly rounded one; 11 GB of disk, about 20 minutes.
bench-aggregate: $(READY)
	$(BIN)/python tests/benchmarks/bench_aggregate.py --work $(PEERS)
	$(BIN)/python tests/benchmarks/study_exactness.py

# Attacks on the federation of `make lgg`, and what rules and screening do about them; 15 minutes.
attack-rules: $(READY)
	$(BIN)/python tests/benchmarks/attack_rules.py $(LGG)

# A hundred simulated pairs in the normal and a hundred in the hard range; an hour on one core.
study-registration: $(READY)
	$(BIN)/python tests/benchmarks/study_registration.py

# The 3-D network learns two real cases by heart, and predicts four; half an hour on one core.
overfit-3d: $(READY)
	$(BIN)/python -m tests.benchmarks.overfit_3d

# The recipes of docs/how-to/own-trainer.md, nnU-Net in an environment of its own; about 5 minutes.
own-trainer: $(READY)
	$(BIN)/python -m venv $(PEERS)/nnunet
	$(PEERS)/nnunet/bin/python -m pip install --quiet torch==2.13.0 nnunetv2==2.8.1
	PEERS=$(abspath $(PEERS)) $(BIN)/pytest -m slow tests/docs/test_own_trainer.py

docs: $(READY)
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/review/leaves.py

# The documentation as pages that open from a stick: build/site/index.html.
docs-site: $(READY)
	rm -rf build/site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --conf-dir docs --doctree-dir build/.doctrees . build/site

# The same for an InfoSec or data-protection review, each page marked, with SBOM and licences; and a zip.
review-pack: $(READY)
	$(BIN)/python docs/review/pack.py build/review-pack

# torch first: its pinned version is the CPU build where an index offers one. Of nilearn and deepbet
# brainfed reads one file each, so they come without what they would bring along.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) hatchling editables ruff mypy import-linter pytest pytest-xdist hypothesis monai surface-distance cyclonedx-bom jsonschema sphinx myst-parser furo
	$(PIP) --no-build-isolation -e '.[encrypt,dicom,cluster]'
	$(PIP) --no-deps nilearn deepbet
	touch $(READY)

clean:
	rm -rf $(VENV) build dist demo
