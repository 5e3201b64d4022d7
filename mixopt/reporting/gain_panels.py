"""The panels of what the answer gives and what it costs: numbers, intervals, small charts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from mixopt.objective import UNITS
from mixopt.proposals import Interval, named
from mixopt.reporting.answer import AnswerGain, PageAnswer
from mixopt.reporting.page import cell
from mixopt.run_directory import Run
from mixopt.system import difference_text, interval_text

GAINS, COSTS = 4, 5  # rows of the first screen


def gain_panel(run: Run, found: PageAnswer) -> str:
    """Return the panel of the gains: the first one large, the others in a table with charts."""
    unit = UNITS[run.objective.value_unit]
    if not found.gains:
        return ""
    first = found.gains[0]
    title = f"<h2>Gain over {escape(named(first.over))}, {escape(unit)}, above 0 is better</h2>"
    return f'<div class="panel gains">{title}{_lead(first)}{_table(found.gains[1:GAINS])}</div>\n'


def cost_panel(run: Run, found: PageAnswer) -> str:
    """Return the panel of the losses that the objective does not measure, the worst first."""
    title = "<h2>Losses outside the objective, against natural</h2>"
    if not found.costs:
        return f'<div class="panel pays">{title}<p class="soft">{_no_costs(run, found)}</p></div>\n'
    shown = list(found.costs.items())[:COSTS]
    rows = "".join(_cost_row(name, cost) for name, cost in shown)
    head = cell("th", "loss", scope="col") + cell("th", "change", scope="col")
    head += cell("th", f"{found.level}% interval", scope="col") + cell("th", "", "text held")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    note = f'<p class="soft">{escape(_counts(found.costs.values()))}</p>'
    return f'<div class="panel pays">{title}{table}{note}</div>\n'


def change_word(cost: Interval) -> str:
    """Say what the interval of a change allows to say."""
    if cost.low > 0:
        return "worse"
    return "better" if cost.high < 0 else "not significant"


def _lead(gain: AnswerGain) -> str:
    """Return the gain over the first mixture in large figures, validated before predicted."""
    boxes = ""
    if gain.validated is not None:
        about = f"95% {_ends(gain.validated)}, {gain.seeds} seeds"
        boxes += _box("validated", gain.validated, about, gain.verdict)
    if gain.predicted is not None:
        boxes += _box("predicted", gain.predicted, f"90% {_ends(gain.predicted)}")
    return f'<dl class="lead">{boxes}</dl>'


def _box(name: str, gain: Interval, about: str, verdict: str = "") -> str:
    value = difference_text(gain.value)
    said = f': <span class="{_tone(verdict)}">{escape(verdict)}</span>' if verdict else ""
    return f"<div><dt>{name}{said}</dt><dd><b>{value}</b><small>{escape(about)}</small></dd></div>"


def _table(gains: Sequence[AnswerGain]) -> str:
    if not gains:
        return ""
    known = [one for gain in gains for one in (gain.validated, gain.predicted) if one is not None]
    low = min(0.0, *(one.low for one in known))
    high = max(0.0, *(one.high for one in known))
    rows = "".join(_row(gain, low, high) for gain in gains)
    is_validated = any(gain.validated is not None for gain in gains)
    head = cell("th", "over", scope="col") + '<td class="chart"></td>'
    head += cell("th", "validated", scope="col") if is_validated else ""
    head += cell("th", "predicted", scope="col")
    head += cell("th", "", "text") if is_validated else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(gain: AnswerGain, low: float, high: float) -> str:
    def place(value: float) -> str:
        return f"{100 * (value - low) / ((high - low) or 1.0):.4g}%"

    marks = f'<span class="ends" style="--zero:{place(0.0)}"><u></u>'
    if gain.validated is not None:
        marks += _mark(gain.validated, "i", "b", place)
    if gain.predicted is not None:
        marks += _mark(gain.predicted, "s", "q", place)
    cells = cell("th", named(gain.over), scope="row") + f'<td class="chart">{marks}</span></td>'
    if gain.validated is not None:
        cells += cell("td", difference_text(gain.validated.value))
    cells += cell("td", difference_text(gain.predicted.value) if gain.predicted else "")
    if gain.validated is not None:
        cells += cell("td", gain.verdict, f"text {_tone(gain.verdict)}".strip())
    return f"<tr>{cells}</tr>"


def _mark(one: Interval, line: str, point: str, place: Callable[[float], str]) -> str:
    ends = f"--low:{place(one.low)};--high:{place(one.high)};--mid:{place(one.value)}"
    return f'<span style="{ends}"><{line}></{line}><{point}></{point}></span>'


def _tone(verdict: str) -> str:
    return {"better": "good", "worse": "bad"}.get(verdict, "")


def _cost_row(name: str, cost: Interval) -> str:
    word = change_word(cost)
    cells = cell("th", name, scope="row") + cell("td", difference_text(cost.value))
    cells += cell("td", _ends(cost)) + cell("td", word, f"text held {_tone(word)}".strip())
    return f"<tr>{cells}</tr>"


def _counts(costs: Iterable[Interval]) -> str:
    """Say how many losses change which way."""
    words = [change_word(cost) for cost in costs]
    parts = [f"{words.count(w)} {w}" for w in ("worse", "better", "not significant") if w in words]
    return f"Not in the objective: {', '.join(parts)}. Above 0 is worse."


def _no_costs(run: Run, found: PageAnswer) -> str:
    if set(run.objective.measured) >= set(run.objective.evaluation):
        return "Nothing: the objective measures every loss."
    return "Nothing: it is the natural mixture." if found.gains else "Not compared with natural."


def _ends(one: Interval) -> str:
    return interval_text(one.low, one.high)
