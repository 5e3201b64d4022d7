"""Where tests find the project, its scripts, those that they start, and data that may be there."""

import sys
from importlib import import_module
from pathlib import Path

SUPPORT = Path(__file__).parent
PROJECT = SUPPORT.parents[1]
DATA = PROJECT.parent / "shared" / "data"  # not part of the project; tests of it skip without
EXPERIMENTS = PROJECT / "experiments"


def experiment(folder, name):
    sys.path.insert(0, str(EXPERIMENTS / folder))
    try:
        return import_module(name)
    finally:
        sys.path.pop(0)
