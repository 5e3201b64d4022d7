"""The training loop: batches, steps, mixture, evaluations, checkpoints, end or signal.

All actions after a step run in one order on every rank, so that a checkpoint contains all results
of its steps.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mixopt.corpus import Corpus, document_ends
from mixopt.errors import MixtureError, RunError, SamplerError
from mixopt.loading import MixtureDataset, MixtureLoader
from mixopt.mixture import Mixture
from mixopt.online import (
    MIXTURE_LOG,
    Driver,
    DriverOptions,
    LineLog,
    MixtureLog,
    is_first,
    make_estimator,
)
from mixopt.pretraining.checkpoints import Checkpoints, CheckpointState, load_training
from mixopt.pretraining.config import MixtureSource, PretrainConfig
from mixopt.pretraining.directory import METRICS, open_text
from mixopt.pretraining.interruption import Interruption
from mixopt.pretraining.metrics import HeldOutText, Meter, peak_flops, shares, watch_of
from mixopt.pretraining.model_start import initial_model, take_checkpoint
from mixopt.pretraining.models import flops_per_token
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.training_step import DocumentMasks, StepOutcome, Trainer
from mixopt.sampling import MixtureSampler, check_ranks
from mixopt.system import no_progress, progress, read_yaml


class PlannedMixture(NamedTuple):
    """A mixture of the plan, from its first step on; `source` is what the log names."""

    first_step: int
    mixture: Mixture
    source: str


class Loop:
    """A run between its checkpoints, on one rank."""

    def __init__(
        self, config: PretrainConfig, out: Path, ranks: Ranks, checkpoints: Checkpoints
    ) -> None:
        """Assemble a run before its first step, on every rank."""
        self._config = config
        self._ranks = ranks
        self._checkpoints = checkpoints
        self.step = 0
        self._losses: dict[str, float] = {}  # last held-out losses
        length = config.training.sequence_length

        def open_start() -> tuple[Corpus, nn.Module, DocumentMasks | None]:
            corpus = open_text(config, out)
            self._planned = _planned_mixtures(config, corpus)
            self._loader = _loader(corpus, config, self._planned, ranks.count)
            model = initial_model(config, corpus.vocab_size, out)
            masks = None
            if config.training.mask_documents:
                masks = DocumentMasks(model, document_ends(corpus), length, corpus.vocab_size)
            return corpus, model, masks

        corpus, model, masks = ranks.each(open_start)
        flops = flops_per_token(model, length)
        self._trainer = Trainer(model, config, ranks, masks)
        self._held_out = HeldOutText(corpus, config, ranks, self._trainer)
        self.experts = ranks.each(
            lambda: watch_of(self._trainer.model, corpus.domain_names, config, out)
        )
        self._driver = ranks.each(lambda: self._make_driver(corpus, out / MIXTURE_LOG))
        if self.experts is not None and is_first() and not self._trainer.balances_experts:
            logging.getLogger("mixopt.pretraining").warning(
                "%s: no auxiliary loss balances its experts, so a few may end up serving all"
                " tokens; check with `mixopt experts`",
                config.model.name,
            )
        self._log = MixtureLog(out / MIXTURE_LOG if is_first() else None)
        peak = (config.metrics.peak_flops or peak_flops(ranks.device)) * ranks.count
        self._meter = Meter(corpus.domain_names, config, flops=flops, peak=peak)
        self._metrics = LineLog(out / METRICS if is_first() else None)

    def begin(self) -> None:
        """Start from step 0; metrics of an attempt without a checkpoint are dropped."""
        trainer = self._trainer
        self._ranks.each(lambda: take_checkpoint(self._config, trainer.model, trainer.optimizer))
        self._metrics.cut(0)
        if self.experts is not None:
            self.experts.resume(None, 0)

    def resume(self, path: Path, state: CheckpointState) -> None:
        """Resume from a verified checkpoint."""

        def resume() -> None:
            try:
                self._loader.load_state_dict(state.sampler)
            except SamplerError as error:
                raise RunError(f"{path}: sampler: {error}") from error
            if self._driver is not None:
                self._driver.load_state_dict(state.mixture)
            if self.experts is not None:
                self.experts.resume(state.experts, state.step)
            # What may fail on one rank is last: the others do not wait for it above.
            load_training(path, self._trainer.model, self._trainer.optimizer)
            self._metrics.cut(state.metrics_size)
            self._meter.load_state_dict(state.meter)

        self._ranks.each(resume)
        self.step = state.step
        self._losses = dict(state.losses)

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self._config.training.steps

    def run(self, interruption: Interruption) -> None:
        """Run the remaining steps, or until a rank is asked to stop."""
        config = self._config
        counting = None if self.experts is None else self.experts.counting
        self._check_ranks()
        if self._driver is not None:
            self._driver.start()
        else:  # planned mixtures are logged up to the present step
            self._log.cut(0)
            self._log_planned(0)
        steps = config.training.steps
        bar = progress("pretrain", steps) if is_first() else nullcontext(no_progress)
        cuda = [self._ranks.device] if self._ranks.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), bar as update:
            for batch in self._loader:
                weights = self._loader.sampler.mixture_at(self.step)
                outcome = self._trainer.step(
                    self.step, batch, counting, stop=interruption.requested
                )
                self.step += 1
                self._observe(outcome)
                with self._meter.paused():
                    self._evaluate()
                if self._is_due(config.metrics.every):
                    line = self._meter.line(self.step, outcome, weights)
                    self._write(line)
                    speed = f"{line['tokens_per_second']:,.0f} tokens/s"
                    update(self.step, f"loss {line.get('loss', math.nan):.4g}, {speed}")
                if self._is_due(config.checkpoint.every) or outcome.stopping:
                    with self._meter.paused():
                        self._save()
                if outcome.stopping:
                    break
        self._checkpoints.wait()

    def _evaluate(self) -> None:
        """Write held-out losses and counts of experts if they are due."""
        if self._is_due(self._config.held_out.every):
            line = self._held_out.line(self.step)
            self._losses = line.get("held_out_loss", {})
            self._write(line)
        if self.experts is not None and self._is_due(self.experts.every):
            scalars = self.experts.end_window(self.step)
            self._write({"step": self.step} | scalars)

    def _log_planned(self, first: int) -> None:
        """Log the planned mixtures that start between a step and now."""
        for step, mixture, source in self._planned:
            if first <= step <= self.step:
                self._log.write(step, step + 1, mixture, source, shadow=False)

    def _make_driver(self, corpus: Corpus, log: Path) -> Driver | None:
        config = self._config
        estimator = config.estimator
        if estimator is None:
            return None
        options = DriverOptions(
            steps=config.training.steps,
            tokens_per_sample=config.training.sequence_length,
            evaluations=corpus.evaluation_names,
            objective=estimator.objective or dict.fromkeys(corpus.domain_names, 1.0),
            evaluate=self._held_out.sums,
            natural=corpus.natural,
            bounds=estimator.bounds,
            observe_every=estimator.observe_every,
            shadow=estimator.shadow,
            log=log,
            seed=config.seed,
        )
        return Driver(make_estimator(estimator.name, estimator.options), self._loader, options)

    def _observe(self, outcome: StepOutcome) -> None:
        """Report a step to driver and meter; a skipped step has no losses."""
        self._held_out.forget()
        self._meter.add(outcome)
        if self._driver is None:
            self._log_planned(self.step)
        else:
            for losses_BT, domain_B in outcome.parts:
                mask_BT = torch.zeros_like(losses_BT, dtype=torch.bool) if outcome.skipped else None
                self._driver.record(losses_BT, domain_B, mask_BT)
            self._driver.step(learning_rate=outcome.learning_rate)
        skipped = self._meter.skipped
        limit = self._config.training.max_skipped
        if skipped > limit:
            raise self._ranks.error(
                f"step {self.step}: the loss or the gradient was not finite in {skipped} steps,"
                f" more than training.max_skipped: {limit}; the weights are those before such"
                " steps: lower training.lr, or look at the data"
            )

    def _write(self, line: Mapping[str, Any]) -> None:
        """Write a line of metrics with its time."""
        self._metrics.add({**line, "time": round(time.time(), 3)})

    def _save(self) -> None:
        self._check_ranks()
        state: dict[str, Any] = {
            "meter": self._meter.state_dict(),
            "losses": self._losses,
            "weights": shares(self._loader.sampler.mixture_at(self.step)),
            "sampler": self._loader.state_dict(),
            "mixture": {},
            "experts": None,
            "metrics_size": self._metrics.size,
        }
        if self._driver is not None:
            state["mixture"] = self._driver.state_dict()
        if self.experts is not None:
            state["experts"] = self.experts.state()
        self._checkpoints.save(self._trainer.model, self._trainer.optimizer, self.step, state)

    def _is_due(self, period: int) -> bool:
        return self.is_finished or (period > 0 and self.step % period == 0)

    def _check_ranks(self) -> None:
        """Check that all ranks have the same order of samples; rank 0 reports differences."""
        self._ranks.each(lambda: check_ranks(self._loader.sampler))


def _planned_mixtures(config: PretrainConfig, corpus: Corpus) -> list[PlannedMixture]:
    """Return the mixtures of the schedule's stages, or the constant one."""
    if config.plan is None:
        name = config.mixture.anchor or config.mixture.file or "weights"
        return [PlannedMixture(0, _mixture(config.mixture, corpus), f"start: {name}")]
    planned: list[PlannedMixture] = []
    for k, stage in enumerate(config.plan.stages):
        try:
            mixture = stage.mixture.over(corpus.domain_names)
        except MixtureError as error:
            raise MixtureError(f"schedule: stages.{k}.mixture: {error}") from error
        source = f"schedule: {stage.name or k}"
        if stage.to:
            source += ", linearly to its end"
        planned.append(PlannedMixture(config.plan.starts[k], mixture, source))
    return planned


def _mixture(source: MixtureSource, corpus: Corpus) -> Mixture:
    names = corpus.domain_names
    if source.anchor == "natural":
        return corpus.natural
    if source.anchor is not None:
        return Mixture.uniform(names)
    try:
        if source.file is None:
            return Mixture(source.weights or {}).over(names)
        if "phases" in (read_yaml(Path(source.file), error=MixtureError) or {}):
            raise MixtureError(
                f"{source.file} has phases; write them as stages with mixopt export {source.file}"
                " --to schedule --out schedule.yaml, and give schedule: schedule.yaml"
            )
        return Mixture.from_file(source.file).over(names)
    except MixtureError as error:
        field = "file" if source.file else "weights"
        raise MixtureError(f"mixture.{field}: {error}") from error


def _loader(
    corpus: Corpus, config: PretrainConfig, planned: Sequence[PlannedMixture], ranks: int
) -> MixtureLoader:
    """Return the loader of this rank's batches, one for each step."""
    batch = config.training.batch
    if batch % (ranks * config.rows_of_pass(ranks)):
        field = "training.batch" if config.plan is None else "schedule: batch"
        micro = config.training.micro_batch or 1
        passes = ""
        if micro > 1:
            passes = f" in passes of {micro} (training.micro_batch)"
        raise SamplerError(
            f"{field}: {batch} sequences cannot be divided evenly among {ranks} ranks{passes}; use"
            f" a multiple of {ranks * micro}"
        )
    dataset = MixtureDataset({d.name: d.train for d in corpus.domains}, length=config.row_length)
    mixture = planned[0].mixture
    max_epochs = None
    if config.max_epochs is not None:
        max_epochs = _allowed_epochs(config, config.max_epochs, dataset.sizes, mixture)
    sampler = MixtureSampler(
        dataset.sizes,
        mixture,
        batch_size=batch,
        seed=config.seed,
        batches=config.training.steps,
        schedule=[] if config.plan is None else config.plan.entries,
        max_epochs=max_epochs,
    )
    return MixtureLoader(dataset, sampler)


def _allowed_epochs(
    config: PretrainConfig, limit: float, sizes: Mapping[str, int], mixture: Mixture
) -> dict[str, float]:
    """Return the maximum epochs of each domain, after checking the mixture against them.

    Rounding up to whole batches is allowed to exceed them.
    """
    samples = config.training.steps * config.training.batch
    if config.plan is None:
        drawn = {name: samples * share for name, share in mixture.items()}
    else:
        length = config.training.sequence_length
        drawn = {name: tokens / length for name, tokens in config.plan.domain_tokens().items()}
    allowed_epochs = dict.fromkeys(sizes, limit)
    for name, rows in drawn.items():
        allowed = int(limit * sizes[name])
        rounding = config.training.batch * rows / samples
        if rows >= allowed + 1 + rounding:
            epochs = math.ceil(1000 * rows / sizes[name]) / 1000
            share = math.floor(1000 * allowed / samples) / 1000
            raise MixtureError(
                f"domain {name!r}: {rows:,.0f} of {samples:,} sequences are {epochs:g} epochs of"
                f" its {sizes[name]:,}, and max_epochs is {limit:g}. Lower its share to {share:g},"
                f" or allow max_epochs: {epochs:g}"
            )
        needed = (math.ceil(rows) + 0.5) / max(sizes[name], 1)
        allowed_epochs[name] = max(limit, needed)
    return allowed_epochs
