"""Fingerprints of steps, and the differences between two configurations.

A step's fingerprint is a hash of the sections of the configuration that it depends on and of the
step before it, so that a change of the objective does not invalidate the trials. The sizes that
`corpus` states of whole domains are a section of their own: the design depends on them, and what is
prepared does not. So are the families of tasks, on which the fit depends. How long a trial's
command may take and how often it is run again makes no result another one, so that these two may
change. Rounds after microanneals come with a decision to combine them, and change no anneal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mixopt.run_directory.step import STEPS, Step, steps_before

FORMAT = "mixopt/1"
SIZES, TASKS, FAMILIES, THRESHOLDS = "sizes", "tasks", "families", "experts.thresholds"
PATIENCE = ("timeout", "retries")  # of a command that trains the trials
CURVE = "eval_every"
START, START_HASH = "from", "from_hash"  # what trials begin with
LATER = ("trials", "rounds", "acquisition", "acquisition_regressor", "stop_gain")  # of a design
READING = ("result", "losses", "unit")  # how its results are read


def step_fingerprints(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the fingerprint of each step, by name, of a configuration as plain values."""
    found: dict[str, str] = {}
    before, parted = FORMAT, _parted(content)
    for step in STEPS:
        values = {section: _section(parted, section.split(".")) for section in step.sections}
        if SIZES in values and not any((values[SIZES] or {}).values()):  # none are stated
            del values[SIZES]
        for absent in (TASKS, FAMILIES, THRESHOLDS):
            if not values.get(absent, absent):  # there are none
                del values[absent]
        text = before + json.dumps(values, sort_keys=True)
        before = found[step.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def step_differences(
    step: Step, before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields, with both values, that give a step another fingerprint."""
    sections = tuple(name for one in (*steps_before(step), step) for name in one.sections)
    found = differences(_parted(before), _parted(now))
    return (
        (_as_written(name), there, here) for name, there, here in found if name.startswith(sections)
    )


def _as_written(name: str) -> str:
    """Return the field of the YAML that is meant by one of the parted sections."""
    section, _, rest = name.partition(".")
    if section == FAMILIES:
        return f"{TASKS}.sets.{rest}.family"
    return f"corpus.domains.{rest}" if section == SIZES else name


def differences(before: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Return the fields in which two configurations differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        found: list[tuple[str, Any, Any]] = []
        for key in [*now, *(key for key in before if key not in now)]:
            inner = f"{name}.{key}" if name else str(key)
            found += differences(before.get(key), now.get(key), inner)
        return found
    return [] if before == now else [(name, _short(before), _short(now))]


def _parted(content: Mapping[str, Any]) -> dict[str, Any]:
    """Move stated sizes and families of tasks to sections of their own; leave patience out."""
    return _with_families_apart(_with_sizes_apart(_without_later_rounds(content)))


def _without_later_rounds(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out what follows microanneals; of any other design all of it counts."""
    design = content.get("design")
    if not isinstance(design, dict) or "anneals" not in design:
        return content
    return {**content, "design": {k: v for k, v in design.items() if k not in LATER}}


def _with_families_apart(content: dict[str, Any]) -> dict[str, Any]:
    tasks = content.get(TASKS)
    sets = tasks.get("sets") if isinstance(tasks, dict) else None
    if not isinstance(tasks, dict) or not isinstance(sets, dict):
        return content
    named = {name: one for name, one in sets.items() if isinstance(one, dict)}
    families = {name: one["family"] for name, one in named.items() if one.get("family")}
    rest = {name: {k: v for k, v in one.items() if k != "family"} for name, one in named.items()}
    return {**content, TASKS: {**tasks, "sets": {**sets, **rest}}, FAMILIES: families}


def _with_sizes_apart(content: Mapping[str, Any]) -> dict[str, Any]:
    """Move the sizes that are stated of domains out of `corpus`; leave patience out."""
    proxy = content.get("proxy")
    if isinstance(proxy, dict):
        kept = {name: value for name, value in proxy.items() if name not in PATIENCE}
        if kept.get(CURVE) is None:
            kept[CURVE] = 0  # results of trials are those of evaluating at the end alone
        if kept.get(START_HASH) is not None:
            kept.pop(START, None)  # a checkpoint that was moved is the same one
        content = {**content, "proxy": kept}
    corpus = content.get("corpus")
    domains = corpus.get("domains") if isinstance(corpus, dict) else None
    if not isinstance(corpus, dict) or not isinstance(domains, dict):
        return dict(content)
    if not all(isinstance(source, dict) for source in domains.values()):
        return dict(content)
    sizes = {name: _picked(source, stated=True) for name, source in domains.items()}
    # Of a domain without text the size is all that is prepared.
    rest = {
        name: _picked(source, stated=False) if _has_text(source) else source
        for name, source in domains.items()
    }
    return {**content, "corpus": {**corpus, "domains": rest}, SIZES: sizes}


def _picked(source: dict[str, Any], *, stated: bool) -> dict[str, Any]:
    return {k: value for k, value in source.items() if (k in ("tokens", "bytes")) == stated}


def _has_text(source: dict[str, Any]) -> bool:
    return any(
        source.get(name) is not None for name in ("environment", "path", "data_files", "mixed")
    )


def _section(content: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _short(value: Any) -> Any:
    return "absent" if value is None else value
