"""Extract a trial's losses by evaluation domain from a trainer's log, in both units.

Each domain has a name in the result: its own, what a pattern such as `eval/{domain}/loss` gives,
or what a mapping says. A glob that matches several names is their mean, since one domain may be
measured by several tasks. What the tasks of the experiment measure is called as its column is,
`task/<name>/<metric>`, and is taken where it is there.
"""

from __future__ import annotations

import difflib
import glob
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mixopt.corpus import Corpus
from mixopt.errors import ConfigError, RunError, did_you_mean
from mixopt.system import chosen
from mixopt.trials import MAX_LOSS, Losses, bits_per_nat, in_bits_per_byte
from mixopt_proxies.command.result_files import LoggedPoint, LoggedValues

UNITS = ("nats_per_token", "bits_per_byte")
_NEAREST = 3  # names that an error suggests
_DOMAIN = "{domain}"


class LossNames:
    """Which names of a result are the losses of which domain."""

    def __init__(self, losses: str | Mapping[str, str] | None) -> None:
        """Take `proxy.losses`."""
        self._all = losses if isinstance(losses, str) else _DOMAIN
        self._of = {} if losses is None or isinstance(losses, str) else dict(losses)
        if _DOMAIN not in self._all:
            raise ConfigError(
                f"proxy.losses: {losses!r} gives every domain the same loss; write {_DOMAIN} where"
                " its name is"
            )

    def check(self, domains: Sequence[str]) -> None:
        """Check that no other domain than those of the corpus is named."""
        for name in self._of:
            if name not in domains:
                near = did_you_mean(name, domains)
                raise ConfigError(f"proxy.losses: unknown evaluation domain {name!r}{near}")

    def found(self, domain: str, names: Sequence[str], result: str) -> tuple[str, ...]:
        """Return the names that are a domain's losses."""
        template = self._of.get(domain, self._all)
        plain = template.replace(_DOMAIN, domain)
        if plain in names:
            return (plain,)
        matched = chosen(template.replace(_DOMAIN, glob.escape(domain)), names)
        if matched:
            return matched
        near = ", ".join(repr(name) for name in _nearest(plain, domain, names))
        hint = f"the nearest are {near}" if near else "it has no numbers at all"
        raise RunError(
            f"{result}: has no loss of {domain!r}: no {plain!r}; {hint}; see proxy.losses"
        )


def losses_of(
    values: LoggedValues, names: LossNames, corpus: Corpus, *, tokens: int, unit: str, result: str
) -> tuple[Losses, tuple[Losses, ...]]:
    """Return the last losses, and the curve that leads to them."""
    known = list(values.series)
    series = {
        domain: [values.series[name] for name in names.found(domain, known, result)]
        for domain in corpus.evaluation_names
    }
    last = {domain: _mean(line[-1].value for line in lines) for domain, lines in series.items()}
    scored = {name: values.series[name][-1].value for name in corpus.task_columns if name in known}
    final = replace(_in_both_units(last, corpus, tokens, unit), tasks=scored)
    earlier = tuple(
        _in_both_units(at, corpus, place, unit)
        for place, at in _earlier(series, tokens).items()
        if all(abs(value) <= MAX_LOSS for value in at.values())
    )
    return final, (*earlier, final)


def divergence(losses: Losses, result: str) -> str | None:
    """Say which loss is not a number, or too large to be squared; None where none is."""
    for name, value in ((losses.nats_per_token or losses.bits_per_byte) | losses.tasks).items():
        if not abs(value) <= MAX_LOSS:
            return f"{result}: the loss of {name!r} is {value:g}"
    return None


def _nearest(wanted: str, domain: str, names: Sequence[str]) -> list[str]:
    holding = [name for name in names if domain in name]
    close = difflib.get_close_matches(wanted, names, n=_NEAREST, cutoff=0.3)
    return list(dict.fromkeys([*holding[:_NEAREST], *close, *names[:_NEAREST]]))[:_NEAREST]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    try:
        return math.fsum(found) / len(found)
    except (OverflowError, ValueError):  # infinities of both signs, or beyond the largest number
        return math.nan


def _earlier(
    series: Mapping[str, Sequence[Sequence[LoggedPoint]]], tokens: int
) -> dict[int, dict[str, float]]:
    """Return the losses at each earlier place at which all domains have one, by tokens."""
    lines = [line for lines in series.values() for line in lines]
    steps = [point.step for line in lines for point in line if point.step is not None]
    scale = tokens / max(steps) if steps and max(steps) > 0 else 0.0
    placed = {
        domain: [_by_tokens(line, scale) for line in lines] for domain, lines in series.items()
    }
    every = [set(by_tokens) for lines in placed.values() for by_tokens in lines]
    shared = sorted(set.intersection(*every)) if every else []
    return {
        place: {d: _mean(line[place] for line in lines) for d, lines in placed.items()}
        for place in shared
        if 0 < place < tokens
    }


def _by_tokens(line: Sequence[LoggedPoint], scale: float) -> dict[int, float]:
    """Return a series by tokens: as it says, or by its steps."""
    found = {}
    for point in line:
        place = point.tokens if point.tokens is not None else (point.step or 0) * scale
        found[round(place)] = point.value
    return found


def _in_both_units(values: Mapping[str, float], corpus: Corpus, tokens: int, unit: str) -> Losses:
    """Return losses in nats per token and in bits per byte, given one of the two."""
    rates = bits_per_nat(corpus.evaluation)
    if unit == "bits_per_byte":
        nats = {name: value / rates[name] for name, value in values.items()} if rates else {}
        return Losses(tokens, nats, dict(values))
    return Losses(tokens, dict(values), in_bits_per_byte(values, corpus.evaluation))
