# uv is taken from PATH, or brought into .tools by pip.
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
RUN := $(UV) run --frozen
USER_RUN := $(RUN) --no-dev --extra all

.PHONY: quickstart test nightly check bench gpu fuzz notebooks wheel parsers trainers test-trainers release lowest docs
quickstart: $(UV)
	$(USER_RUN) mixopt run experiments/quickstart.yaml --out runs/quickstart

test: $(UV)
	OMP_NUM_THREADS=1 $(RUN) pytest -q -n 2 --dist loadfile

# What is slow and real: servers, Slurm, Ray, browsers, whole runs, killed processes. FAULTS is how often each
# step is disturbed in each of four ways; 0 is a quick part.
FAULTS := 1
nightly: $(UV)
	OMP_NUM_THREADS=1 MIXOPT_FAULTS=$(FAULTS) $(RUN) pytest -q -n 2 --dist loadfile -m nightly

check: $(UV)
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) lint-imports

bench: $(UV)
	OMP_NUM_THREADS=1 $(RUN) python experiments/benchmarks/bench_proxies.py

# The quickstart, stacked proxies, the sampler under a Llama of 1B weights and experts, on this machine's GPU.
gpu: $(UV)
	$(RUN) python experiments/benchmarks/gpu.py

SECONDS := 900
fuzz: $(UV)
	OMP_NUM_THREADS=1 $(RUN) python experiments/checks/fuzz.py --seconds $(SECONDS)

notebooks: $(UV)
	$(RUN) python experiments/checks/run_notebooks.py

# Fails on a broken link or anchor, and on a block of code that does not work; the pages are in dist/site.
docs: $(UV)
	NO_MKDOCS_2_WARNING=1 $(RUN) --group docs mkdocs build --strict
	OMP_NUM_THREADS=1 $(RUN) pytest -q -m nightly tests/test_docs_blocks.py tests/test_code_of_pages.py -k "docs_blocks or tutorial"

wheel: $(UV)
	sh experiments/checks/check_wheel.sh $(UV)

# Both packages as their users get them; every extra alone in a fresh environment. EXTRAS=cli,ray are fewer.
release: $(UV)
	$(RUN) python experiments/checks/release.py $(UV) $(if $(EXTRAS),--extras $(EXTRAS))

# The lowest versions that pyproject.toml allows, and the fast tests.
lowest: $(UV)
	sh experiments/checks/lowest.sh $(UV) $(TESTS)

# With them, tests read exported mixtures by the trainers' own parsers, and token files of their own
# writers; PARSERS=levanter is 1.5 GB.
parsers: $(UV)
	sh experiments/checks/parsers.sh $(UV) $(PARSERS)

# Trainers that do not fit the lock; TORCHTITAN is a checkout of its main branch, if there is one.
trainers: $(UV)
	sh experiments/checks/trainers.sh $(UV) $(TORCHTITAN)

test-trainers: trainers
	OMP_NUM_THREADS=1 .trainers/bin/python -m pytest -q -m "nightly or not nightly" \
		tests/integrations/test_torchtitan.py tests/integrations/test_megatron.py \
		tests/test_code_of_pages.py

.tools/bin/uv:
	python3 -m pip install --quiet --target .tools uv
