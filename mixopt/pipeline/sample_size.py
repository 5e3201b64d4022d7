"""Is the prepared sample large enough for what the proxy reads of it?

A trial of T tokens at a weight w reads w x T tokens of a domain. Where that is more than what was
prepared, the trial repeats its sample, while the full run may meet fresh text all along, and then
the losses say what repetition costs that nobody will pay. With simulated epochs a trial reads a
pool, a share of the whole domain, and a sample that is smaller than its pool is repeated too often.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixopt.fitting import OFTEN

if TYPE_CHECKING:
    from mixopt.config import Config
    from mixopt.constraints import Constraints
    from mixopt.mixture import Mixture
    from mixopt.run_directory import Run

_SHOWN = 5  # domains that a line names


@dataclass(frozen=True)
class Shortage:
    """A domain of whose sample a trial may read too much.

    Attributes:
        domain: The domain.
        weight: The largest that the design allows.
        epochs: How often a trial of that weight goes through the sample.
        full_epochs: How often the full run would, at that weight; None where its length or the
            whole domain's size is not known.
        needed: Tokens to prepare for a trial not to repeat more than the full run.
    """

    domain: str
    weight: float
    epochs: float
    full_epochs: float | None
    needed: int

    @property
    def text(self) -> str:
        """The domain in short: `web 7.3 times at a weight of 1 (12.0M tokens needed)`."""
        from mixopt.system import short_count

        return (
            f"{self.domain} {self.epochs:.1f} times at a weight of {self.weight:.2g}"
            f" ({short_count(self.needed)} tokens needed)"
        )


def shortages(
    config: Config,
    sample: dict[str, int],
    inventory: dict[str, int],
    most: Mixture | dict[str, float],
) -> list[Shortage]:
    """Return the domains whose sample is too small, the most repeated first.

    Args:
        config: The experiment.
        sample: Tokens that were prepared, or will be, by domain.
        inventory: Tokens of the whole domains.
        most: Largest weight of each domain in the design.
    """
    corpus = config.corpus
    here = [n for n in sample if corpus.prepared is not None or corpus.domains[n].has_text]
    found = [one for name in here for one in _short(config, name, sample, inventory, most[name])]
    return sorted(found, key=lambda one: -one.epochs)


def say_shortages(found: list[Shortage]) -> str | None:
    """Name the samples that are too small in one line; None if there are none."""
    if not found:
        return None
    named = ", ".join(one.text for one in found[:_SHOWN])
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        f"the prepared text is small for proxy.tokens: a trial may repeat {named}{more}, more often"
        " than the full run; prepare more text, lower proxy.tokens, or cap these domains in"
        " design.max_weights"
    )


def run_shortages(run: Run) -> list[Shortage]:
    """Return the domains of a prepared run whose sample is too small."""
    most = largest_weights(run.config, run.natural, run.constraints)
    return shortages(run.config, run.corpus.inventory, run.inventory, most)


def largest_weights(config: Config, natural: Mixture, constraints: Constraints) -> dict[str, float]:
    """Return the largest weight of each domain that a design may have."""
    from mixopt.trials import anneal_mixtures, design_constraints

    design = config.design
    if design.anneals is not None and len(design.planned_rounds) == 1:
        tried = [mixture for _, mixture in anneal_mixtures(design.anneals, natural)]
        return {name: max(mixture[name] for mixture in tried) for name in natural}
    allowed = design_constraints(design, natural, constraints)
    return dict(zip(allowed.domains, allowed.upper_D.tolist(), strict=True))


def _short(
    config: Config, name: str, sample: dict[str, int], inventory: dict[str, int], weight: float
) -> Iterator[Shortage]:
    tokens, target = config.proxy.tokens, config.propose.target_tokens
    epochs = weight * tokens / sample[name]
    full = None if target is None else weight * target / inventory[name]
    if config.proxy.simulate_epochs and target is not None:
        needed = min(inventory[name] * min(tokens / target, 1.0), weight * tokens)
        too_often = needed > 1.01 * sample[name]  # rounding to whole steps moves it by less
    else:
        needed = weight * tokens / max(full or 0.0, 1.0)
        too_often = epochs > OFTEN and needed > 1.01 * sample[name]
    if too_often:
        yield Shortage(name, weight, epochs, full, round(needed))
