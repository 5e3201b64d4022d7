"""The answer of `mixopt check` as lines, and as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixopt.config import experiment_urls
from mixopt.pipeline.pre_check import PreCheck
from mixopt.reporting import table_text
from mixopt.system import bytes_text, cache_folder, duration, share_text, short_count, wrapped

_LABEL = 14  # columns of the labels
_SHOWN = 4  # domains that the short form names


def check_json(found: PreCheck, peak_tflops: float, utilisation: float) -> dict[str, Any]:
    """Return the answer as plain values; ranges are least and most."""
    costs, sizes = found.costs, found.sizes
    return {
        "problems": [str(problem) for problem in found.problems],
        "warnings": found.warnings,
        "sizes": {"basis": sizes.basis, "tokens": sizes.inventory, "prepared": sizes.sample},
        "natural": None if found.natural is None else dict(found.natural),
        "training": [part.to_json() for part in costs.parts],
        "tokens": list(costs.tokens),
        "scoring": None if found.scoring is None else found.scoring.to_json(),
        "parameters": costs.parameters,
        "flops": None if costs.flops is None else list(costs.flops),
        "tokens_per_second": costs.tokens_per_second,
        "workers": costs.workers,
        "devices": found.devices,
        "seconds": None if costs.seconds is None else list(costs.seconds),
        "gpu_hours": _listed(costs.gpu_hours(peak_tflops, utilisation)),
        "written_bytes": costs.written,
    }


def check_lines(found: PreCheck, out: Path, peak_tflops: float, utilisation: float) -> list[str]:
    """Return the answer for a terminal."""
    costs = found.costs
    lines = [*_domain_lines(found), ""]
    for part in costs.parts:
        count = _range(part.least, part.most, str)
        lines.append(
            _labelled(part.name, f"{count} trials, {short_count(part.tokens)} tokens each")
        )
    total = f"{_range(*costs.tokens, short_count)} tokens{_operations(found)}"
    lines.append(_labelled("total", total))
    if found.scoring is not None:
        lines.append(_labelled("scores", found.scoring.describe()))
    lines.append(_labelled("trains on", _where(found)))
    if costs.seconds is not None:
        speed = f"{short_count(costs.tokens_per_second or 0)} tokens/s per worker"
        time = _range(*costs.seconds, duration)
        lines.append(_labelled("time here", f"about {time} (estimate, at {speed})"))
    hours = costs.gpu_hours(peak_tflops, utilisation)
    if hours is not None:
        peak = f"{peak_tflops:g} TFLOP/s at {100 * utilisation:g}% utilisation"
        lines.append(_labelled("GPU hours", f"{_range(*hours, lambda h: f'{h:.2g}')} of {peak}"))
    written = ", ".join(f"{name} {bytes_text(size)}" for name, size in costs.written.items())
    lines.append(_labelled("writes", f"{out}: about {written}"))
    if any(True for _ in experiment_urls(found.config)):
        lines.append(_labelled("downloads", f"objects from stores, to {cache_folder()}"))
    return lines + [f"warning: {warning}" for warning in found.warnings]


def _labelled(label: str, text: str) -> str:
    """Return a line whose further lines are below its text."""
    return wrapped(f"{label + ':':{_LABEL}} {text}", hanging=" " * (_LABEL + 1))


def short_lines(found: PreCheck, out: Path) -> list[str]:
    """Return the answer in at most five lines, for the beginning of a run."""
    costs = found.costs
    trials = ", ".join(
        f"{_range(part.least, part.most, str)} trials of {short_count(part.tokens)} tokens"
        f" ({part.name})"
        for part in costs.parts
    )
    lines = [
        _short_domains(found),
        f"{trials}: {_range(*costs.tokens, short_count)} tokens{_operations(found)}",
        f"trains on {_where(found)}; writes {out}, about {bytes_text(sum(costs.written.values()))}",
    ]
    return lines + [f"warning: {warning}" for warning in found.warnings]


def _domain_lines(found: PreCheck) -> list[str]:
    inventory, natural = found.sizes.inventory, found.natural
    names = list(found.config.corpus.domains)
    if inventory is None or natural is None:
        return [f"domains: {', '.join(names)}; sizes not given"]
    target = found.config.propose.target_tokens
    columns = ("domain", "tokens", "natural", *(() if target is None else ("epochs",)))
    rows = [
        (
            name,
            short_count(inventory[name]),
            share_text(natural[name]),
            *(() if target is None else (f"{natural[name] * target / inventory[name]:.2g}",)),
        )
        for name in names
    ]
    of_run = "" if target is None else f", epochs of {short_count(target)} tokens at natural shares"
    title = f"Domains, sizes {found.sizes.basis}{of_run}"
    return table_text(title, columns, rows).rstrip("\n").split("\n")


def _short_domains(found: PreCheck) -> str:
    natural, names = found.natural, list(found.config.corpus.domains)
    count = f"{len(names)} domains" if len(names) > 1 else "1 domain"
    if natural is None:
        return f"{count}, sizes not given"
    most = sorted(natural.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {share_text(share)}" for name, share in most[:_SHOWN])
    more = ", ..." if len(names) > _SHOWN else ""
    total = short_count(sum((found.sizes.inventory or {}).values()))
    return f"{count} of {total} tokens ({found.sizes.basis}): {shown}{more}"


def _operations(found: PreCheck) -> str:
    flops, parameters = found.costs.flops, found.costs.parameters
    if flops is None or parameters is None:
        return ""
    shown = _range(*flops, lambda value: f"{value:.1e}")
    return f", {shown} FLOPs at {short_count(parameters)} parameters"


def _where(found: PreCheck) -> str:
    kinds = dict.fromkeys(found.devices)
    shown = ", ".join(f"{found.devices.count(kind)} x {kind}" for kind in kinds)
    return f"{shown} (proxy {found.config.proxy.name})"


def _range(least: Any, most: Any, shown: Any) -> str:
    first, last = shown(least), shown(most)
    return first if first == last else f"{first} to {last}"


def _listed(values: tuple[float, float] | None) -> list[float] | None:
    return None if values is None else list(values)
