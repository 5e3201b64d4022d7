"""The answer of a run, and the first screen of its page.

It gives the mixture, its gain over the usual choices, its costs, what to check, and how to use it.
A validated run has a recommendation; before that, a run has a proposal, or the user's own mixture,
with the fit's predictions. Gains above 0 are improvements, for losses and tasks alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

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
    if run.outcome.state == "validated":
        return _recommended(run)
    return _proposed(run)


def _recommended(run: Run) -> PageAnswer:
    """Return the answer of a validated run."""
    recommendation = run.recommendation
    broken = broken_guardrails(run)
    name = named(recommendation.chosen, recommendation.gains)
    sentence = f"Train on {name}"
    if recommendation.standing == "undecided":
        sentence = f"Undecided; for now {name}"
    elif recommendation.chosen == "natural":
        sentence = "Keep the natural mixture"
    if broken:
        sentence += f", which breaks {_counted(len(broken), 'guardrail')}"
    shares = _Shares.of(recommendation)
    warnings = [line for line in recommendation.warnings if not line.endswith(broken)]
    return PageAnswer(
        sentence=f"{sentence}{_moves(recommendation)}.",
        label=recommendation.standing.capitalize(),
        why=recommendation.why,
        chosen=recommendation.chosen,
        called="recommended",
        mixture=shares.mixture,
        natural=shares.natural,
        epochs=shares.epochs,
        gains=in_order(recommendation.gains),
        predicted_gains=recommendation.predicted_gains,
        other_losses=recommendation.other_losses,
        broken=broken,
        warnings=_warnings(run, warnings),
        limits=_limits(run),
    )


def _proposed(run: Run) -> PageAnswer:
    """Return the answer of a run that is not validated: its proposal, or the user's own mixture."""
    proposal = run.proposal
    is_edited = run.outcome.state == "edited"
    whose = "Your own mixture" if is_edited else "Proposed"
    shares = _Shares.of(proposal)
    return PageAnswer(
        sentence=f"{whose}, not validated{_moves(proposal)}.",
        label="Not validated yet",
        why=without_folders(f"By prediction alone: {run.outcome.note}."),
        chosen=PROPOSAL,
        called="edited" if is_edited else "proposed",
        mixture=shares.mixture,
        natural=shares.natural,
        epochs=shares.epochs,
        gains=in_order(proposal.gains),
        predicted_gains=proposal.gains,
        other_losses=predicted_other_losses(
            proposal.mixture, proposal.natural, run.fit, run.objective
        ),
        broken=(),
        warnings=_warnings(run, []),
        limits=_limits(run),
    )


def _warnings(run: Run, of_answer: Sequence[str]) -> tuple[str, ...]:
    """Return the warnings of an answer, its proposal and the baselines, each once."""
    proposal = proposal_of(run)
    of_proposal = () if proposal is None else proposal.warnings
    return tuple(dict.fromkeys([*of_answer, *of_proposal, *broken_by_baselines(run)]))


def _limits(run: Run) -> tuple[str, ...]:
    """Return the active constraints of the proposal in the answer."""
    proposal = proposal_of(run)
    return () if proposal is None else proposal.binding


def proposal_of(run: Run) -> Proposal | None:
    """Return the recommended or not yet validated proposal; None if a baseline is recommended."""
    chosen = run.recommendation.chosen if run.outcome.state == "validated" else PROPOSAL
    if chosen == PROPOSAL:
        return run.proposal
    later = run.path / LATER_PROPOSALS / f"{chosen}.yaml"
    return Proposal.from_file(later) if later.exists() else None


@dataclass(frozen=True)
class _Shares:
    """The shares to show: by domain if all phases have one mixture, else by phase."""

    mixture: Mixture
    natural: Mixture
    epochs: Mapping[str, float] | None

    @classmethod
    def of(cls, answer: Proposal | Recommendation) -> Self:
        """Return the shares of an answer."""
        phases = answer.phases
        epochs = answer.epochs
        if phases is None:
            return cls(answer.mixture, answer.natural, epochs)
        first, *later = phases.split(answer.mixture).values()
        if any(first.total_variation(shares) > SAME for shares in later):
            return cls(answer.mixture, answer.natural, epochs)
        if epochs is not None:
            epochs = {name: sum(epochs[f"{phase}/{name}"] for phase in phases) for name in first}
        natural, *_ = phases.split(answer.natural).values()  # the same in every phase
        return cls(first, natural, epochs)


def _moves(answer: Proposal | Recommendation) -> str:
    """Return a sentence on the domains that gain and lose most against the natural mixture."""
    mixture = answer.mixture
    natural = answer.natural
    if answer.phases is not None:
        mixture = answer.phases.whole(mixture)
        natural = answer.phases.whole(natural)
    gained = {name: weight - natural[name] for name, weight in mixture.items()}
    lost = {name: -change for name, change in gained.items()}
    parts = []
    if increased := _most_moved(gained):
        parts.append(f"more {increased}")
    if decreased := _most_moved(lost):
        parts.append(f"less {decreased}")
    return f": {', '.join(parts)} than natural" if parts else ""


def _most_moved(moved: Mapping[str, float]) -> str:
    """Return the names of the domains with the largest values, joined; empty if all are small."""
    names = [name for name, change in moved.items() if change >= MIN_MOVE]
    names.sort(key=lambda name: -moved[name])
    return " and ".join(names[:MAX_NAMED])


def first_screen(run: Run, answer: PageAnswer) -> Markup:
    """Return the first section of the page, with its only `h1`."""
    tokens = run.config.propose.target_tokens
    unit = run.objective.value_unit
    is_validated = answer.called == "recommended"
    epochs_of = ""
    if tokens and answer.epochs:
        epochs_of = f" (epochs in {short_count(tokens)})"
    losses = []
    for name, gain in list(answer.other_losses.items())[:MAX_LOSSES]:
        label, _ = called_loss(name, run.objective.items)
        losses.append((label, gain))
    return template(
        "answer.html",
        answer=answer,
        tone=TONES.get(answer.label.lower(), "" if is_validated else "bad"),
        does="Maximises" if unit in HIGHER_UNITS else "Minimises",
        objective=run.objective.describe(),
        epochs_of=epochs_of,
        domains=[_mixture_row(answer, name, [name]) for name in _by_change(answer)],
        longest=max(*answer.mixture.values(), *answer.natural.values()),
        groups=_groups(run, answer),
        unit=unit,
        loss_unit=UNITS[run.objective.unit],
        is_validated=is_validated,
        others=_others(answer),
        place=_axis(_charted(answer)),
        losses=losses,
        fragments=weight_fragments(run, answer.mixture),
        to_check=_to_check(answer),
        checks=_checks(answer),
    )


def _others(answer: PageAnswer) -> list[tuple[str, Difference, Difference | None]]:
    """Return the gains over all mixtures but the first, each with the predicted one."""
    names = [answer.chosen, *answer.gains]
    others = []
    for name, gain in list(answer.gains.items())[1:]:
        others.append((named(name, names), gain, answer.predicted_gains.get(name)))
    return others


def _to_check(answer: PageAnswer) -> str:
    """Return the numbers of warnings and active constraints in words."""
    counts = []
    if answer.warnings:
        counts.append(_counted(len(answer.warnings), "warning"))
    if answer.limits:
        counts.append(_counted(len(answer.limits), "active constraint"))
    return ", ".join(counts)


def _checks(answer: PageAnswer) -> list[str]:
    """Return the warnings, and the active constraints by their source."""
    checks = [capital(line) for line in answer.warnings]
    limits: dict[str, list[str]] = {}
    for line in answer.limits:
        limit, _, source = line.rpartition(" (")
        limits.setdefault(source, []).append(limit)
    active = [f"{', '.join(texts)} ({source}" for source, texts in limits.items()]
    if active:
        checks.append(f"Active: {'; '.join(active)}")
    return checks


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
    mixture = answer.mixture
    natural = answer.natural
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
    if rest:
        members["in no group"] = rest
    bodies = []
    for name, domains in members.items():
        rows = [_mixture_row(answer, name, domains, count=_counted(len(domains), "domain"))]
        ordered = [domain for domain in _by_change(answer) if domain in domains]
        rows += [_member_row(answer, domain) for domain in ordered]
        bodies.append(rows)
    return sorted(bodies, key=lambda rows: -float(rows[0]["now"]))


def _mixture_row(
    answer: PageAnswer, name: str, domains: Sequence[str], count: str = ""
) -> dict[str, Any]:
    now = sum(answer.mixture[domain] for domain in domains)
    was = sum(answer.natural[domain] for domain in domains)
    epochs = ""
    if answer.epochs is not None and not count:
        passes = answer.epochs[name]
        epochs = "<0.01" if 0 < passes < 0.005 else f"{passes:.2f}"
    return {
        "name": name,
        "count": count,
        "is_member": False,
        "now": now,
        "was": was,
        "epochs": epochs,
        "moved": f"{round(100 * (now - was), 1) + 0.0:+.1f}",  # never -0.0
    }


def _member_row(answer: PageAnswer, domain: str) -> dict[str, Any]:
    """Return the row of a domain within its group."""
    return _mixture_row(answer, domain, [domain]) | {"is_member": True}


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
