"""The proxy interface: train on mixtures and report losses.

A proxy trains many trials at once, because one small model at a time wastes a machine. All
randomness of a trial comes from its own seed, so that its losses do not depend, up to rounding, on
the trials beside it.

A proxy that limits its domains to pools for `Training.target_tokens`
(mixopt.loading.simulated_epochs) declares `simulates_epochs = True`. Pools are shares of
`Training.inventory`, if given. A proxy may report its cost before there is a corpus:
`parameters(vocab_size) -> int`, `flops_per_token(vocab_size) -> float`, from which `mixopt check`
estimates its speed on a CPU, and `tokens_per_second(vocab_size, training) -> float` of one worker.
It may have `rehearse(corpus, training, report) -> None`, which a sweep calls once in a worker
before `group_size`; the sweep ends with what it raises. A proxy that can train a trial in parts
(`Training.part`) declares `resumes = True`; `sweep.stop` needs it.

A proxy whose trials start from a checkpoint takes the options `start` (`proxy.from`) and
`start_hash`, and refuses to train if the hash of the checkpoint differs. It has `start_hash() ->
str`, and may have `base_losses(corpus, training) -> Losses`, the losses of the checkpoint before
any step, and `check_tokenizer(name) -> None`, which raises if a corpus with that tokenizer would
have other tokens than the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mixopt.corpus import Corpus
from mixopt.system import build_plugin
from mixopt.trials import Trial, TrialResult

Doing = Literal["starting", "compiling", "training", "evaluating"]


@dataclass(frozen=True)
class Progress:
    """Progress of a group of trials.

    Attributes:
        done: Training tokens of all members so far.
        total: Training tokens of all members in total.
        doing: Present activity.
    """

    done: int
    total: int
    doing: Doing = "training"


@dataclass(frozen=True)
class Training:
    """Settings shared by all trials of a sweep.

    Attributes:
        tokens: Training tokens of one trial.
        eval_every: Tokens between evaluations; 0 evaluates at the end only.
        eval_tokens: Maximum held-out tokens of each evaluation domain.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`.
        threads: Threads of one worker; 0: the library's default.
        target_tokens: Length of the full run in tokens; each domain is repeated as often as there.
            None: no pools.
        inventory: Distinct tokens of each whole domain if the corpus is a sample, for
            `target_tokens` and for trainers whose unit is epochs; None if the corpus is complete.
        files: Folder in which a proxy may save a folder of files for each trial, by its name; it
            need not exist yet. None: no files.
        curve_points: Number of evaluations before the end, at equal distances on a small sample of
            the held-out text; 0 with `eval_every`. A proxy may ignore it.
        phases: Share of tokens of each phase, by name in order, if trials have phases: mixtures are
            then of cells `<phase>/<domain>` (mixopt.mixture.Phases).
        part: Shares of the tokens at which this part of the training begins and ends. Before 1.0 it
            ends with an evaluation and with the state of each trial saved in its folder of
            `files`; after 0.0 it begins with that state. The parts of a trial give the losses of
            the whole; the folder is deleted when the round ends.
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
    part: tuple[float, float] = (0.0, 1.0)


class Proxy(Protocol):
    """A proxy, created from the options under `proxy:` in the configuration."""

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return the number of trials to train together, >= 1."""
        ...

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train trials together; return their results in order.

        Args:
            trials: The trials of one group.
            corpus: Token shards by domain.
            training: Settings shared by all trials.
            report: Called with the progress of the group at least once in `sweep.patience`, after
                which a silent worker is killed.

        Returns:
            One result for each trial. A trial that diverges has the status `diverged` and does not
            disturb the others.
        """
        ...


def make_proxy(name: str, options: dict[str, Any]) -> Proxy:
    """Load a proxy by name and create it with options."""
    proxy: Proxy = build_plugin("proxy", name, options)
    return proxy
