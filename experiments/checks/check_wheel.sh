#!/bin/sh
# Build the wheel and import it where only numpy and a YAML reader are installed.
# Usage: sh experiments/checks/check_wheel.sh path/to/uv
set -eu
uv=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$uv" build --quiet --wheel --out-dir "$folder" .
"$uv" venv --quiet "$folder/bare"
"$uv" pip install --quiet --python "$folder/bare" "$folder"/*.whl
cat > "$folder/bare_import.py" <<'PYTHON'
"""What a bare install must do."""
import sys
import time

import numpy as np

start = time.perf_counter()
import mixopt

seconds = time.perf_counter() - start
heavy = {"torch", "polars", "sklearn", "lightgbm", "mlflow", "pydantic", "typer", "scipy"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
mixture = mixopt.Mixture({"web": 0.75, "code": 0.25})
mixture.to_file("mixture.yaml")
assert mixopt.Mixture.from_file("mixture.yaml") == mixture
assert np.isclose(mixture.array.sum(), 1)
print(f"bare wheel: import mixopt in {1000 * seconds:.0f} ms after numpy")
PYTHON
cd "$folder"
bare/bin/python bare_import.py
set +e
message=$(bare/bin/mixopt --help 2>&1)
code=$?
set -e
test "$code" = 2
echo "bare wheel: $message"
bare/bin/python - <<'PYTHON'
import importlib.metadata as m

tops = {f.parts[0] for f in m.files("mixopt") if not f.parts[0].endswith(".dist-info") and f.parts[0] != ".."}
assert tops == {"mixopt", "mixopt_proxies", "mixopt_regressors"}, tops
PYTHON
