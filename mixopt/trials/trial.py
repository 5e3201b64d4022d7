"""A trial: one proxy model to train on one mixture, and its losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mixopt.mixture import Mixture

if TYPE_CHECKING:
    from mixopt.routing import ExpertCounts

Status = Literal["finished", "stopped", "diverged", "failed"]
Role = Literal[
    "axial", "sampled", "chosen", "anchor", "replicate", "validation", "control", "anneal"
]


@dataclass(frozen=True)
class Trial:
    """One proxy model to train on one mixture.

    Attributes:
        name: Name of the trial and of its file.
        mixture: Shares of the training tokens; in designs with phases, of cells `<phase>/<domain>`.
        seed: Seed of everything random in the trial, from 0 to 2^63 - 1.
        role: Role in the design.
        round: Round that chose it, from 0.
    """

    name: str
    mixture: Mixture
    seed: int
    role: Role = "sampled"
    round: int = 0


@dataclass(frozen=True)
class Losses:
    """Held-out losses at one point of training, and metrics of tasks.

    Attributes:
        tokens: Training tokens so far.
        nats_per_token: Loss by evaluation domain.
        bits_per_byte: Loss by evaluation domain.
        tasks: Metrics of the corpus's tasks (`Corpus.tasks`), by `task/<name>/<metric>`; empty if
            the proxy does not score tasks.
    """

    tokens: int
    nats_per_token: dict[str, float]
    bits_per_byte: dict[str, float]
    tasks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial; a failed or diverged one has a reason and no losses.

    A stopped one has trained to `sweep.stop.at` only.

    Attributes:
        trial: Name of the trial.
        status: Whether it finished.
        tokens: Training tokens.
        parameters: Parameters of the model.
        seconds: Training time: its part of its group's.
        losses: Losses at the end of its training, or None.
        curve: Losses before the end, in order.
        reason: Why it did not finish, in one line.
        experts: Expert assignments of a mixture-of-experts proxy; else None.
    """

    trial: str
    status: Status
    tokens: int
    parameters: int
    seconds: float
    losses: Losses | None = None
    curve: tuple[Losses, ...] = ()
    reason: str | None = None
    experts: ExpertCounts | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it failed or diverged, and can be trained again."""
        return self.status in ("failed", "diverged")
