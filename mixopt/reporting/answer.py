"""The answer of a run, for its first screen: which mixture, what it gives, and what it costs.

A run that is validated has a recommendation; another one a proposal, or a mixture of the user's
own, with what the fit predicts of it. The page shows all three by the same fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mixopt.mixture import Mixture
from mixopt.proposals import Interval, Proposal, Recommendation, named, predicted_costs
from mixopt.run_directory import Run

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
