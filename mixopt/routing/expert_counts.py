"""What the experts of a proxy were given: in training, and for held-out text.

Load is that of training, as it depends on the mixture. What compares domains or mixtures is
measured on held-out text, of which each domain has as much, whatever was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixopt.routing.assignments import Assignments

if TYPE_CHECKING:
    from mixopt.routing.probe_result import ProbeResult


@dataclass(frozen=True)
class LayerInformation:
    """How much a layer's experts say about the domain, on held-out text.

    Attributes:
        layer: The model's own number of the layer.
        information: Mutual information of expert and domain, nats.
        chance: Its mean where the sequences' domains are shuffled.
        corrected: Information less chance; about 0 where the domains are alike.
        specialisation: That over the entropy of the domains: 1 where the expert tells the domain.
            None where there is one domain alone.
    """

    layer: int
    information: float
    chance: float
    corrected: float
    specialisation: float | None


@dataclass(frozen=True, eq=False)
class ExpertCounts:
    """What the experts of one trial were given; domains are those of training, by their names.

    Attributes:
        train: What was assigned in the second half of the steps, when experts have found their
            place, of the domains in the proportions of the mixture.
        held_out: What is assigned at the end, of as many held-out tokens of each domain.
        information: What `held_out` says about domains, of each layer.
    """

    train: Assignments
    held_out: Assignments
    information: tuple[LayerInformation, ...]


def layer_information(probe: ProbeResult) -> tuple[LayerInformation, ...]:
    """Return what the experts say about the domains of a probe's sequences, layer by layer."""
    columns = ("layer", "information", "chance", "corrected", "specialisation")
    return tuple(LayerInformation(*row) for row in probe.specialisation().select(columns).rows())
