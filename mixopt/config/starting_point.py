"""What `proxy.from` names, and what cannot be right of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.system import is_url

if TYPE_CHECKING:
    pass

START = "start"  # the option of proxies that begin with a checkpoint
_YAML = (".yaml", ".yml")


def located(start: str) -> str:
    """Return a path that is the same wherever a worker runs; the name of a hub stays."""
    path = Path(start).expanduser()
    return start if is_url(start) or not path.exists() else str(path.absolute())


def is_recipe(start: str) -> bool:
    """Tell whether what is named is the YAML file of a pretraining, to be trained first."""
    return start.endswith(_YAML)
