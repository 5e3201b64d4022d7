"""Execute every notebook in a folder that is thrown away, and fail on the first error.

    python experiments/checks/run_notebooks.py [--write] [notebook ...]

The YAML files beside a notebook are copied to that folder. Prints the seconds that each took. With
`--write` a notebook is replaced by the executed one, for readers who execute nothing: what is
printed on stderr (progress) is left out, and a widget is kept as its table. It is refused where its
outputs name a folder of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CELL_SECONDS = 900
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main() -> int:
    """Run the notebooks that are named, or all; return 1 at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    parser.add_argument("notebook", nargs="*", type=Path)
    options = parser.parse_args()
    paths = options.notebook or sorted(NOTEBOOKS.glob("*.ipynb"))
    if not paths:
        sys.stderr.write(f"no notebooks in {NOTEBOOKS}\n")
        return 1
    return 0 if all(run(path, write=options.write) for path in paths) else 1


def run(path: Path, *, write: bool = False) -> bool:
    """Execute one notebook; print how long it took, or the error."""
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for file in path.resolve().parent.glob("*.yaml"):
            shutil.copy(file, folder)
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            store_widget_state=False,
        )
        try:
            client.execute(env={**os.environ, "COLUMNS": "100"})
        except CellExecutionError as error:
            sys.stderr.write(f"{path.name}: failed\n{error}\n")
            return False
        named = [place for place in (folder, str(NOTEBOOKS.parent)) if place in outputs(notebook)]
    print(f"{path.name}: {time.monotonic() - start:.1f} s", flush=True)
    if named:
        sys.stderr.write(f"{path.name}: its outputs name {', '.join(named)}\n")
        return False
    if write:
        keep(notebook, path)
    return True


def outputs(notebook: Any) -> str:
    """Return all outputs of a notebook as text."""
    return json.dumps([cell.get("outputs", []) for cell in notebook.cells])


def keep(notebook: Any, path: Path) -> None:
    """Write an executed notebook without what differs from run to run."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [tidied(one) for one in cell.outputs if one.get("name") != "stderr"]
    nbformat.write(notebook, path)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} KB", flush=True)


def tidied(output: Any) -> Any:
    """Return an output without the reference to a widget that no kernel has any more."""
    if "data" in output:
        output.data.pop(WIDGET, None)
    return output


if __name__ == "__main__":
    raise SystemExit(main())
