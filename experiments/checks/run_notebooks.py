"""Execute every notebook in a folder that is thrown away, and fail on the first error.

    python experiments/checks/run_notebooks.py [notebook ...]

The YAML files beside a notebook are copied to that folder. Prints the seconds that each took.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CELL_SECONDS = 900


def main() -> int:
    """Run the notebooks that are named, or all; return 1 at the first that fails."""
    paths = [Path(name) for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb"))
    if not paths:
        sys.stderr.write(f"no notebooks in {NOTEBOOKS}\n")
        return 1
    return 0 if all(run(path) for path in paths) else 1


def run(path: Path) -> bool:
    """Execute one notebook; print how long it took, or the error."""
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for file in path.resolve().parent.glob("*.yaml"):
            shutil.copy(file, folder)
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, timeout=CELL_SECONDS, kernel_name="python3", resources=resources
        )
        try:
            client.execute()
        except CellExecutionError as error:
            sys.stderr.write(f"{path.name}: failed\n{error}\n")
            return False
    print(f"{path.name}: {time.monotonic() - start:.1f} s")
    return True


if __name__ == "__main__":
    raise SystemExit(main())
