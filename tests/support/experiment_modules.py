"""Import a module of the experiments, which are scripts that lie beside each other."""

import sys
from importlib import import_module

from places import PROJECT

EXPERIMENTS = PROJECT / "experiments"


def experiment(folder, name):
    sys.path.insert(0, str(EXPERIMENTS / folder))
    try:
        return import_module(name)
    finally:
        sys.path.pop(0)
