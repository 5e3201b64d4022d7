"""Lengths of time as people write them: seconds, or `90s`, `10m`, `1h30m`, `2d`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

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
