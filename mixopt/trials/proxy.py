"""The contract of a proxy: it trains on mixtures and reports the losses.

A proxy takes many trials at once, because small models waste a machine one at a time.
Everything random about a trial comes from the trial's own seed, so its losses do not
depend on what it was trained beside, to rounding.

A proxy that cuts its domains to pools where `Training.target_tokens` asks for it
(mixopt.loading.simulated_epochs) declares it by an attribute `simulates_epochs = True`; of another
one, nobody may ask it. A proxy may also say what a trial costs, before there is a corpus:
`parameters(vocab_size) -> int`, `flops_per_token(vocab_size) -> float`, from which `mixopt check`
estimates its speed on a CPU, and `tokens_per_second(vocab_size, training) -> float` of one worker.
A sweep of one that says `begins_short = True` trains one short trial before the others, and stops
if it fails. Pools are shares of `Training.inventory`, where that is given.

A proxy whose trials begin with a checkpoint takes an option `start`, which `proxy.from` is, and
`start_hash`, which it refuses to train without where it is another one. It has `start_hash() ->
str` of what `start` names, and may have `base_losses(corpus, training) -> Losses`, those of the
checkpoint before any step on what trials are evaluated on, and `check_tokenizer(name) -> None`,
which raises where a corpus of that tokenizer would have other tokens than the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mixopt.corpus import Corpus
from mixopt.mixture import Mixture

if TYPE_CHECKING:
    from mixopt.corpus import Domain
    from mixopt.routing import ExpertCounts


def bits_per_nat(domains: Sequence[Domain]) -> dict[str, float] | None:
    """Return bits per byte for one nat per token of each domain: tokens / bytes / ln 2."""
    shards = {domain.name: domain.validation for domain in domains}
    if not all(held.bytes and held.tokens for held in shards.values()):
        return None
    return {name: held.tokens / held.bytes / math.log(2) for name, held in shards.items()}


def in_bits_per_byte(nats: Mapping[str, float], domains: Sequence[Domain]) -> dict[str, float]:
    """Return losses in bits per byte; none where the bytes of one domain are not known."""
    rates = bits_per_nat(domains)
    return {} if rates is None else {name: loss * rates[name] for name, loss in nats.items()}


Status = Literal["finished", "diverged", "failed"]
Doing = Literal["starting", "compiling", "training", "evaluating"]
Role = Literal[
    "axial", "sampled", "chosen", "anchor", "replicate", "validation", "control", "anneal"
]


@dataclass(frozen=True)
class Trial:
    """One proxy to train on one mixture.

    Attributes:
        name: Its name, a file's too.
        mixture: Shares of the training tokens; of trials by phase, of cells `<phase>/<domain>`.
        seed: Of all that is random about it, from 0 to 2^63 - 1.
        role: Why it is in the design.
        round: The round that chose it, from 0.
    """

    name: str
    mixture: Mixture
    seed: int
    role: Role = "sampled"
    round: int = 0


@dataclass(frozen=True)
class Losses:
    """Held-out losses at one moment of training, by evaluation domain, and metrics of tasks.

    Attributes:
        tokens: Training tokens so far.
        nats_per_token: By evaluation domain.
        bits_per_byte: By evaluation domain.
        tasks: What the corpus's tasks (`Corpus.tasks`) measure, by `task/<name>/<metric>`; empty of
            a proxy that scores none.
    """

    tokens: int
    nats_per_token: dict[str, float]
    bits_per_byte: dict[str, float]
    tasks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialResult:
    """The outcome of a trial; a failed or diverged one has a reason and no losses.

    Attributes:
        trial: Name of the trial.
        status: Whether it finished.
        tokens: Training tokens.
        parameters: Of the model.
        seconds: That it trained, its part of its group's.
        losses: At the end; None without.
        curve: Before the end, in order.
        reason: Why it did not finish, in a line.
        experts: What the experts of a mixture-of-experts proxy were given; None of another.
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


@dataclass(frozen=True)
class Progress:
    """How far a group of trials has come.

    Attributes:
        done: Training tokens of all members so far.
        total: Of all that they will train on.
        doing: What the group is at.
    """

    done: int
    total: int
    doing: Doing = "training"


@dataclass(frozen=True)
class Training:
    """Settings shared by all trials of a sweep.

    Attributes:
        tokens: Training tokens of one trial.
        eval_every: Tokens between held-out losses; 0 for the end alone.
        eval_tokens: Held-out tokens used maximum for each evaluation domain.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`.
        threads: Threads of one worker; 0 leaves it to the library.
        target_tokens: Length of the full run; each domain is repeated as often as there. None
            draws from all that a domain has.
        inventory: With `target_tokens`, and for a trainer whose unit is epochs, distinct tokens of
            each whole domain, where the corpus is a sample of them; None where it is everything.
        files: A folder where a proxy may keep a folder of files for each trial, by its name; it
            need not exist yet. None where there is no such place.
        curve_points: Held-out losses before the end, at equal distances and on a sample of the
            held-out text, so that they cost next to nothing; 0 with `eval_every`. A proxy that
            cannot is free to leave them out.
        phases: Share of the tokens of each phase, by name and in order, where trials have phases:
            a trial's mixture is then of cells `<phase>/<domain>` (mixopt.mixture.Phases).
    """

    tokens: int
    eval_every: int = 0
    eval_tokens: int = 65_536
    device: str = "auto"
    threads: int = 1
    target_tokens: int | None = None
    inventory: dict[str, int] | None = None
    files: str | None = None
    curve_points: int = 0
    phases: dict[str, float] | None = None


class Proxy(Protocol):
    """A proxy: made from the options under `proxy:` in the configuration, then asked to train."""

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return how many trials to train together, measured or known; >= 1."""
        ...

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials together and return a result for each, in their order.

        Args:
            trials: The members of one group.
            corpus: Token shards by domain.
            training: Length and held-out budget, the same for all.
            report: Called with the progress of the group, at least once in `sweep.patience`: a
                worker that reports none for so long is taken to hang.

        Returns:
            One result for each trial. A member that diverges is a result with status
            `diverged` and does not disturb the others.
        """
        ...


def make_proxy(name: str, options: dict[str, Any]) -> Proxy:
    """Load the proxy `name` and build it with `options`."""
    from mixopt.system import build_plugin

    proxy: Proxy = build_plugin("proxy", name, options)
    return proxy
