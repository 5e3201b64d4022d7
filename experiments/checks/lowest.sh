#!/bin/sh
# Install the lowest version of every requirement that pyproject.toml allows, and run the fast tests.
# Usage: sh experiments/checks/lowest.sh path/to/uv [test ...]
# The environment is .lowest; it is kept, so that a second run installs nothing.
set -eu
cd "$(dirname "$0")/../.."
uv=$1
shift
"$uv" pip compile --quiet --resolution lowest-direct --python-version 3.11 --extra all \
    pyproject.toml --output-file .lowest.txt --no-header --no-annotate
test -x .lowest/bin/python || "$uv" venv --quiet --python 3.11 .lowest
"$uv" pip install --quiet --python .lowest --only-binary :all: --no-deps -r .lowest.txt
# The tests' own tools are the newest that fit beside them.
"$uv" pip install --quiet --python .lowest --constraint .lowest.txt --group test-tools
"$uv" pip install --quiet --python .lowest --no-deps --editable .
[ $# -gt 0 ] || set -- tests/config tests/constraints tests/corpus tests/fitting tests/loading \
    tests/test_objective.py tests/proposals tests/regressors tests/reporting tests/run_directory \
    tests/sampling tests/tracking tests/trials tests/test_start_up.py tests/test_end_to_end.py
# What old versions deprecate among each other is not ours to change.
OMP_NUM_THREADS=1 .lowest/bin/python -m pytest -q -n 2 --dist loadfile \
    -W default::DeprecationWarning "$@"
