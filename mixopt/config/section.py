"""Shared base of the file's sections, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
