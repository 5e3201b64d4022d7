"""The answer of `mixopt check` as lines, and as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixopt.pipeline.pre_check import PreCheck
from mixopt.system import bytes_text, duration, share_text, short_count

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
    """Return the answer for a terminal.

    Args:
        found: The answer.
        out: The run directory.
        peak_tflops: Of the GPU whose hours are estimated.
        utilisation: Share of the peak that training reaches.
    """
    costs = found.costs
    lines = [*_domain_lines(found), ""]
    for part in costs.parts:
        count = _range(part.least, part.most, str)
        lines.append(f"{part.name + ':':14} {count} trials of {short_count(part.tokens)} tokens")
    lines.append(f"{'in all:':14} {_range(*costs.tokens, short_count)} tokens{_operations(found)}")
    if found.scoring is not None:
        lines.append(f"{'scores:':14} {found.scoring.describe()}")
    lines.append(f"{'trains on:':14} {_where(found)}")
    if costs.seconds is not None:
        speed = f"{short_count(costs.tokens_per_second or 0)} tokens/s a worker"
        lines.append(
            f"{'time here:':14} about {_range(*costs.seconds, duration)}, an estimate from {speed}"
        )
    hours = costs.gpu_hours(peak_tflops, utilisation)
    if hours is not None:
        peak = f"{peak_tflops:g} TFLOP/s at {100 * utilisation:g}%"
        lines.append(f"{'GPU hours:':14} {_range(*hours, lambda h: f'{h:.2g}')} of {peak}")
    written = ", ".join(f"{name} {bytes_text(size)}" for name, size in costs.written.items())
    lines.append(f"{'writes:':14} {out}: about {written}")
    return lines + [f"warning: {warning}" for warning in found.warnings]


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
    width = max(map(len, names))
    if inventory is None or natural is None:
        return [f"domains: {', '.join(names)}; their sizes are not stated"]
    target = found.config.propose.target_tokens
    lines = [f"{'domain':{width}}  {'tokens':>8}  natural  epochs at natural ({found.sizes.basis})"]
    for name in names:
        epochs = "" if target is None else f"{natural[name] * target / inventory[name]:.2g}"
        size, share = short_count(inventory[name]), share_text(natural[name])
        lines.append(f"{name:{width}}  {size:>8}  {share:>7}  {epochs}".rstrip())
    return lines


def _short_domains(found: PreCheck) -> str:
    natural, names = found.natural, list(found.config.corpus.domains)
    count = f"{len(names)} domains" if len(names) > 1 else "1 domain"
    if natural is None:
        return f"{count}, whose sizes are not stated"
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
