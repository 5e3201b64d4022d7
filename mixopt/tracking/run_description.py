"""A parent run in words: tags to filter by, and the description that MLflow shows first.

The description is Markdown: the recommendation in one sentence, the weights beside natural, the
gains with their intervals. Names come from the user's text, so that none of them is markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mixopt.run_directory import PROPOSE, VALIDATE, Run
from mixopt.system import difference_text, share_text
from mixopt.tracking.keys import NOTE

if TYPE_CHECKING:
    from mixopt.proposals import Interval, Proposal, Recommendation

LONGEST = 4_800  # characters; MLflow's limit of a tag is 8000 bytes
MOST_ROWS = 30
MOST_WEIGHTS = 12  # in the tag


def description_tags(run: Run) -> dict[str, str]:
    """Return the tags of what is known of a run; none before there is a proposal."""
    if run.is_done(VALIDATE.name):
        found = run.recommendation
        return {
            "mixopt.recommended": found.chosen,
            "mixopt.standing": found.standing,
            "mixopt.weights": weights_line(found.mixture),
            NOTE: _cut(_recommended(found)),
        }
    if run.is_done(PROPOSE.name):
        proposal = run.proposal
        return {
            "mixopt.recommended": "not validated yet",
            "mixopt.weights": weights_line(proposal.mixture),
            NOTE: _cut(_proposed(proposal)),
        }
    return {}


def weights_line(mixture: Mapping[str, float]) -> str:
    """Return the largest weights in one line."""
    ranked = sorted(mixture.items(), key=lambda entry: -entry[1])
    shown = ", ".join(f"{name} {share_text(share)}" for name, share in ranked[:MOST_WEIGHTS])
    more = len(ranked) - MOST_WEIGHTS
    return f"{shown}, and {more} more" if more > 0 else shown


def _recommended(found: Recommendation) -> Iterator[str]:
    yield f"**{_plain(found.headline)}**"
    yield ""
    yield from _weights_table("recommended", found.mixture, found.natural)
    if found.gains:
        yield ""
        yield f"Gain over other mixtures in {_plain(found.unit)}; above 0 is better."
        yield ""
        yield "| over | validated | 95% interval | predicted | verdict |"
        yield "|---|---:|---:|---:|---|"
        for name, gain in found.gains.items():
            predicted = "" if gain.predicted is None else difference_text(gain.predicted.value)
            yield (
                f"| {_plain(name)} | {difference_text(gain.validated.value)} |"
                f" {_interval(gain.validated)} | {predicted} | {_plain(gain.verdict)} |"
            )
    for warning in found.warnings:
        yield ""
        yield f"Note: {_plain(warning)}"


def _proposed(proposal: Proposal) -> Iterator[str]:
    yield "**Proposal, not validated yet.**"
    yield ""
    yield from _weights_table("proposed", proposal.mixture, proposal.natural)
    yield ""
    yield f"Predicted gain over other mixtures in {_plain(proposal.unit)}; above 0 is better."
    yield ""
    yield "| over | predicted | 90% interval |"
    yield "|---|---:|---:|"
    for name, gain in proposal.gains.items():
        yield f"| {_plain(name)} | {difference_text(gain.value)} | {_interval(gain)} |"


def _weights_table(
    title: str, mixture: Mapping[str, float], natural: Mapping[str, float]
) -> Iterator[str]:
    """Yield the table of weights, those that change most first."""
    yield f"| domain | natural | {title} |"
    yield "|---|---:|---:|"
    names = sorted(mixture, key=lambda name: -abs(mixture[name] - natural[name]))
    for name in names[:MOST_ROWS]:
        shares = (share_text(natural[name]), share_text(mixture[name]))
        yield f"| {_plain(name)} | {shares[0]} | **{shares[1]}** |"
    if len(names) > MOST_ROWS:
        yield f"| and {len(names) - MOST_ROWS} more | | |"


def _interval(gain: Interval) -> str:
    return f"{difference_text(gain.low)} to {difference_text(gain.high)}"


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#|~!])", r"\\\1", " ".join(text.split()))


def _cut(lines: Iterator[str]) -> str:
    """Join the lines that fit into a tag."""
    kept: Sequence[str] = []
    for line in lines:
        if len("\n".join([*kept, line]).encode()) > LONGEST:
            return "\n".join([*kept, "", "More is in report.html among the artifacts."])
        kept = [*kept, line]
    return "\n".join(kept)
