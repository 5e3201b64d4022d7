"""What a step is called by, and in what two configurations differ.

A step's fingerprint is a hash of the sections of the configuration that it depends on and of the
step before it, so that a change of the objective does not invalidate the trials.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mixopt.run_directory.step import STEPS, Step, steps_before

FORMAT = "mixopt/1"


def step_fingerprints(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the fingerprint of each step, by name, of a configuration as plain values."""
    found: dict[str, str] = {}
    before = FORMAT
    for step in STEPS:
        values = {section: _section(content, section.split(".")) for section in step.sections}
        text = before + json.dumps(values, sort_keys=True)
        before = found[step.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def step_differences(
    step: Step, before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields, with both values, that give a step another fingerprint."""
    sections = tuple(name for one in (*steps_before(step), step) for name in one.sections)
    return (found for found in differences(before, now) if found[0].startswith(sections))


def differences(before: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Return the fields in which two configurations differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        found: list[tuple[str, Any, Any]] = []
        for key in [*now, *(key for key in before if key not in now)]:
            inner = f"{name}.{key}" if name else str(key)
            found += differences(before.get(key), now.get(key), inner)
        return found
    return [] if before == now else [(name, _short(before), _short(now))]


def _section(content: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _short(value: Any) -> Any:
    return "absent" if value is None else value
