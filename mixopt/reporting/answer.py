"""The answer of a run, and the first screen of its page: which mixture, what it gives and costs.

A run that is validated has a recommendation; another one a proposal, or a mixture of the user's
own, with what the fit predicts of it. The page shows all three by the same fields. Warnings have a
line on the first screen, and follow below in full: they are read before signing, and do not push
the answer away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from mixopt.errors import ConfigError
from mixopt.exports import EXPORT_TOOLS, export_mixture
from mixopt.mixture import Mixture
from mixopt.objective import UNITS
from mixopt.proposals import Interval, Proposal, Recommendation, named, predicted_costs
from mixopt.reporting.page import json_text, template
from mixopt.run_directory import Run
from mixopt.system import (
    difference_text,
    interval_text,
    share_text,
    short_count,
    without_folders,
)

MAX_GAINS, MAX_COSTS, MAX_LIMITS = 4, 5, 4  # that the first screen shows
FEW_DOMAINS = 12  # that are ordered by share; more are by how far they move
TONES_OF_VERDICTS = {"better": "good", "worse": "bad"}
FIRST = ("natural", "uniform", "unimax", "best_trial")  # whose gains come first
MOVED = 0.01  # share of the tokens that a sentence calls more or less
NAMED = 2  # domains that a sentence names each way
LABELS = {
    "significantly better": "Significantly better",
    "better on the mean": "Better on the mean",
    "not the proposal": "Not the proposal",
    "undecided": "Undecided",
}
TONES = {"significantly better": "good", "not the proposal": "bad"}
UNVALIDATED = (
    "By the fit's prediction alone. Validate it against baselines before you train on it:"
    " mixopt validate"
)


@dataclass(frozen=True)
class AnswerGain:
    """How much better the answer is than another mixture, above 0 where it is.

    Attributes:
        over: The other mixture.
        validated: By validation runs, with its 95% interval; None where there are none.
        predicted: By the fit, with its 90% interval; None where that is not known.
        verdict: What the validation shows; empty without one.
        seeds: Pairs of validation runs.
    """

    over: str
    validated: Interval | None
    predicted: Interval | None
    verdict: str = ""
    seeds: int = 0


@dataclass(frozen=True)
class PageAnswer:
    """What the first screen says.

    Attributes:
        sentence: The recommendation.
        label: What is shown of it, in two or three words.
        tone: `good`, `bad` or nothing.
        why: The evidence, in a sentence or two.
        mixture: The weights.
        called: What the mixture is: recommended, proposed, or edited.
        natural: Each domain's share of the available tokens.
        epochs: Passes over each domain's tokens in the full run; None where that is not known.
        gains: Over other mixtures, natural first.
        costs: Change of each loss that the objective does not measure against natural, above 0
            where it gets worse, the worst first.
        level: Of the intervals of the costs.
        warnings: What to know before training on it, a line each.
        limits: Constraints that hold it back.
    """

    sentence: str
    label: str
    tone: str
    why: str
    mixture: Mixture
    called: str
    natural: Mixture
    epochs: Mapping[str, float] | None
    gains: tuple[AnswerGain, ...]
    costs: Mapping[str, Interval]
    level: int
    warnings: tuple[str, ...]
    limits: tuple[str, ...]


def answer_of(run: Run) -> PageAnswer:
    """Return the answer of a run whose proposal is made."""
    if run.is_done("validate"):
        return _recommended(run.recommendation, run.proposal)
    return _proposed(run)


def _recommended(found: Recommendation, proposal: Proposal) -> PageAnswer:
    gains = [
        AnswerGain(name, one.validated, one.predicted, one.verdict, one.seeds)
        for name, one in found.gains.items()
    ]
    is_proposal = found.mixture.fingerprint == proposal.mixture.fingerprint
    return PageAnswer(
        sentence=f"{_advice(found)}{_moves(found.mixture, found.natural)}.",
        label=LABELS[found.standing],
        tone=TONES.get(found.standing, ""),
        why=found.why,
        mixture=found.mixture,
        called="recommended",
        natural=found.natural,
        epochs=found.epochs,
        gains=_natural_first(gains),
        costs=found.costs,
        level=95,
        warnings=_warnings(found, proposal, is_proposal=is_proposal),
        limits=proposal.binding if is_proposal else (),
    )


def _warnings(found: Recommendation, proposal: Proposal, *, is_proposal: bool) -> tuple[str, ...]:
    """Return all warnings, each once; those of a proposal that is not recommended name it."""
    own = [line for line in proposal.warnings if line not in found.warnings]
    said = own if is_proposal else [_of_proposal(line) for line in own]
    return tuple(dict.fromkeys((*found.warnings, *said)))


def _of_proposal(line: str) -> str:
    return line if "the proposal" in line else f"of the proposal: {line}"


def _proposed(run: Run) -> PageAnswer:
    proposal = run.proposal
    whose = "Your own mixture" if proposal.is_own else "Proposed"
    return PageAnswer(
        sentence=f"{whose}, not validated{_moves(proposal.mixture, proposal.natural)}.",
        label="Not validated yet",
        tone="bad",
        why=f"{_edited(proposal)}{UNVALIDATED}",
        mixture=proposal.mixture,
        called="edited" if proposal.is_own else "proposed",
        natural=proposal.natural,
        epochs=proposal.epochs,
        gains=_natural_first([AnswerGain(n, None, one) for n, one in proposal.gains.items()]),
        costs=predicted_costs(proposal.mixture, proposal.natural, run.fit, run.objective),
        level=90,
        warnings=proposal.warnings,
        limits=proposal.binding,
    )


def _edited(proposal: Proposal) -> str:
    return "Edited by hand in proposal.yaml. " if proposal.is_own else ""


def _advice(found: Recommendation) -> str:
    """Say which mixture to train on."""
    if found.chosen == "natural":
        return "Keep the natural mixture"
    mixture = named(found.chosen)
    mixture = mixture if mixture.startswith("the ") else f"{mixture}, a baseline"
    if found.standing == "undecided":
        return f"Undecided; for now {mixture}"
    if found.chosen == "best_trial":
        mixture = "the best trial's mixture"
    instead = ", not the proposal" if found.standing == "not the proposal" else ""
    return f"Train on {mixture}{instead}"


def _moves(mixture: Mixture, natural: Mixture) -> str:
    """Say which domains get the most more and the most less than the natural mixture gives."""
    moved = {name: weight - natural[name] for name, weight in mixture.items()}
    order = sorted(moved, key=lambda name: -moved[name])
    more = [name for name in order if moved[name] >= MOVED][:NAMED]
    less = [name for name in reversed(order) if moved[name] <= -MOVED][:NAMED]
    parts = [f"more {' and '.join(more)}"] if more else []
    parts += [f"less {' and '.join(less)}"] if less else []
    return f": {', '.join(parts)} than natural" if parts else ""


def _natural_first(gains: list[AnswerGain]) -> tuple[AnswerGain, ...]:
    places = {name: place for place, name in enumerate(FIRST)}
    return tuple(sorted(gains, key=lambda gain: places.get(gain.over, len(places))))


def first_screen(run: Run, answer: PageAnswer) -> Markup:
    """Return the first section of the page, with its only `h1`."""
    tokens = run.config.propose.target_tokens
    has_epochs = answer.epochs is not None
    parts = (
        _count(len(answer.warnings), "warning"),
        _count(len(answer.limits), "active constraint"),
    )
    limits, more = answer.limits[:MAX_LIMITS], answer.limits[MAX_LIMITS:]
    before = [without_folders(line[:1].upper() + line[1:]) for line in answer.warnings]
    before += [f"Active constraints: {', '.join(limits)}"] if limits else []
    return template(
        "answer.html",
        sentence=answer.sentence,
        tone=answer.tone,
        label=answer.label,
        why=answer.why,
        pointer=" and ".join(part for part in parts if part),
        goal=f"Minimises {run.objective.describe()}, in {UNITS[run.objective.value_unit]}.",
        called=answer.called,
        epochs=has_epochs,
        epochs_of=f" (epochs in {short_count(tokens)})" if has_epochs and tokens else "",
        domains=[_mixture_row(answer, name, [name]) for name in _by_change(answer)],
        groups=_groups(run, answer),
        unit=UNITS[run.objective.value_unit],
        **_gains(answer),
        **_costs(run, answer),
        level=answer.level,
        **_copies(run, answer.mixture),
        before=[line if line.endswith(".") else f"{line}." for line in before],
        more_limits=more,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


def _by_change(answer: PageAnswer) -> list[str]:
    """Return the domains, those that move most first; few of them by their share."""
    mixture, natural = answer.mixture, answer.natural
    if len(mixture) <= FEW_DOMAINS:
        return sorted(mixture, key=lambda name: -mixture[name])
    return sorted(mixture, key=lambda name: -abs(mixture[name] - natural[name]))


def _groups(run: Run, answer: PageAnswer) -> list[list[dict[str, Any]]]:
    """Return the rows of each group, its own first; nothing without groups."""
    members = {one.name: list(one.domains) for one in run.constraints.groups}
    if not members:
        return []
    grouped = {name for own in members.values() for name in own}
    rest = [name for name in answer.mixture if name not in grouped]
    members |= {"in no group": rest} if rest else {}
    order = _by_change(answer)
    return [
        [
            _mixture_row(answer, name, own, count=_count(len(own), "domain")),
            *(_mixture_row(answer, one, [one], is_member=True) for one in order if one in own),
        ]
        for name, own in sorted(members.items(), key=lambda item: -_sum(answer.mixture, item[1]))
    ]


def _sum(mixture: Mixture, names: Sequence[str]) -> float:
    return sum(mixture[name] for name in names)


def _mixture_row(
    answer: PageAnswer,
    name: str,
    domains: Sequence[str],
    *,
    count: str = "",
    is_member: bool = False,
) -> dict[str, Any]:
    now, was = _sum(answer.mixture, domains), _sum(answer.natural, domains)
    most = max(*answer.mixture.values(), *answer.natural.values())
    most = 1.0 if count or is_member else most
    passes = "" if count or answer.epochs is None else _passes(answer.epochs[name])
    return {
        "name": name,
        "count": count,
        "is_member": is_member,
        "now_width": f"{100 * now / most:.4g}%",
        "was_width": f"{100 * was / most:.4g}%",
        "was": share_text(was),
        "now": share_text(now),
        "change": f"{100 * (now - was):+.1f}".replace("-", "\N{MINUS SIGN}"),
        "epochs": passes,
    }


def _passes(epochs: float) -> str:
    return "<0.01" if 0 < epochs < 0.005 else f"{epochs:.2f}"


def _gains(answer: PageAnswer) -> dict[str, Any]:
    """Return the gain over the first mixture in large figures, and the others with charts."""
    if not answer.gains:
        return {"lead": None, "gains": [], "validated": False, "zero": ""}
    first, others = answer.gains[0], answer.gains[1:MAX_GAINS]
    boxes = []
    if first.validated is not None:
        about = f"95% {_ends(first.validated)}, {first.seeds} seeds"
        boxes.append(_box("validated", first.validated, about, first.verdict))
    if first.predicted is not None:
        boxes.append(_box("predicted", first.predicted, f"90% {_ends(first.predicted)}"))
    known = [one for gain in others for one in (gain.validated, gain.predicted) if one is not None]
    low = min([0.0, *(one.low for one in known)])
    high = max([0.0, *(one.high for one in known)])

    def place(value: float) -> str:
        return f"{100 * (value - low) / ((high - low) or 1.0):.4g}%"

    def mark(one: Interval | None) -> dict[str, str] | None:
        if one is None:
            return None
        return {"low": place(one.low), "high": place(one.high), "mid": place(one.value)}

    rows = [
        {
            "over": named(gain.over),
            "validated": difference_text(gain.validated.value) if gain.validated else "",
            "predicted": difference_text(gain.predicted.value) if gain.predicted else "",
            "validated_mark": mark(gain.validated),
            "predicted_mark": mark(gain.predicted),
            "verdict": gain.verdict,
            "tone": TONES_OF_VERDICTS.get(gain.verdict, ""),
        }
        for gain in others
    ]
    return {
        "lead": {"over": named(first.over), "boxes": boxes},
        "gains": rows,
        "validated": any(gain.validated is not None for gain in others),
        "zero": place(0.0),
    }


def _box(name: str, gain: Interval, about: str, verdict: str = "") -> dict[str, str]:
    tone = TONES_OF_VERDICTS.get(verdict, "")
    value = difference_text(gain.value)
    return {"name": name, "value": value, "about": about, "verdict": verdict, "tone": tone}


def _costs(run: Run, answer: PageAnswer) -> dict[str, Any]:
    """Return the losses that the objective does not measure, the worst first."""
    words = [change_word(cost) for cost in answer.costs.values()]
    parts = [f"{words.count(w)} {w}" for w in ("worse", "better", "not significant") if w in words]
    note = f"Not in the objective: {', '.join(parts)}. Above 0 is worse."
    if not words and set(run.objective.measured) >= set(run.objective.evaluation):
        note = "Nothing: the objective measures every loss."
    elif not words:
        note = (
            "Nothing: it is the natural mixture." if answer.gains else "Not compared with natural."
        )
    rows = [
        {
            "name": name,
            "change": difference_text(cost.value),
            "interval": _ends(cost),
            "word": change_word(cost),
            "tone": TONES_OF_VERDICTS.get(change_word(cost), ""),
        }
        for name, cost in list(answer.costs.items())[:MAX_COSTS]
    ]
    return {"costs": rows, "costs_note": note}


def change_word(cost: Interval) -> str:
    """Say what the interval of a change allows to say."""
    if cost.low > 0:
        return "worse"
    return "better" if cost.high < 0 else "not significant"


def _ends(one: Interval) -> str:
    return interval_text(one.low, one.high)


def _copies(run: Run, mixture: Mixture) -> dict[str, Any]:
    """Return the buttons that copy the weights, and the texts that they copy."""
    fragments = weight_fragments(run, mixture)
    titles = {"yaml": "YAML", **{name: tool.title for name, tool in EXPORT_TOOLS.items()}}
    buttons = [
        {"name": name, "title": title, "why": fragments[name].get("why")}
        for name, title in titles.items()
    ]
    return {"copies": buttons, "fragments": json_text(fragments)}


def weight_fragments(run: Run, mixture: Mixture) -> dict[str, dict[str, str]]:
    """Return the text for each tool, as `mixopt export` writes it, or why there is none.

    Args:
        run: It knows the sizes of the domains, and the length of the full run.
        mixture: The weights.
    """
    weights = yaml.safe_dump({"weights": dict(mixture)}, sort_keys=False, allow_unicode=True)
    found = {"yaml": {"text": weights}}
    for tool in EXPORT_TOOLS:
        try:
            text = export_mixture(
                mixture,
                tool,
                inventory=run.inventory,
                tokens=run.config.propose.target_tokens,
                sample_tokens=run.corpus.sample_tokens,
            )
            found[tool] = {"text": text}
        except ConfigError as error:
            found[tool] = {"why": str(error)}
    return found
