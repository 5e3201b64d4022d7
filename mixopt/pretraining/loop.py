"""The training loop: batches, steps, mixture, evaluations, checkpoints, end or signal.

All actions after a step run in one order on every rank, so that a checkpoint contains all results
of its steps.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

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
from mixopt.pretraining.metrics import HeldOutText, Meter, peak_flops, shares, watch_of
from mixopt.pretraining.model_start import initial_model, take_checkpoint
from mixopt.pretraining.models import flops_per_token
from mixopt.pretraining.parallel import Interruption, Ranks
from mixopt.pretraining.training_step import DocumentMasks, StepOutcome, Trainer
from mixopt.sampling import MixtureSampler, check_ranks
from mixopt.system import no_progress, progress, read_yaml

_Mixtures = list[tuple[int, Mixture, str]]  # first step, mixture, source


class Loop:
    """A run between its checkpoints, on one rank."""

    def __init__(
        self, config: PretrainConfig, out: Path, ranks: Ranks, checkpoints: Checkpoints
    ) -> None:
        """Assemble a run before its first step, on every rank."""
        self._config, self._ranks, self._checkpoints = config, ranks, checkpoints
        self.step, self._losses = 0, dict[str, float]()
        length = config.training.sequence_length

        def opened() -> tuple[Corpus, nn.Module, DocumentMasks | None]:
            corpus = open_text(config, out)
            self._planned = _planned_mixtures(config, corpus)
            self._loader = _loader(corpus, config, self._planned, ranks.count)
            model, masks = initial_model(config, corpus.vocab_size, out), None
            if config.training.mask_documents:
                masks = DocumentMasks(model, document_ends(corpus), length, corpus.vocab_size)
            return corpus, model, masks

        corpus, start, masks = ranks.each(opened)
        flops = flops_per_token(start, length)
        self._trainer = Trainer(start, config, ranks, masks)
        self._held_out = HeldOutText(corpus, config, ranks, self._trainer)
        self.experts, self._driver = ranks.each(
            lambda: (
                watch_of(self._trainer.model, corpus.domain_names, config, out),
                self._make_driver(corpus, out / MIXTURE_LOG),
            )
        )
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
        model, optimizer = self._trainer.model, self._trainer.optimizer
        self._ranks.each(lambda: take_checkpoint(self._config, model, optimizer))
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
        self.step, self._losses = state.step, dict(state.losses)

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
        bar = (
            progress("pretrain", config.training.steps) if is_first() else nullcontext(no_progress)
        )
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
                    if self._is_due(config.held_out.every):
                        evaluated = self._held_out.line(self.step)
                        self._losses = evaluated.get("held_out_loss", {})
                        self._write(evaluated)
                    if self.experts is not None and self._is_due(self.experts.every):
                        self._write({"step": self.step, **self.experts.end_window(self.step)})
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

    def _log_planned(self, first: int) -> None:
        """Log the planned mixtures that start between a step and now."""
        for batch, mixture, why in self._planned:
            if first <= batch <= self.step:
                self._log.write(batch, batch + 1, mixture, why, shadow=False)

    def _make_driver(self, corpus: Corpus, log: Path) -> Driver | None:
        config, chosen = self._config, self._config.estimator
        if chosen is None:
            return None
        options = DriverOptions(
            steps=config.training.steps,
            tokens_per_sample=config.training.sequence_length,
            evaluations=corpus.evaluation_names,
            objective=chosen.objective or dict.fromkeys(corpus.domain_names, 1.0),
            evaluate=self._held_out.sums,
            natural=corpus.natural,
            bounds=chosen.bounds,
            observe_every=chosen.observe_every,
            shadow=chosen.shadow,
            log=log,
            seed=config.seed,
        )
        return Driver(make_estimator(chosen.name, chosen.options), self._loader, options)

    def _observe(self, outcome: StepOutcome) -> None:
        """Report a step to driver and meter; a skipped step has no losses."""
        self._held_out.forget()
        self._meter.add(outcome)
        if self._driver is None:
            self._log_planned(self.step)
        else:
            for losses, domain in outcome.parts:
                mask = torch.zeros_like(losses, dtype=torch.bool) if outcome.skipped else None
                self._driver.record(losses, domain, mask)
            self._driver.step(learning_rate=outcome.learning_rate)
        skipped, limit = self._meter.skipped, self._config.training.max_skipped
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
        state = {
            "meter": self._meter.state_dict(),
            "losses": self._losses,
            "weights": shares(self._loader.sampler.mixture_at(self.step)),
            "sampler": self._loader.state_dict(),
            "mixture": {} if self._driver is None else self._driver.state_dict(),
            "experts": self.experts and self.experts.state(),
            "metrics_size": self._metrics.size,
        }
        model, optimizer = self._trainer.model, self._trainer.optimizer
        self._checkpoints.save(model, optimizer, self.step, state)

    def _is_due(self, period: int) -> bool:
        return self.is_finished or (period > 0 and self.step % period == 0)

    def _check_ranks(self) -> None:
        """Check that all ranks have the same order of samples; rank 0 reports differences."""
        self._ranks.each(lambda: check_ranks(self._loader.sampler))


def _planned_mixtures(config: PretrainConfig, corpus: Corpus) -> _Mixtures:
    """Return first step, mixture and source of each planned mixture."""
    if config.plan is None:
        source = config.mixture.anchor or config.mixture.file or "weights"
        return [(0, _mixture(config.mixture, corpus), f"start: {source}")]
    stages: _Mixtures = []
    for k, stage in enumerate(config.plan.stages):
        try:
            mixture = stage.mixture.over(corpus.domain_names)
        except MixtureError as error:
            raise MixtureError(f"schedule: stages.{k}.mixture: {error}") from error
        why = f"schedule: {stage.name or k}" + (", linearly to its end" if stage.to else "")
        stages.append((config.plan.starts[k], mixture, why))
    return stages


def _mixture(source: MixtureSource, corpus: Corpus) -> Mixture:
    names = corpus.domain_names
    if source.anchor is not None:
        return corpus.natural if source.anchor == "natural" else Mixture.uniform(names)
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
    corpus: Corpus, config: PretrainConfig, planned: _Mixtures, ranks: int
) -> MixtureLoader:
    """Return the loader of this rank's batches, one for each step."""
    batch, rows = config.training.batch, config.rows_of_pass(ranks)
    if batch % (ranks * rows):
        micro = config.training.micro_batch or 1
        field = "training.batch" if config.plan is None else "schedule: batch"
        passes = f" in passes of {micro} (training.micro_batch)" if micro > 1 else ""
        raise SamplerError(
            f"{field}: {batch} sequences are not dealt evenly to {ranks} ranks{passes}; use a"
            f" multiple of {ranks * micro}"
        )
    dataset = MixtureDataset({d.name: d.train for d in corpus.domains}, length=config.row_length)
    _, mixture, _ = planned[0]
    limit = config.max_epochs
    epochs = limit and _allowed_epochs(config, limit, dataset.sizes, mixture)
    sampler = MixtureSampler(
        dataset.sizes,
        mixture,
        batch_size=batch,
        seed=config.seed,
        batches=config.training.steps,
        schedule=[] if config.plan is None else config.plan.entries,
        max_epochs=epochs,
    )
    return MixtureLoader(dataset, sampler)


def _allowed_epochs(
    config: PretrainConfig, limit: float, sizes: Mapping[str, int], mixture: Mixture
) -> dict[str, float]:
    """Return the maximum epochs of each domain, after checking the mixture against them.

    Rounding up to whole batches is allowed to exceed them.
    """
    samples, length = config.training.steps * config.training.batch, config.training.sequence_length
    drawn = {name: samples * share for name, share in mixture.items()}
    if config.plan is not None:
        drawn = {name: tokens / length for name, tokens in config.plan.domain_tokens().items()}
    for name, rows in drawn.items():
        allowed, rounding = int(limit * sizes[name]), config.training.batch * rows / samples
        if rows >= allowed + 1 + rounding:
            epochs = math.ceil(1000 * rows / sizes[name]) / 1000
            share = math.floor(1000 * allowed / samples) / 1000
            raise MixtureError(
                f"domain {name!r}: {rows:,.0f} of {samples:,} sequences are {epochs:g} epochs of"
                f" its {sizes[name]:,}, and max_epochs is {limit:g}. Lower its share to {share:g},"
                f" or allow max_epochs: {epochs:g}"
            )
    needed = {name: (math.ceil(rows) + 0.5) / max(sizes[name], 1) for name, rows in drawn.items()}
    return {name: max(limit, needed.get(name, 0.0)) for name in sizes}
