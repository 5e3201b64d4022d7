"""The loop: batches, steps, the mixture, evaluations, checkpoints, until the end or a signal.

Whatever happens after a step happens in one order on every rank: the mixture's driver, evaluation,
metrics, checkpoint. So a checkpoint holds all that came of its steps, and a run that resumes from
it writes what an undisturbed one would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mixopt.errors import OtherRankError, RunError, SamplerError
from mixopt.online import MIXTURE_LOG, HeldOut
from mixopt.pretraining.assembly import Parts
from mixopt.pretraining.checkpoint_files import CheckpointState
from mixopt.pretraining.checkpoint_folder import Beside
from mixopt.pretraining.checkpoints import Checkpoints
from mixopt.pretraining.directory import METRICS
from mixopt.pretraining.expert_watch import STATE as EXPERTS_STATE
from mixopt.pretraining.interruption import Interruption
from mixopt.pretraining.metrics import held_out_line, shares
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.training_step import StepOutcome
from mixopt.sampling import check_ranks
from mixopt.system import StateFields, no_progress, progress


class Loop:
    """A run between its checkpoints, on one rank."""

    def __init__(self, parts: Parts, out: Path, ranks: Ranks, checkpoints: Checkpoints) -> None:
        """Take the parts; `begin` or `resume` comes next.

        Args:
            parts: What the run is made of.
            out: The run directory.
            ranks: This rank and the others.
            checkpoints: Those of the run.
        """
        self._parts, self._ranks = parts, ranks
        self._config, self._checkpoints = parts.config, checkpoints
        self._beside = [out / METRICS, out / MIXTURE_LOG]
        self._step, self._losses = 0, dict[str, float]()

    def begin(self) -> None:
        """Begin before the first step; metrics of a run that came to no checkpoint go."""
        self._parts.metrics.cut(0)
        if self._parts.experts is not None:
            self._parts.experts.begin()

    def resume(self, path: Path, state: CheckpointState) -> None:
        """Resume from a checkpoint that is whole.

        Args:
            path: Its folder.
            state: What it holds besides tensors.

        Raises:
            RunError: It has other domains and there is no `map_domains`, or a state in it cannot
                be right.
            SamplerError: It is of other batches or another seed.
            EstimatorError: The estimator cannot resume from it.
        """
        self._ranks.each(lambda: self._resume_stream(path, state))
        self._parts.mixture.load_state_dict(state.mixture)
        if (experts := self._parts.experts) is not None:
            self._ranks.each(lambda: experts.resume(path, state.step))
        self._checkpoints.load(path, self._parts.model.plain, self._parts.optimizer)
        self._ranks.each(lambda: self._parts.metrics.cut(state.metrics_size))
        self._ranks.each(lambda: self._parts.meter.load_state_dict(state.meter))
        self._step, self._losses = state.step, dict(state.losses)

    @property
    def step(self) -> int:
        """Steps taken."""
        return self._step

    @property
    def is_finished(self) -> bool:
        """Whether all steps are taken."""
        return self._step >= self._config.training.steps

    def run(self, interruption: Interruption) -> None:
        """Take the steps that are left, or those until a rank is asked to stop.

        Raises:
            RunError: More steps were skipped than `training.max_skipped`, or a file cannot be
                written.
        """
        parts, steps = self._parts, self._config.training.steps
        self._check_ranks()
        parts.mixture.start()
        with self._progress(steps) as update, self._own_randomness():
            for batch in parts.loader:
                weights = self._mixture()
                outcome = parts.step.take(
                    self._step,
                    batch,
                    stop=interruption.asked,
                    failed=self._checkpoints.has_failed,
                )
                self._step += 1
                if outcome.failed:
                    self._checkpoints.wait()
                self._observe(outcome)
                with parts.meter.paused():
                    self._evaluate()
                    if parts.experts is not None:
                        parts.experts.step(self._step)
                self._write_metrics(outcome, weights, update)
                if self._is_due(self._config.checkpoint.every) or outcome.stopping:
                    with parts.meter.paused():
                        self._save()
                if outcome.stopping or self.is_finished:
                    self._checkpoints.wait()
                if outcome.stopping:
                    return

    def _observe(self, outcome: StepOutcome) -> None:
        """Tell mixture and meter of a step; one that was skipped has no losses."""
        self._parts.held_out.forget()
        self._parts.meter.add(outcome)
        for losses, domain in outcome.parts:
            mask = torch.zeros_like(losses, dtype=torch.bool) if outcome.skipped else None
            self._parts.mixture.record(losses, domain, mask)
        self._parts.mixture.step(learning_rate=outcome.learning_rate)
        skipped, most = self._parts.meter.skipped, self._config.training.max_skipped
        if skipped > most:
            self._ranks.fail(
                f"step {self._step}: the loss or the gradient was not finite in {skipped} steps,"
                f" more than training.max_skipped: {most}; the weights are those before such steps:"
                " lower training.lr, or look at the data"
            )

    def _evaluate(self) -> None:
        if not self._is_due(self._config.held_out.every):
            return
        held_out = self._parts.held_out
        with self._evaluated_weights():
            found = held_out.losses()
        if isinstance(found, HeldOut):
            self._losses = dict(zip(held_out.names, found.losses_M.tolist(), strict=True))
            line = held_out_line(self._step, held_out.names, found, held_out.bits_M)
            self._parts.metrics.write(line)
        else:
            self._losses = {}
            self._parts.metrics.write({"step": self._step, "trouble": found})

    @contextmanager
    def _evaluated_weights(self) -> Iterator[None]:
        """Have held-out text evaluated with the average of the weights, where that is asked for."""
        averaged, held_out = self._parts.averaged, self._parts.held_out
        if averaged is None or not self._config.held_out.ema:
            yield
            return
        held_out.forget()
        with averaged.in_use():
            yield
        held_out.forget()

    def _write_metrics(
        self, outcome: StepOutcome, weights: Mapping[str, float], update: Any
    ) -> None:
        if not self._is_due(self._config.metrics.every):
            return
        line = self._parts.meter.line(self._step, outcome, weights)
        self._parts.metrics.write(line)
        loss = line.get("loss", math.nan)
        update(self._step, f"loss {loss:.4g}, {line['tokens_per_second']:,.0f} tokens/s")

    def _save(self) -> None:
        parts = self._parts
        self._check_ranks()
        state = {
            "meter": parts.meter.state_dict(),
            "losses": self._losses,
            "weights": shares(self._mixture()),
            "sampler": parts.loader.state_dict(),
            "mixture": parts.mixture.state_dict(),
            "metrics_size": parts.metrics.size,
        }
        files, paths = dict[str, bytes](), self._beside
        if parts.experts is not None:
            files[EXPERTS_STATE] = parts.experts.state()
            paths = [*paths, *parts.experts.record.beside]
        beside = Beside(self._step, state, files, paths)
        self._checkpoints.save(parts.model.plain, parts.optimizer, beside)

    def _mixture(self) -> Mapping[str, float]:
        """Return the mixture of the next step."""
        return self._parts.sampler.mixture_at(self._step)

    def _is_due(self, every: int) -> bool:
        return self.is_finished or (every > 0 and self._step % every == 0)

    def _check_ranks(self) -> None:
        """Check that ranks have one order of samples; rank 0 reports where they differ."""
        try:
            check_ranks(self._parts.sampler)
        except SamplerError as error:
            raise (error if self._ranks.is_first else OtherRankError(str(error))) from error

    def _resume_stream(self, path: Path, state: CheckpointState) -> None:
        saved = state.sampler
        fields = StateFields(saved, f"{path}: sampler", RunError)
        here, names = self._parts.sampler.sizes, fields.texts("domains")
        before = dict(zip(names, fields.wholes("sizes", len(names)), strict=True))
        mapped = self._config.map_domains if before != here else None
        if before != here and mapped is None:
            raise RunError(
                f"{path}: {_changes(before, here)}; to resume with other domains, give "
                "map_domains, names there to names here or null"
            )
        self._parts.loader.load_state_dict(saved, map_domains=mapped)

    @contextmanager
    def _progress(self, steps: int) -> Iterator[Any]:
        if self._ranks.is_first:
            with progress("pretrain", steps) as update:
                yield update
        else:
            yield no_progress

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Leave torch's generators as they were."""
        device = self._ranks.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield


def _changes(before: Mapping[str, int], here: Mapping[str, int]) -> str:
    gone = [
        f"it has {name!r}, which the corpus does not have" for name in before if name not in here
    ]
    new = [f"it has no {name!r}" for name in here if name not in before]
    grown = [
        f"{name!r} had {rows:,} rows and has {here[name]:,}"
        for name, rows in before.items()
        if here.get(name, rows) != rows
    ]
    return "; ".join(gone + new + grown) or "its domains are in another order"
