"""The answer of a run, and the first screen of its page.

It gives the mixture, its gain over the usual choices, its costs, what to check, and how to use it.
A validated run has a recommendation; before that, a run has a proposal, or the user's own mixture,
with the fit's predictions. Gains above 0 are improvements, for losses and tasks alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from mixopt.difference import HIGHER_UNITS, UNITS, Difference
from mixopt.errors import ConfigError
from mixopt.integrations import EXPORT_TOOLS, export_mixture
from mixopt.mixture import Mixture, Phases
from mixopt.proposals import PROPOSAL, Proposal, Recommendation, named, predicted_other_losses
from mixopt.reporting.page import template
from mixopt.reporting.terminal import broken_by_baselines, broken_guardrails, called_loss, in_order
from mixopt.run_directory import LATER_PROPOSALS, Run
from mixopt.system import short_count, without_folders

MAX_LOSSES = 5  # shown on the first screen and in the terminal
MAX_BY_SHARE = 12  # domains ordered by share; more are ordered by their change
MIN_MOVE = 0.01  # smallest change of a share that a sentence mentions
SAME = 1e-3  # total variation below which phases count as one mixture
MAX_NAMED = 2  # domains named as increased, and as decreased
TONES = {"significantly better": "good", "not the proposal": "bad"}


@dataclass(frozen=True)
class PageAnswer:
    """Content of the first screen."""

    sentence: str
    label: str  # name of the mixture in two or three words
    why: str
    chosen: str
    called: str  # recommended, proposed, or edited
    mixture: Mixture
    natural: Mixture
    epochs: Mapping[str, float] | None
    gains: Mapping[str, Difference]  # validated or predicted; natural first, then the user's own
    predicted_gains: Mapping[str, Difference]
    other_losses: Mapping[str, Difference]  # gains over natural, worst first
    broken: tuple[str, ...]  # guardrails, by the validated mean
    warnings: tuple[str, ...]
    limits: tuple[str, ...]  # active constraints


def answer_of(run: Run) -> PageAnswer:
    """Return the answer of a run that has a proposal."""
    state, proposal = run.outcome.state, proposal_of(run)
    answer: Proposal | Recommendation
    broken: tuple[str, ...] = ()
    warnings: list[str] = []
    if state == "validated":
        answer, broken = run.recommendation, broken_guardrails(run)
        name = named(answer.chosen, answer.gains)
        sentence = f"Train on {name}"
        if answer.standing == "undecided":
            sentence = f"Undecided; for now {name}"
        elif answer.chosen == "natural":
            sentence = "Keep the natural mixture"
        if broken:
            sentence += f", which breaks {_counted(len(broken), 'guardrail')}"
        about = (answer.standing.capitalize(), answer.why, answer.chosen, "recommended")
        predicted_gains = answer.predicted_gains
        other_losses = answer.other_losses
        warnings = [line for line in answer.warnings if not line.endswith(broken)]
    else:
        answer = run.proposal
        called = "edited" if state == "edited" else "proposed"
        whose = "Your own mixture" if state == "edited" else "Proposed"
        sentence = f"{whose}, not validated"
        why = without_folders(f"By prediction alone: {run.outcome.note}.")
        about = ("Not validated yet", why, PROPOSAL, called)
        predicted_gains = answer.gains
        other_losses = predicted_other_losses(
            answer.mixture, answer.natural, run.fit, run.objective
        )
    warnings += [*(proposal.warnings if proposal else ()), *broken_by_baselines(run)]
    return PageAnswer(
        f"{sentence}{_moves(answer)}.",
        *about,
        **_shares(answer),
        gains=in_order(answer.gains),
        predicted_gains=predicted_gains,
        other_losses=other_losses,
        broken=broken,
        warnings=tuple(dict.fromkeys(warnings)),
        limits=proposal.binding if proposal else (),
    )


def proposal_of(run: Run) -> Proposal | None:
    """Return the recommended or not yet validated proposal; None if a baseline is recommended."""
    chosen = run.recommendation.chosen if run.outcome.state == "validated" else PROPOSAL
    if chosen == PROPOSAL:
        return run.proposal
    later = run.path / LATER_PROPOSALS / f"{chosen}.yaml"
    return Proposal.from_file(later) if later.exists() else None


def _shares(answer: Proposal | Recommendation) -> dict[str, Any]:
    """Return the shares to show: by domain if all phases have one mixture, else by phase."""
    mixture, natural, epochs, phases = answer.mixture, answer.natural, answer.epochs, answer.phases
    if phases is not None:
        first, *later = phases.split(mixture).values()
        if all(first.total_variation(shares) <= SAME for shares in later):
            mixture, (natural, *_) = first, phases.split(natural).values()
            if epochs is not None:
                epochs = {name: sum(epochs[f"{p}/{name}"] for p in phases) for name in first}
    return {"mixture": mixture, "natural": natural, "epochs": epochs}


def _moves(answer: Proposal | Recommendation) -> str:
    """Return a sentence on the domains that gain and lose most against the natural mixture."""
    mixture, natural = answer.mixture, answer.natural
    if answer.phases is not None:
        mixture, natural = answer.phases.whole(mixture), answer.phases.whole(natural)
    parts = []
    for word, sign in (("more", 1), ("less", -1)):
        moved = {name: sign * (weight - natural[name]) for name, weight in mixture.items()}
        names = sorted((n for n in moved if moved[n] >= MIN_MOVE), key=lambda name: -moved[name])
        parts += [f"{word} {' and '.join(names[:MAX_NAMED])}"] if names else []
    return f": {', '.join(parts)} than natural" if parts else ""


def first_screen(run: Run, answer: PageAnswer) -> Markup:
    """Return the first section of the page, with its only `h1`."""
    tokens, unit = run.config.propose.target_tokens, run.objective.value_unit
    is_validated = answer.called == "recommended"
    names = [answer.chosen, *answer.gains]
    limits: dict[str, list[str]] = {}  # active constraints by their source
    for line in answer.limits:
        limit, _, source = line.rpartition(" (")
        limits.setdefault(source, []).append(limit)
    active = "; ".join(f"{', '.join(texts)} ({source}" for source, texts in limits.items())
    counts = (len(answer.warnings), "warning"), (len(answer.limits), "active constraint")
    return template(
        "answer.html",
        answer=answer,
        tone=TONES.get(answer.label.lower(), "" if is_validated else "bad"),
        does="Maximises" if unit in HIGHER_UNITS else "Minimises",
        objective=run.objective.describe(),
        epochs_of=f" (epochs in {short_count(tokens)})" if tokens and answer.epochs else "",
        domains=[_mixture_row(answer, name, [name]) for name in _by_change(answer)],
        longest=max(*answer.mixture.values(), *answer.natural.values()),
        groups=_groups(run, answer),
        unit=unit,
        loss_unit=UNITS[run.objective.unit],
        is_validated=is_validated,
        others=[
            (named(name, names), gain, answer.predicted_gains.get(name))
            for name, gain in list(answer.gains.items())[1:]
        ],
        place=_axis(_charted(answer)),
        losses=[
            (called_loss(name, run.objective.items)[0], gain)
            for name, gain in list(answer.other_losses.items())[:MAX_LOSSES]
        ],
        fragments=weight_fragments(run, answer.mixture),
        to_check=", ".join(_counted(number, noun) for number, noun in counts if number),
        checks=[*map(capital, answer.warnings), *([f"Active: {active}"] if active else [])],
    )


def _charted(answer: PageAnswer) -> list[Difference]:
    """Return the differences in the chart: of all mixtures but the first."""
    charted = []
    for name, gain in list(answer.gains.items())[1:]:
        charted.append(gain)
        if name in answer.predicted_gains:
            charted.append(answer.predicted_gains[name])
    return charted


def _axis(differences: Sequence[Difference]) -> Callable[[float], str]:
    """Return a value's position in percent on an axis that spans all intervals and 0."""
    low = min([0.0, *(difference.low for difference in differences)])
    high = max([0.0, *(difference.high for difference in differences)])
    return lambda value: f"{100 * (value - low) / ((high - low) or 1.0):.4g}%"


def capital(text: str) -> str:
    """Return a line as a sentence, without names of folders."""
    return without_folders(text[:1].upper() + text[1:])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _by_change(answer: PageAnswer) -> list[str]:
    """Return the domains by size of change; a few domains by their share."""
    mixture, natural = answer.mixture, answer.natural
    if len(mixture) <= MAX_BY_SHARE:
        return sorted(mixture, key=lambda name: -mixture[name])
    return sorted(mixture, key=lambda name: -abs(mixture[name] - natural[name]))


def _groups(run: Run, answer: PageAnswer) -> list[list[dict[str, Any]]]:
    """Return the rows of each group of domains."""
    members = {name: list(domains) for name, (domains, _, _) in run.constraints.groups.items()}
    phases = Phases.of(run.config.design.phases)
    if phases is not None and len(answer.mixture) == len(run.corpus.domain_names):
        members = {name: list(phases.names(domains)) for name, domains in members.items()}
    if not members:
        return []
    grouped = {name for domains in members.values() for name in domains}
    rest = [name for name in answer.mixture if name not in grouped]
    members |= {"in no group": rest} if rest else {}
    bodies = []
    for name, domains in members.items():
        rows = [_mixture_row(answer, d, [d]) for d in _by_change(answer) if d in domains]
        group = _mixture_row(answer, name, domains, count=_counted(len(domains), "domain"))
        bodies.append([group, *(row | {"is_member": True} for row in rows)])
    return sorted(bodies, key=lambda rows: -float(rows[0]["now"]))


def _mixture_row(
    answer: PageAnswer, name: str, domains: Sequence[str], count: str = ""
) -> dict[str, Any]:
    now, was = (sum(shares[d] for d in domains) for shares in (answer.mixture, answer.natural))
    epochs = ""
    if answer.epochs is not None and not count:
        passes = answer.epochs[name]
        epochs = "<0.01" if 0 < passes < 0.005 else f"{passes:.2f}"
    moved = f"{round(100 * (now - was), 1) + 0.0:+.1f}"  # never -0.0
    row = {"name": name, "count": count, "is_member": False, "now": now, "was": was}
    return row | {"epochs": epochs, "moved": moved}


def weight_fragments(run: Run, mixture: Mixture) -> dict[str, dict[str, str]]:
    """Return the output of `mixopt export` for each tool, or why there is none."""
    weights = yaml.safe_dump({"weights": dict(mixture)}, sort_keys=False, allow_unicode=True)
    fragments = {"yaml": {"text": weights}}
    if run.config.design.phases is not None and len(mixture) > len(run.corpus.domain_names):
        staged = f"has phases: mixopt export {run.path.name} --to schedule makes stages of them"
        return fragments | {tool: {"why": staged} for tool in EXPORT_TOOLS}
    for tool in EXPORT_TOOLS:
        try:
            text = export_mixture(
                mixture,
                tool,
                inventory=run.inventory,
                tokens=run.config.propose.target_tokens,
                sample_tokens=run.corpus.sample_tokens,
            )
            fragments[tool] = {"text": text}
        except ConfigError as error:
            fragments[tool] = {"why": str(error)}
    return fragments
