"""Train what first_trials.py compares, once, and keep losses and per-token losses in files.

Shapes: K members, W windows, T tokens of a window, M evaluation domains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from first_trials_plan import case_of
from mixopt_proxies.decoder import (
    Decoder,
    DecoderSize,
    HeldOutTasks,
    HeldOutWindows,
    Passes,
    StackTrainer,
    TrialBatches,
    dense_losses,
    make_size,
    resolve_precision,
)
from research_text import say
from torch import Tensor

from mixopt.corpus import Corpus
from mixopt.system import write_json
from mixopt.trials import Losses, Trial

BATCH = 8
MEMBERS = 8
ByToken = Callable[[dict[str, Tensor], Tensor], Tensor]


class TokenLosses(HeldOutWindows):
    """Held-out losses, of which those of single tokens are kept."""

    def __init__(self, corpus: Corpus, size: DecoderSize, windows: int, by_token: ByToken) -> None:
        """Read some windows of each evaluation domain."""
        super().__init__(corpus, size, windows * size.sequence_length + 1, torch.device("cpu"))
        self._by_token = by_token
        self.kept_KMWT: list[list[np.ndarray]] = []
        self.leaves: dict[str, Tensor] = {}

    def losses(
        self, sequence_losses: Callable[[Tensor], Tensor], members: int, tokens: int
    ) -> list[Losses]:
        """Return each member's losses, and keep those of all tokens."""
        with torch.no_grad():
            parts = [self._by_token(self.leaves, rows) for rows in self._batches(members)]
        loss_KWT = torch.cat(parts, 1)[:, : len(self._rows_W)]
        parts_KWT = loss_KWT.split(self.counts, 1)
        self.kept_KMWT = [[part[k].half().numpy() for part in parts_KWT] for k in range(members)]
        loss_MK = [part.double().mean((1, 2)).tolist() for part in parts_KWT]
        return [self._of_member(list(loss_M), tokens) for loss_M in zip(*loss_MK, strict=True)]


def by_token(size: DecoderSize, dtype: torch.dtype) -> ByToken:
    """Return what computes the loss of every token, shape (K, B, T), compiled."""
    decoder = Decoder(size, device=torch.device("cpu"), dtype=dtype)

    def losses(leaves: dict[str, Tensor], tokens_KBW: Tensor) -> Tensor:
        hidden, _ = decoder.hidden(leaves, tokens_KBW)
        losses_KN = dense_losses(hidden, leaves["head"], tokens_KBW[..., 1:].flatten(1))
        return losses_KN.view(tokens_KBW[..., 1:].shape)

    return torch.compile(losses, dynamic=False)


def train_all(trials: Sequence[Trial], corpus: Corpus, out: Path) -> None:
    """Train what has no file yet, some trials together."""
    missing = [trial for trial in trials if not (out / f"{trial.name}.json").exists()]
    size, device = make_size("tiny", batch=BATCH), torch.device("cpu")
    dtype = resolve_precision("auto", device)
    compiled = by_token(size, dtype)
    passes: dict[int, Passes] = {}
    torch.set_num_threads(1)
    while missing:
        alike = [one for one in missing if case_of(one).steps == case_of(missing[0]).steps]
        group, started = alike[:MEMBERS], time.process_time()
        missing = [one for one in missing if one not in group]
        vocabulary, members = corpus.vocab_size, len(group)
        if members not in passes:
            passes[members] = Passes(size, vocabulary, device=device, dtype=dtype, compiled=True)
        held_out = TokenLosses(corpus, size, case_of(group[0]).windows, compiled)
        _train(group, corpus, passes[members], held_out, out)
        spent = (time.process_time() - started) / members
        say(f"{group[-1].name}: {spent:.1f} s of CPU a trial, {len(missing)} trials are left")


def _train(
    group: Sequence[Trial], corpus: Corpus, passes: Passes, held_out: TokenLosses, out: Path
) -> None:
    size, device, steps = passes.size, torch.device("cpu"), case_of(group[0]).steps
    dtype = resolve_precision("auto", device)
    batches = TrialBatches(
        group, corpus, steps=steps, batch=size.batch, length=size.sequence_length
    )
    trainer = StackTrainer(
        group, corpus.vocab_size, passes, steps=steps, device=device, dtype=dtype
    )
    held_out.leaves = trainer.weights.leaves
    tasks = HeldOutTasks(corpus, size, device)
    course = trainer.run(batches, held_out, tasks, set(), lambda progress: None)
    for trial, losses, kept in zip(group, course.curve[-1], held_out.kept_KMWT, strict=True):
        if "axial" in trial.name:
            arrays = dict(zip(corpus.evaluation_names, kept, strict=True))
            np.savez(out / f"{trial.name}.npz", **arrays)
        weights = dict(trial.mixture.items())
        write_json(
            out / f"{trial.name}.json", {"weights": weights, "losses": losses.nats_per_token}
        )
