"""Import a module of the experiments, which are scripts that lie beside each other."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def experiment(folder: str, name: str) -> ModuleType:
    """Return a module of a folder of the experiments."""
    sys.path.insert(0, str(EXPERIMENTS / folder))
    try:
        return import_module(name)
    finally:
        sys.path.pop(0)
