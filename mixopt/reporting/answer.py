"""The answer of a run, and the first screen of its page: which mixture, what it gives and costs.

A run that is validated has a recommendation; another one a proposal, or a mixture of the user's
own, with what the fit predicts of it. The page shows all three by the same fields. Warnings have a
line on the first screen, and follow below in full: they are read before signing, and do not push
the answer away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from mixopt.errors import ConfigError
from mixopt.exports import EXPORT_TOOLS, export_mixture
from mixopt.mixture import Mixture
from mixopt.objective import UNITS
from mixopt.proposals import Interval, Proposal, Recommendation, named, predicted_costs
from mixopt.reporting.page import change_word, json_text, template
from mixopt.run_directory import Run
from mixopt.system import short_count, without_folders

MAX_GAINS, MAX_COSTS, MAX_LIMITS = 4, 5, 4  # that the first screen shows
FEW_DOMAINS = 12  # that are ordered by share; more are by how far they move
FIRST = ("natural", "uniform", "unimax", "best_trial")  # whose gains come first
MIN_MOVE = 0.01  # share of the tokens that a sentence calls more or less
MAX_NAMED = 2  # domains that a sentence names each way
TONES = {"significantly better": "good", "not the proposal": "bad"}
UNVALIDATED = (
    "By the fit's prediction alone. Validate it against baselines before you train on it:"
    " mixopt validate"
)


@dataclass(frozen=True)
class AnswerGain:
    """How much better the answer is than another mixture, above 0 where it is."""

    over: str
    validated: Interval | None  # 95%
    predicted: Interval | None  # 90%
    verdict: str = ""
    seeds: int = 0


@dataclass(frozen=True)
class PageAnswer:
    """What the first screen says."""

    sentence: str
    label: str  # what is shown of the mixture, in two or three words
    tone: str  # `good`, `bad` or nothing
    why: str
    mixture: Mixture
    called: str  # recommended, proposed, or edited
    natural: Mixture
    epochs: Mapping[str, float] | None
    gains: tuple[AnswerGain, ...]
    costs: Mapping[str, Interval]  # losses outside the objective against natural, the worst first
    level: int  # of the intervals of the costs, in percent
    warnings: tuple[str, ...]
    limits: tuple[str, ...]  # constraints that hold the mixture back


def answer_of(run: Run) -> PageAnswer:
    """Return the answer of a run whose proposal is made."""
    proposal = run.proposal
    if run.is_done("validate"):
        return _recommended(run.recommendation, proposal)
    whose = "Your own mixture" if proposal.is_own else "Proposed"
    edited = "Edited by hand in proposal.yaml. " if proposal.is_own else ""
    return PageAnswer(
        sentence=f"{whose}, not validated{_moves(proposal.mixture, proposal.natural)}.",
        label="Not validated yet",
        tone="bad",
        why=f"{edited}{UNVALIDATED}",
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


def _recommended(found: Recommendation, proposal: Proposal) -> PageAnswer:
    gains = [
        AnswerGain(name, one.validated, one.predicted, one.verdict, one.seeds)
        for name, one in found.gains.items()
    ]
    # Warnings of a proposal that is not recommended name it.
    is_proposal = found.mixture.fingerprint == proposal.mixture.fingerprint
    of_proposal = [
        line if is_proposal or "the proposal" in line else f"of the proposal: {line}"
        for line in proposal.warnings
        if line not in found.warnings
    ]
    return PageAnswer(
        sentence=f"{_advice(found)}{_moves(found.mixture, found.natural)}.",
        label=found.standing.capitalize(),
        tone=TONES.get(found.standing, ""),
        why=found.why,
        mixture=found.mixture,
        called="recommended",
        natural=found.natural,
        epochs=found.epochs,
        gains=_natural_first(gains),
        costs=found.costs,
        level=95,
        warnings=tuple(dict.fromkeys((*found.warnings, *of_proposal))),
        limits=proposal.binding if is_proposal else (),
    )


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
    more = [name for name in order if moved[name] >= MIN_MOVE][:MAX_NAMED]
    less = [name for name in reversed(order) if moved[name] <= -MIN_MOVE][:MAX_NAMED]
    parts = [f"more {' and '.join(more)}"] if more else []
    parts += [f"less {' and '.join(less)}"] if less else []
    return f": {', '.join(parts)} than natural" if parts else ""


def _natural_first(gains: list[AnswerGain]) -> tuple[AnswerGain, ...]:
    places = {name: place for place, name in enumerate(FIRST)}
    return tuple(sorted(gains, key=lambda gain: places.get(gain.over, len(places))))


def first_screen(run: Run, answer: PageAnswer) -> Markup:
    """Return the first section of the page, with its only `h1`."""
    tokens = run.config.propose.target_tokens
    is_in_full_run = answer.epochs is not None and tokens
    counts = ((len(answer.warnings), "warning"), (len(answer.limits), "active constraint"))
    limits, more = answer.limits[:MAX_LIMITS], answer.limits[MAX_LIMITS:]
    before = [without_folders(line[:1].upper() + line[1:]) for line in answer.warnings]
    before += [f"Active constraints: {', '.join(limits)}"] if limits else []
    fragments = weight_fragments(run, answer.mixture)
    titles = {"yaml": "YAML", **{name: tool.title for name, tool in EXPORT_TOOLS.items()}}
    return template(
        "answer.html",
        answer=answer,
        pointer=" and ".join(_count(number, what) for number, what in counts if number),
        goal=f"Minimises {run.objective.describe()}, in {UNITS[run.objective.value_unit]}.",
        epochs_of=f" (epochs in {short_count(tokens)})" if is_in_full_run and tokens else "",
        domains=[_mixture_row(answer, name, [name]) for name in _by_change(answer)],
        groups=_groups(run, answer),
        unit=UNITS[run.objective.value_unit],
        others=answer.gains[1:MAX_GAINS],
        place=_axis(answer.gains[1:MAX_GAINS]),
        costs=list(answer.costs.items())[:MAX_COSTS],
        costs_note=_costs_note(run, answer),
        copies=[(name, title, "why" in fragments[name]) for name, title in titles.items()],
        fragments=json_text(fragments),
        before=[line if line.endswith(".") else f"{line}." for line in before],
        more_limits=more,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _by_change(answer: PageAnswer) -> list[str]:
    """Return the domains, those that move most first; few of them by their share."""
    mixture, natural = answer.mixture, answer.natural
    if len(mixture) <= FEW_DOMAINS:
        return sorted(mixture, key=lambda name: -mixture[name])
    return sorted(mixture, key=lambda name: -abs(mixture[name] - natural[name]))


def _groups(run: Run, answer: PageAnswer) -> list[list[dict[str, Any]]]:
    """Return the rows of each group, its own first; nothing without groups."""
    members = {name: list(own) for name, (own, _, _) in run.constraints.groups.items()}
    if not members:
        return []
    grouped = {name for own in members.values() for name in own}
    rest = [name for name in answer.mixture if name not in grouped]
    members |= {"in no group": rest} if rest else {}
    order = _by_change(answer)
    bodies = [
        [
            _mixture_row(answer, name, own, count=_count(len(own), "domain")),
            *(_mixture_row(answer, one, [one], is_member=True) for one in order if one in own),
        ]
        for name, own in members.items()
    ]
    return sorted(bodies, key=lambda rows: -float(rows[0]["now"]))


def _mixture_row(
    answer: PageAnswer,
    name: str,
    domains: Sequence[str],
    *,
    count: str = "",
    is_member: bool = False,
) -> dict[str, Any]:
    now, was = (sum(one[d] for d in domains) for one in (answer.mixture, answer.natural))
    is_grouped = bool(count) or is_member
    longest = 1.0 if is_grouped else max(*answer.mixture.values(), *answer.natural.values())
    epochs = ""
    if answer.epochs is not None and not count:
        passes = answer.epochs[name]
        epochs = "<0.01" if 0 < passes < 0.005 else f"{passes:.2f}"
    row = {"name": name, "count": count, "is_member": is_member, "now": now, "was": was}
    return row | {"longest": longest, "epochs": epochs}


def _axis(gains: Sequence[AnswerGain]) -> Callable[[float], str]:
    """Return where a value lies on an axis that has all intervals and 0, in percent."""
    known = [one for gain in gains for one in (gain.validated, gain.predicted) if one is not None]
    low = min([0.0, *(one.low for one in known)])
    high = max([0.0, *(one.high for one in known)])
    return lambda value: f"{100 * (value - low) / ((high - low) or 1.0):.4g}%"


def _costs_note(run: Run, answer: PageAnswer) -> str:
    words = [change_word(cost) for cost in answer.costs.values()]
    if not words:
        if set(run.objective.measured) >= set(run.objective.evaluation):
            return "Nothing: the objective measures every loss."
        is_known = bool(answer.gains)
        return "Nothing: it is the natural mixture." if is_known else "Not compared with natural."
    parts = [f"{words.count(w)} {w}" for w in ("worse", "better", "not significant") if w in words]
    return f"Not in the objective: {', '.join(parts)}. Above 0 is worse."


def weight_fragments(run: Run, mixture: Mixture) -> dict[str, dict[str, str]]:
    """Return the text for each tool, as `mixopt export` writes it, or why there is none."""
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
