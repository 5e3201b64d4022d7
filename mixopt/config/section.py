"""Shared base of the file's sections, and the types of their fields."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mixopt.system import is_url, name_fault, shown_name

FILES = "files"  # of a validation's context: whether files that a section names are read


def _scientific(value: Any) -> Any:
    """Read `25e9`, which YAML takes for a string, as the number that it is."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else number


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0), BeforeValidator(_scientific)]
Count = Annotated[int, Field(ge=0), BeforeValidator(_scientific)]


class Section(BaseModel):
    """A section of the file: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"


def _in_seconds(value: Any) -> Any:
    if not isinstance(value, (str, bool)):
        return value
    text = str(value).strip()
    if not re.fullmatch(f"(?:{_NUMBER}[smhd])+|{_NUMBER}", text, re.ASCII):
        raise ValueError("should be seconds, or a duration such as 90s, 10m or 1h30m")
    parts = re.findall(f"({_NUMBER})([smhd]?)", text, re.ASCII)
    return sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts)


# Seconds, more than none and at most a month.
Duration = Annotated[float, Field(gt=0, le=31 * 86_400), BeforeValidator(_in_seconds)]


RESERVED = ("index.json", "tokenizer.json", "spools", "tasks")  # the corpus's own


def folder_fault(name: str) -> str | None:
    """Return what is wrong with a name of a domain, as that of a folder of a corpus."""
    fault = "the corpus uses a file of this name" if name in RESERVED else name_fault(name)
    if fault is None:
        return None
    return f"{shown_name(name)} cannot be the name of a folder: {fault}; rename it"


_YAML = (".yaml", ".yml")


def located(start: str) -> str:
    """Return a path that is the same wherever a worker runs; a name on the hub stays."""
    path = Path(start).expanduser()
    return start if is_url(start) or not path.exists() else str(path.absolute())


def is_recipe(start: str) -> bool:
    """Tell whether what is named is the YAML file of a pretraining, which is trained first."""
    return start.endswith(_YAML)
