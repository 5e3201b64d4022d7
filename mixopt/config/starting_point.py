"""What `proxy.from` names: a checkpoint, or a recipe for one."""

from __future__ import annotations

from pathlib import Path

from mixopt.system import is_url

_YAML = (".yaml", ".yml")


def located(start: str) -> str:
    """Return a path that is the same wherever a worker runs; a name on the hub stays."""
    path = Path(start).expanduser()
    return start if is_url(start) or not path.exists() else str(path.absolute())


def is_recipe(start: str) -> bool:
    """Tell whether what is named is the YAML file of a pretraining, which is trained first."""
    return start.endswith(_YAML)
