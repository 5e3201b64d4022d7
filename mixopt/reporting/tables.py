"""Tables for a terminal as plain text by rich: first column left-aligned, numbers right-aligned.

On a narrow terminal headers and cells wrap, and then columns are split into several tables, each
with the first column. Words and numbers are never cut, except names longer than half the terminal.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import yaml

from mixopt.system import bytes_text, name_text, rank_text, share_text, short_count, terminal_width

if TYPE_CHECKING:
    from mixopt.corpus import DomainCount
    from mixopt.fitting import Factor, FitReadiness, LossReadiness, Offer
    from mixopt.run_directory import CheckedPart
    from mixopt.sampling import ScheduleForecast, StageDraw

MIN_NAME = 20  # characters of a word that are never cut
GAP = 2  # characters between columns
MARGIN = "  "
MAX_LOADINGS = 6  # metrics in a factor's row
MAX_RATIO = 1000  # shown
MAX_STAGES = 6  # stages shown side by side; of more, the first and the last
EVALUATED = (
    "spearman", "own_share", "from_uniform", "ceiling", "rmse", "coverage90", "rank", "regret",
)  # fmt: skip
READINESS_TITLE = "How well the trials tell mixtures apart, by loss"
READINESS_MEANING = (
    "weight: in the objective; Spearman: rank correlation on held-out folds, lower bound: 95%",
    "spread: standard deviation over mixtures; noise: over seeds of one mixture",
    "ratio: the spread beyond the noise, divided by the noise; lower bound: 95%",
    "control: the best Spearman among own share, distance from uniform and nearest trial",
    "most correlated with: the training domain whose own loss correlates most",
    "noise, of variance: by seeds; by the number of questions it is the most that it can be",
    "follows the mixture: share of the variance that held-out predictions explain",
    "adds to own share: in how many of 100 resamples the fit ranks better than one domain's share",
    "power: how likely the best of as many new arms is told from a control, one run of each",
    "arms: ranked (two are in the right order 3 times in 4), only the ends of them, or not at all",
)
OF_RATIOS = (
    "ready: the lower bound is 1 or more, and no control ranks held-out trials better",
    "weak: the ratio is 1 or more, the lower bound is not; noise: the ratio is below 1",
)
OF_RANKS = (
    "the state comes from the rank correlation on held-out folds alone",
    "ready: the lower bound is 0.71 or more (noise below signal), and no control is better",
    "weak: the lower bound is above 0; noise: it is not",
)


def table_text(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], texts: Sequence[str] = ()
) -> str:
    """Return a table as text, with a rule under its title."""
    width = terminal_width() - len(MARGIN)
    cells = [list(columns)]
    cells += map(list, rows)
    left = {0}
    left |= {place for place, name in enumerate(columns) if name in texts}
    widths = _Widths.of(cells, left, max(MIN_NAME, width // 2))
    parts = [_block(cells, left, widths.fitted(p, width)) for p in _parts(widths.words, width)]
    return "\n".join([title, "", "\n\n".join(parts)]) + "\n"


class _Widths(NamedTuple):
    """Widths of each column: for wrapped words, for whole values, and for whole headings."""

    words: list[int]
    values: list[int]
    headings: list[int]

    @classmethod
    def of(cls, cells: Sequence[Sequence[str]], left: set[int], longest: int) -> Self:
        """Measure the columns; only those in `left` wrap, to at most `longest` characters."""
        from rich.cells import cell_len

        widths = cls([], [], [])
        for place, (name, *column) in enumerate(zip(*cells, strict=True)):
            parts = name.split(" ")
            parts += " ".join(column).split(" ") if place in left else column
            words = min(longest, max(map(cell_len, parts)))
            values = max([words, *map(cell_len, column)])
            widths.words.append(words)
            widths.values.append(values)
            widths.headings.append(max(values, cell_len(name)))
        return widths

    def fitted(self, narrow: Mapping[int, int], width: int) -> dict[int, int]:
        """Distribute the remaining width, first to the columns that lack least."""
        fitted = dict(narrow)
        for limits in (self.values, self.headings):
            lacking = {place: limits[place] - now for place, now in fitted.items()}
            for place in sorted(fitted, key=lambda place: lacking[place]):
                room = max(0, width - _total(fitted))
                fitted[place] = min(limits[place], fitted[place] + room)
        return fitted


def _parts(narrow: Sequence[int], width: int) -> Iterator[dict[int, int]]:
    """Yield the widths of columns that fit side by side, each group with the first column."""
    chosen = {0: narrow[0]}
    for place in range(1, len(narrow)):
        if _total(chosen) + GAP + narrow[place] > width and len(chosen) > 1:
            yield chosen
            chosen = {0: narrow[0]}
        chosen[place] = narrow[place]
    yield chosen


def _total(widths: Mapping[int, int]) -> int:
    return sum(GAP + width for width in widths.values()) - 1


def _block(cells: Sequence[Sequence[str]], left: set[int], widths: Mapping[int, int]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=True)
    for place, width in widths.items():
        justify = "left" if place in left else "right"
        name = Text(cells[0][place])
        table.add_column(name, justify=justify, overflow="fold", width=width)  # type: ignore[arg-type]
    for row in cells[1:]:
        cells_shown = [Text(row[place]) for place in widths]
        table.add_row(*cells_shown)
    stream = io.StringIO()
    Console(file=stream, width=_total(widths), color_system=None, force_terminal=False).print(table)
    return "\n".join((MARGIN + line).rstrip() for line in stream.getvalue().splitlines())


def counts_text(counts: Sequence[DomainCount], tokenizer: str) -> str:
    """Return the table of counted domains."""
    sizes = [domain.bytes if domain.tokens is None else domain.tokens for domain in counts]
    rows = []
    for domain, size in zip(counts, sizes, strict=True):
        files = f"{domain.files:,}" if domain.files else "-"
        text = bytes_text(domain.bytes) if domain.bytes else "-"
        share = share_text(size / sum(sizes))
        rows.append((domain.name, files, text, _tokens_text(domain), share, domain.how))
    columns = ("domain", "files", "text", "tokens", "share", "by")
    title = f"Whole domains, in tokens of {tokenizer}"
    lines = [table_text(title, columns, rows, texts=("by",))]
    if any(count.tokens is None for count in counts):
        lines.append(f"{tokenizer} is trained in the step prepare; until then sizes are in bytes")
    return "\n".join(lines)


def _tokens_text(domain: DomainCount) -> str:
    """Return the tokens of a domain: exact, about, or a dash if unknown."""
    if domain.tokens is None:
        return "-"
    return f"{domain.tokens:,}" if domain.is_exact else f"~{short_count(domain.tokens)}"


def schedule_text(forecast: ScheduleForecast) -> str:
    """Return the tables of the samples that a schedule draws."""
    schedule = forecast.schedule
    stages = list(forecast.stages)
    tokens = short_count(schedule.tokens)
    title = f"{tokens} tokens in {schedule.steps:,} steps of {schedule.batch:,}"
    rows = [_stage_row(stage) for stage in stages]
    lines = [table_text(title, ("stage", "first step", "steps", "tokens"), rows)]
    if rounded := schedule.tokens - schedule.asked_tokens:
        lines.append(
            f"requested: {schedule.asked_tokens:,} tokens; in whole batches:"
            f" {schedule.tokens:,} ({rounded:+,})\n"
        )
    shown = stages if len(stages) <= MAX_STAGES else [stages[0], stages[-1]]
    names = [stage.name for stage in shown]
    columns = ("domain", *names, "tokens", "epochs", "runs out")
    domains = []
    for name, drawn in forecast.drawn.items():
        shares = [share_text(stage.shares[name]) for stage in shown]
        epochs = f"{stages[-1].epochs[name]:.3f}"
        ends = "-"
        out = forecast.runs_out.get(name)
        if out is not None:
            ends = f"at {short_count(out.tokens)}, step {out.step:,} of {stages[out.stage].name}"
        domains.append((name, *shares, short_count(drawn), epochs, ends))
    lines.append(table_text("Share of the tokens by stage", columns, domains))
    return "\n".join(lines).rstrip("\n")


def _stage_row(stage: StageDraw) -> tuple[str, str, str, str]:
    return stage.name, f"{stage.start:,}", f"{stage.steps:,}", short_count(stage.tokens)


def verification_text(parts: Sequence[CheckedPart]) -> str:
    """Return the table of a verified directory, its damaged files, and commands to repair them."""
    rows = []
    for part in parts:
        files = str(part.files) if part.files else ""
        size = bytes_text(part.bytes) if part.files else ""
        rows.append((part.name, part.state, files, size))
    lines = [table_text("Files against their hashes", ("part", "state", "files", "size"), rows)]
    for part in parts:
        lines += [f"{part.name}: {name}: {fault}" for name, fault in part.faults.items()]
        if part.fix:
            lines.append(f"{part.name}: to make it again: {part.fix}")
    return "\n".join(lines)


def evaluation_text(evaluation: Mapping[str, Any]) -> str:
    """Return the table of `mixopt.fitting.evaluation.evaluate`."""
    title = f"{evaluation['regressor']} on {evaluation['runs']} test runs"
    rows = {**evaluation["targets"], "(mean)": evaluation["mean"]}
    measured = {score for row in rows.values() for score in row if row[score] is not None}
    scores = [score for score in EVALUATED if score in measured]
    lines = []
    for name, row in rows.items():
        cells = [_score_text(row.get(score)) for score in scores]
        lines.append((name, *cells))
    heads = [name_text(score).removesuffix("90") for score in scores]
    table = table_text(title, ("target", *heads), lines)
    ranks = "undefined, every target is constant"
    if evaluation["mean_spearman"] is not None:
        ranks = f"{evaluation['mean_spearman']:.4f} ({_controls_text(evaluation)})"
    return "\n".join([table, *evaluation["notes"], f"mean Spearman over targets: {ranks}"])


def _score_text(score: float | None) -> str:
    return "" if score is None else f"{score:.4g}"


def _controls_text(evaluation: Mapping[str, Any]) -> str:
    """Return the mean rank correlations of the controls, as far as defined."""
    controls = []
    for name, value in evaluation["mean_controls"].items():
        if value is not None:
            controls.append(f"{name_text(name)} {value:.4f}")
    return ", ".join(controls)


def readiness_text(result: FitReadiness) -> str:
    """Return the readiness of a fit's losses, best first, and the meaning of the columns."""

    def signal(loss: LossReadiness) -> float:
        if loss.of_trials.ratio is None:
            return loss.spearman or 0.0
        return loss.of_trials.ratio

    by_signal = sorted(result.losses, key=lambda loss: -signal(loss))
    rows = [_readiness_row(loss) for loss in (result.objective, *by_signal)]
    filled = {name for row in rows for name in row if row[name]}
    columns = [name for name in rows[0] if name in filled]
    table = table_text(READINESS_TITLE, columns, [[row[name] for name in columns] for row in rows])
    lines = [table, result.noise.describe()]
    lines += [line for line in READINESS_MEANING if line.partition(":")[0] in columns]
    lines += OF_RATIOS if result.noise.trials else OF_RANKS
    if result.left_out:
        lines.append(f"left out of the objective as noise: {', '.join(result.left_out)}")
    return "\n".join([*lines, *_signal_tables(result), *_offers(result)])


def loadings_text(factor: Factor, max_metrics: int) -> str:
    """Return the largest loadings of a factor."""
    largest = sorted(factor.loadings.items(), key=lambda loading: -abs(loading[1]))[:max_metrics]
    return ", ".join(f"{name} {load:+.2f}" for name, load in largest)


def _signal_tables(result: FitReadiness) -> Iterator[str]:
    """Yield the tables of factors and of alternative objectives."""
    if result.factors:
        yield _factor_table(result.factors)
    if result.offers:
        yield _offer_table(result.offers)


def _factor_table(factors: Sequence[Factor]) -> str:
    rows = []
    for number, factor in enumerate(factors, start=1):
        loadings = loadings_text(factor, MAX_LOADINGS)
        share = share_text(factor.share)
        rows.append((str(number), share, rank_text(factor.spearman), loadings))
    columns = ("factor", "of variance", "Spearman", "loadings, above 0 is better")
    title = "What the metrics have in common, most of the mixture first"
    return table_text(title, columns, rows, texts=columns[-1:])


def _offer_table(offers: Sequence[Offer]) -> str:
    rows = []
    for offer in offers:
        current = rank_text(offer.ranks_current)
        rows.append((offer.name, rank_text(offer.spearman), current, offer.reason))
    columns = ("objective", "Spearman", "Spearman with the present one", "why")
    title = "Objectives that these trials could be ranked by, on held-out folds"
    return table_text(title, columns, rows, texts=columns[-1:])


def _offers(result: FitReadiness) -> Iterator[str]:
    """Yield the YAML line of each alternative objective."""
    if result.offers[1:]:
        yield "To use one of them, paste its line into the experiment:"
    style: dict[str, Any] = {"default_flow_style": True, "sort_keys": False, "width": 10**6}
    for offer in result.offers[1:]:
        yield yaml.safe_dump({"objective": offer.section}, **style).strip()[1:-1]


def _readiness_row(loss: LossReadiness) -> dict[str, str]:
    """Return the cells of a loss by column; empty where a figure is unknown."""
    of = loss.of_trials
    nearest = ""
    if loss.nearest and loss.domains:
        name, correlation = loss.nearest
        nearest = f"{name} {correlation:.2f}"
    return {
        "loss": loss.name,
        "weight": share_text(loss.weight) if loss.weight else "",
        "spread": f"{of.spread:.4f}",
        "noise": "" if of.noise is None else f"{of.noise:.4f}",
        "ratio": _ratio_text(of.ratio),
        "ratio, lower bound": _ratio_text(of.low),
        "Spearman": rank_text(loss.spearman),
        "Spearman, lower bound": "" if of.ratio else rank_text(loss.spearman_low),
        "control": rank_text(loss.control and loss.control[1]),
        "most correlated with": nearest,
        "noise, of variance": _known_share_text(loss.noise_share),
        "follows the mixture": share_text(loss.followed),
        "adds to own share": "" if loss.better is None else f"{100 * loss.better:.0f}",
        "power": _known_share_text(None if loss.power is None else loss.power.power),
        "state": loss.state,
        "arms": loss.verdict,
    }


def _ratio_text(ratio: float | None) -> str:
    return "" if ratio is None else f"{min(ratio, MAX_RATIO):.2f}"


def _known_share_text(share: float | None) -> str:
    return "" if share is None else share_text(share)
