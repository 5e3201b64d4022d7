"""A trainer's result file, and the losses in it, by evaluation domain and in both units.

A JSON, JSONL or CSV file. A nested mapping is flattened: `{"eval": {"web": 3.1}}` has the name
`eval.web`. A list of mappings is the rows of a log, such as the `log_history` of a Hugging Face
Trainer: each name in them is a series, with the row's step and tokens if it states them. NaN and
infinity are accepted, since a diverged trainer writes them. Metrics of the experiment's tasks have
the names of their columns, `task/<name>/<metric>`, and are optional.
"""

import csv
import difflib
import glob
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from mixopt.corpus import Corpus, bits_per_nat, in_bits_per_byte
from mixopt.errors import RunError
from mixopt.system import chosen, read_text
from mixopt.trials import MAX_LOSS, Losses

STEPS = ("step", "_step", "steps", "global_step", "iteration", "iter", "trainer/global_step")
TOKENS = ("tokens", "tokens_seen", "consumed_tokens", "num_tokens", "total_tokens")
# Facts about the run that a result may state beside losses.
RUN_FACTS = ("trial", "seed", "tokens", "parameters")
DOMAIN = "{domain}"
_NEAREST = 3  # names suggested in an error
_NO_NUMBERS = frozenset({"nan", "inf", "-inf", "infinity", "-infinity"})


class Point(NamedTuple):
    """One value, with the step and tokens at which it was logged, if stated."""

    value: float
    step: float | None = None
    tokens: float | None = None


@dataclass
class TrainerLog:
    """A trainer's log: points by name, in order, and the facts about the run."""

    series: dict[str, list[Point]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Add one row of a log, or a whole mapping; later facts about the run replace earlier."""
        self.about |= {name: row[name] for name in RUN_FACTS if row.get(name) is not None}
        self._add(row, "", _position_of(row))

    def _add(self, value: Any, name: str, position: Point) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                inner_name = f"{name}.{key}" if name else str(key)
                self._add(inner, inner_name, position)
        elif isinstance(value, list):
            for item in value:
                self._add(item, name, _position_of(item))
        else:
            number = number_of(value)
            if number is not None:
                self.series.setdefault(name, []).append(position._replace(value=number))


def read_log(path: Path) -> TrainerLog:
    """Read a trainer's file."""
    kind = path.suffix.lower()
    if kind not in (".json", ".jsonl", ".csv") or not path.is_file():
        raise RunError(f"{path}: is not a JSON, JSONL or CSV file; the command must write one")
    text = read_text(path, error=RunError)
    if kind == ".csv":
        rows = list(_table_rows(path, text))
    elif kind == ".json":
        content = _parsed(text, str(path))
        rows = content if isinstance(content, list) else [content]
    else:
        rows = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                rows.append(_parsed(line, f"{path}:{number}"))
    log = TrainerLog()
    for row in rows:
        if not isinstance(row, dict):
            raise RunError(f"{path}: expected names with values, got {str(row)[:60]!r}")
        log.add_row(row)
    return log


def number_of(value: Any) -> float | None:
    """Return a value as a number, including NaN and infinities; None: not a number."""
    if isinstance(value, str):
        return float(value) if value.strip().lower() in _NO_NUMBERS else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None


def _position_of(row: Any) -> Point:
    """Return step and tokens of a row of a log, as a point without a value."""
    if not isinstance(row, Mapping):
        return Point(math.nan)
    return Point(math.nan, step=_finite_field(row, STEPS), tokens=_finite_field(row, TOKENS))


def _finite_field(row: Mapping[str, Any], names: Iterable[str]) -> float | None:
    """Return the first finite number among these fields of a row; None: there is none."""
    for name in names:
        number = number_of(row.get(name))
        if number is not None and math.isfinite(number):
            return number
    return None


def _table_rows(path: Path, text: str) -> Iterable[dict[str, Any]]:
    """Yield rows of a table with a header; skip empty cells."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    for row in reader:
        if None in row:
            raise RunError(f"{path}:{reader.line_num}: has more cells than the header")
        yield {name.strip(): _cell(cell) for name, cell in row.items() if cell}


def _cell(text: str) -> str | float:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _parsed(text: str, where: str) -> Any:
    """Parse JSON, including NaN and infinity."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise RunError(f"{where}: cannot be read: {error}") from error


def losses_of(
    log: TrainerLog,
    losses: str | Mapping[str, str] | None,
    corpus: Corpus,
    *,
    tokens: int,
    unit: str,
    result: str,
) -> tuple[Losses, tuple[Losses, ...]]:
    """Return the last losses, and the learning curve.

    A glob that matches several names gives their mean: several tasks may measure one domain.
    """
    lines: dict[str, list[list[Point]]] = {}  # of each domain
    last = {}
    for domain in corpus.evaluation_names:
        names = _names(losses, domain, list(log.series), result)
        lines[domain] = [log.series[name] for name in names]
        last[domain] = _mean([line[-1].value for line in lines[domain]])
    tasks = {}
    for column in corpus.task_columns:
        if column in log.series:
            tasks[column] = log.series[column][-1].value
    final = replace(_in_both_units(last, corpus, tokens, unit), tasks=tasks)
    curve = []
    for position, values in _earlier(lines, tokens):
        if all(abs(value) <= MAX_LOSS for value in values.values()):
            curve.append(_in_both_units(values, corpus, position, unit))
    return final, (*curve, final)


def divergence(losses: Losses, result: str) -> str | None:
    """Return an error for a loss that is NaN or too large to be squared; None: no such loss."""
    by_domain = losses.nats_per_token or losses.bits_per_byte
    for name, value in (by_domain | losses.tasks).items():
        if not abs(value) <= MAX_LOSS:
            return f"{result}: the loss of {name!r} is {value:g}"
    return None


def _names(
    losses: str | Mapping[str, str] | None, domain: str, names: Sequence[str], result: str
) -> tuple[str, ...]:
    """Return the names of a domain's losses."""
    template = DOMAIN
    if isinstance(losses, str):
        template = losses
    elif losses is not None:
        template = losses.get(domain, DOMAIN)
    plain = template.replace(DOMAIN, domain)
    pattern = template.replace(DOMAIN, glob.escape(domain))
    if plain in names:
        return (plain,)
    matched = chosen(pattern, names)
    if not matched:
        hint = _nearest_names(plain, domain, names)
        raise RunError(
            f"{result}: has no loss of {domain!r}: no {plain!r}; {hint}; see proxy.losses"
        )
    return matched


def _nearest_names(plain: str, domain: str, names: Sequence[str]) -> str:
    """Return a hint with the names nearest to a missing one."""
    if not names:
        return "it has no numbers"
    candidates = [name for name in names if domain in name] or names
    nearest = difflib.get_close_matches(plain, candidates, n=_NEAREST, cutoff=0.0)
    return f"the nearest are {', '.join(map(repr, nearest))}"


def _mean(values: Sequence[float]) -> float:
    try:
        return math.fsum(values) / len(values)
    except (OverflowError, ValueError):  # infinities of both signs, or beyond the largest number
        return math.nan


def _earlier(
    lines: Mapping[str, Sequence[Sequence[Point]]], tokens: int
) -> Iterable[tuple[int, dict[str, float]]]:
    """Yield tokens and losses at each earlier point at which all domains have a loss."""
    last_step = 0.0
    for line in chain.from_iterable(lines.values()):
        for point in line:
            last_step = max(last_step, point.step or 0.0)
    tokens_per_step = tokens / last_step if last_step > 0 else 0.0
    curves: dict[str, list[dict[int, float]]] = {}
    for domain, lines_of_domain in lines.items():
        curves[domain] = [_by_tokens(line, tokens_per_step) for line in lines_of_domain]
    common = set.intersection(*map(set, chain.from_iterable(curves.values())))
    for count in sorted(common):
        if 0 < count < tokens:
            means = {}
            for domain, curves_of_domain in curves.items():
                means[domain] = _mean([curve[count] for curve in curves_of_domain])
            yield count, means


def _by_tokens(line: Sequence[Point], tokens_per_step: float) -> dict[int, float]:
    """Return the values of a line by tokens, from its steps where it states no tokens."""
    values = {}
    for point in line:
        count = point.tokens
        if count is None:
            count = (point.step or 0) * tokens_per_step
        values[round(count)] = point.value
    return values


def _in_both_units(values: Mapping[str, float], corpus: Corpus, tokens: int, unit: str) -> Losses:
    """Return losses in nats per token and in bits per byte, from one of the two units."""
    if unit == "nats_per_token":
        return Losses(tokens, dict(values), in_bits_per_byte(values, corpus.evaluation))
    rates = bits_per_nat(corpus.evaluation)
    nats = {}
    if rates:
        nats = {name: value / rates[name] for name, value in values.items()}
    return Losses(tokens, nats, dict(values))
