"""Names that a package hands on, each loaded when it is first used.

A package's `__init__` lists its public names twice, once for type checkers and once for this:

    if TYPE_CHECKING:
        from mixopt.trials.table import Trials as Trials
    else:
        __getattr__, __dir__ = lazy_names(__name__, {"table": ["Trials"]})

so that importing the package loads none of its modules (PEP 562), and a name that is not listed is
an error for both.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]], packages: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package.

    Args:
        package: Its `__name__`.
        modules: The public names that each of its modules defines, by the module's name in it.
        packages: Packages in it that are public themselves.
    """
    home = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name in packages:
            return importlib.import_module(f"{package}.{name}")
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home, *packages})

    return load, names
