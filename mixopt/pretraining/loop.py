"""The training loop: batches, steps, mixture, evaluations, checkpoints, end or signal.

All actions after a step run in one order on every rank, so that a checkpoint contains all results
of its steps.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mixopt.corpus import Corpus, document_ends
from mixopt.errors import MixtureError, RunError, SamplerError
from mixopt.loading import MixtureDataset, MixtureLoader
from mixopt.mixture import Mixture
from mixopt.online import MIXTURE_LOG, Driver, DriverOptions, LineLog, MixtureLog, make_estimator
from mixopt.pretraining.checkpoints import Checkpoints, CheckpointState, load_training
from mixopt.pretraining.config import PretrainConfig
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
        self._beside = [out / METRICS, out / MIXTURE_LOG]
        self.step, self._losses = 0, dict[str, float]()
        length = config.training.sequence_length

        def opened() -> tuple[Corpus, _Mixtures, MixtureLoader, nn.Module, DocumentMasks | None]:
            corpus = open_text(config, out)
            planned = _planned_mixtures(config, corpus)
            loader = _loader(corpus, config, planned, ranks.count)
            model, masks = initial_model(config, corpus.vocab_size, out), None
            if config.training.mask_documents:
                masks = DocumentMasks(model, document_ends(corpus), length, corpus.vocab_size)
            return corpus, planned, loader, model, masks

        corpus, self._planned, self._loader, start, masks = ranks.each(opened)
        flops = flops_per_token(start, length)
        self._trainer = Trainer(start, config, ranks, masks)
        self._held_out = HeldOutText(corpus, config, ranks, self._trainer)
        self.experts = ranks.each(lambda: watch_of(self._trainer.model, corpus, config, ranks, out))
        if self.experts is not None and ranks.is_first and not self._trainer.balances_experts:
            logging.getLogger("mixopt.pretraining").warning(
                "%s: no auxiliary loss balances its experts, so a few may end up serving all"
                " tokens; check with `mixopt experts`",
                config.model.name,
            )
        self._log = MixtureLog(out / MIXTURE_LOG if ranks.is_first else None)
        self._driver = ranks.each(lambda: self._make_driver(corpus, out / MIXTURE_LOG))
        peak = (config.metrics.peak_flops or peak_flops(ranks.device)) * ranks.count
        self._meter = Meter(corpus.domain_names, config, flops=flops, peak=peak)
        self._metrics = LineLog(out / METRICS if ranks.is_first else None)

    def begin(self) -> None:
        """Start from step 0; metrics of an attempt without a checkpoint are dropped."""
        model, optimizer = self._trainer.model, self._trainer.optimizer
        self._ranks.each(lambda: take_checkpoint(self._config, model, optimizer))
        self._metrics.cut(0)
        if self.experts is not None:
            self.experts.resume(None, 0)

    def resume(self, path: Path, state: CheckpointState) -> None:
        """Resume from a verified checkpoint."""

        def resume_order() -> None:
            try:
                self._loader.load_state_dict(state.sampler)
            except SamplerError as error:
                raise RunError(f"{path}: sampler: {error}") from error

        def resume_training() -> None:
            load_training(path, self._trainer.model, self._trainer.optimizer)
            self._metrics.cut(state.metrics_size)
            self._meter.load_state_dict(state.meter)

        self._ranks.each(resume_order)
        if self._driver is not None:
            self._driver.load_state_dict(state.mixture)
        if (experts := self.experts) is not None:
            self._ranks.each(lambda: experts.resume(state.experts, state.step))
        self._ranks.each(resume_training)
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
        with self._progress() as update:
            for batch in self._loader:
                weights = self._loader.sampler.mixture_at(self.step)
                outcome = self._trainer.step(
                    self.step, batch, counting, stop=interruption.requested
                )
                self.step += 1
                self._observe(outcome)
                with self._meter.paused():
                    if self._is_due(config.held_out.every):
                        self._evaluate()
                    if self.experts is not None:
                        self.experts.step(self.step, self._write)
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

    def _evaluate(self) -> None:
        line = self._held_out.line(self.step)
        self._losses = line.get("held_out_loss", {})
        self._write(line)

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
            "metrics_size": self._metrics.size,
        }
        paths = self._beside
        if self.experts is not None:
            state["experts"] = self.experts.state()
            paths = [*paths, *self.experts.record.beside]
        model, optimizer = self._trainer.model, self._trainer.optimizer
        self._checkpoints.save(model, optimizer, self.step, state, beside=paths)

    def _is_due(self, period: int) -> bool:
        return self.is_finished or (period > 0 and self.step % period == 0)

    def _check_ranks(self) -> None:
        """Check that all ranks have the same order of samples; rank 0 reports differences."""
        self._ranks.each(lambda: check_ranks(self._loader.sampler))

    @contextmanager
    def _progress(self) -> Iterator[Any]:
        """Show progress on rank 0, and preserve torch's random state."""
        cuda = [self._ranks.device] if self._ranks.device.type == "cuda" else []
        bar = progress("pretrain", self._config.training.steps)
        with (
            torch.random.fork_rng(devices=cuda),
            bar if self._ranks.is_first else nullcontext(no_progress) as update,
        ):
            yield update


def _planned_mixtures(config: PretrainConfig, corpus: Corpus) -> _Mixtures:
    """Return first step, mixture and source of each planned mixture."""
    if config.plan is None:
        source = config.mixture
        return [
            (0, _mixture(config, corpus), f"start: {source.anchor or source.file or 'weights'}")
        ]
    stages: _Mixtures = []
    for k, stage in enumerate(config.plan.stages):
        try:
            mixture = stage.mixture.over(corpus.domain_names)
        except MixtureError as error:
            raise MixtureError(f"schedule: stages.{k}.mixture: {error}") from error
        why = f"schedule: {stage.name or k}" + (", linearly to its end" if stage.to else "")
        stages.append((config.plan.starts[k], mixture, why))
    return stages


def _mixture(config: PretrainConfig, corpus: Corpus) -> Mixture:
    source = config.mixture
    if source.anchor is not None:
        names = corpus.domain_names
        return corpus.natural if source.anchor == "natural" else Mixture.uniform(names)
    try:
        content = read_yaml(Path(source.file), error=MixtureError) if source.file else None
        if "phases" in (content or {}):
            raise MixtureError(
                f"{source.file} has phases; write them as stages with mixopt export {source.file}"
                " --to schedule --out schedule.yaml, and give schedule: schedule.yaml"
            )
        mixture = Mixture.from_file(source.file) if source.file else Mixture(source.weights or {})
        return mixture.over(corpus.domain_names)
    except MixtureError as error:
        field = "file" if source.file else "weights"
        raise MixtureError(f"mixture.{field}: {error}") from error


def _loader(
    corpus: Corpus, config: PretrainConfig, planned: _Mixtures, ranks: int
) -> MixtureLoader:
    """Return the loader of this rank's batches, one for each step."""
    _check_batch(config, ranks)
    dataset = MixtureDataset({d.name: d.train for d in corpus.domains}, length=config.row_length)
    epochs = config.max_epochs and _allowed_epochs(
        config, config.max_epochs, dataset.sizes, planned[0][1]
    )
    sampler = MixtureSampler(
        dataset.sizes,
        planned[0][1],
        batch_size=config.training.batch,
        seed=config.seed,
        batches=config.training.steps,
        schedule=[] if config.plan is None else config.plan.entries,
        max_epochs=epochs,
    )
    return MixtureLoader(dataset, sampler)


def _check_batch(config: PretrainConfig, ranks: int) -> None:
    """Check that the batch is divisible by ranks and passes."""
    batch = config.training.batch
    if batch % ranks:
        down = batch - batch % ranks
        near = f"{down} or {down + ranks}" if down else str(ranks)
        field = "training.batch" if config.plan is None else "schedule: batch"
        raise SamplerError(
            f"{field}: {batch} sequences over all ranks: {ranks} ranks do not divide it; use {near}"
        )
    rows, micro = batch // ranks, config.rows_of_pass(ranks)
    if rows % micro:
        raise SamplerError(
            f"training.micro_batch {micro} does not divide the {rows} sequences that each of"
            f" {ranks} ranks has of a batch of {batch}"
        )


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
