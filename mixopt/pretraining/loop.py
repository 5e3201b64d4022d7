"""The loop: batches, steps, the mixture, evaluations, checkpoints, until the end or a signal.

Whatever happens after a step happens in one order on every rank: the mixture's driver, evaluation,
metrics, checkpoint. So a checkpoint holds all that came of its steps, and a run that resumes from
it writes what an undisturbed one would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixopt.corpus import Domain, document_ends
from mixopt.errors import OtherRankError, RunError, SamplerError
from mixopt.loading import MixtureLoader
from mixopt.online import (
    MIXTURE_LOG,
    Driver,
    DriverOptions,
    HeldOut,
    held_out_losses,
    make_estimator,
)
from mixopt.pretraining.balance import balance_of
from mixopt.pretraining.batches import (
    FixedMixture,
    Scheduled,
    StreamedText,
    Text,
    batches_of,
    open_for,
    scheduled_mixtures,
)
from mixopt.pretraining.checkpoints import Checkpoints, CheckpointState
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.directory import METRICS
from mixopt.pretraining.document_masks import DocumentMasks, check_apart
from mixopt.pretraining.expert_watch import STATE as EXPERTS_STATE, watch_of
from mixopt.pretraining.metrics import (
    Meter,
    MetricsFile,
    StepOutcome,
    held_out_line,
    peak_flops,
    shares,
)
from mixopt.pretraining.model_start import initial_model, take_optimizer
from mixopt.pretraining.models import flops_per_token
from mixopt.pretraining.parallel import ParallelModel, StartingModel, starting_model
from mixopt.pretraining.ranks import Interruption, Ranks
from mixopt.pretraining.training_step import (
    AveragedWeights,
    TrainingStep,
    make_optimizer,
    token_losses,
)
from mixopt.sampling import check_ranks
from mixopt.system import StateFields, no_progress, progress

Sums = dict[str, tuple[float, int, float]]


class HeldOutText:
    """The held-out rows of this rank, and their losses by evaluation domain."""

    def __init__(
        self, text: Text, config: PretrainConfig, ranks: Ranks, model: ParallelModel
    ) -> None:
        """Read the rows; each evaluation domain has at least one."""
        rows = [_rows(domain, config) for domain in text.evaluation]
        tokens_RW = np.concatenate(rows)
        domain_R = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        size = config.rows_of_pass(ranks.count)
        padded = math.ceil(len(tokens_RW) / (size * ranks.count)) * size * ranks.count
        index_BB = np.arange(padded).reshape(-1, size)[ranks.rank :: ranks.count]
        self.names = text.evaluation_names
        self.bits_M = [_bits_per_nat(domain) for domain in text.evaluation]
        self._model, self._device = model, ranks.device
        self._passes = [
            (tokens_RW[i % len(tokens_RW)], domain_R[i % len(tokens_RW)], i < len(tokens_RW))
            for i in index_BB
        ]
        self._sums: Sums | None = None

    def sums(self) -> Sums:
        """Return losses, tokens and squares of losses of this rank, by evaluation domain."""
        if self._sums is None:
            self._sums = self._evaluate()
        return self._sums

    def forget(self) -> None:
        """Note that the weights have moved."""
        self._sums = None

    def losses(self) -> HeldOut | str:
        """Return the losses over all ranks, or which of them is not finite."""
        return held_out_losses(self.sums, self.names)

    def _evaluate(self) -> Sums:
        sums_3M = torch.zeros(3, len(self.names), dtype=torch.float64, device=self._device)
        for tokens, domain, counts in self._passes:
            tokens_BW = torch.from_numpy(tokens).to(self._device)
            output = self._model.evaluate(tokens_BW[:, :-1])
            sums_3B = _row_sums(token_losses(output, tokens_BW[:, 1:]))
            domain_B = torch.from_numpy(domain).to(self._device)
            counts_B = torch.from_numpy(counts).to(self._device)
            sums_3M.index_add_(1, domain_B[counts_B], sums_3B[:, counts_B])
        return {
            name: (loss, int(count), square)
            for name, (loss, count, square) in zip(self.names, sums_3M.T.tolist(), strict=True)
        }


def _row_sums(losses_BT: Tensor) -> Tensor:
    """Return the sum of each row's losses, their number, and the sum of their squares."""
    exact = losses_BT.double()
    return torch.stack([exact.sum(1), torch.ones_like(exact).sum(1), exact.square().sum(1)])


def _rows(
    domain: Domain, config: PretrainConfig
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    shards, length = domain.validation, config.row_length
    most = max(1, config.held_out.tokens // config.training.sequence_length)
    starts = np.arange(min(most, shards.tokens // length)) * length
    return shards.rows(starts, length).astype(np.int64)


def _bits_per_nat(domain: Domain) -> float | None:
    """Return bits per byte for one nat per token; None where the text's length is not known."""
    held_out = domain.validation
    return held_out.tokens / held_out.bytes / math.log(2) if held_out.bytes else None


class Loop:
    """A run between its checkpoints, on one rank.

    Attributes:
        experts: What counts the experts of its model, if it has some.
        step: Steps taken.
    """

    def __init__(
        self, config: PretrainConfig, out: Path, ranks: Ranks, checkpoints: Checkpoints
    ) -> None:
        """Put a run together, before its first step; every rank does."""
        self._config, self._ranks, self._checkpoints = config, ranks, checkpoints
        self._beside = [out / METRICS, out / MIXTURE_LOG]
        self.step, self._losses = 0, dict[str, float]()
        text = ranks.each(lambda: open_for(config, out))
        known = ranks.each(lambda: scheduled_mixtures(config, text))
        self._loader = ranks.each(lambda: batches_of(text, config, known, ranks))
        self._build_model(text, out)
        self._held_out = HeldOutText(text, config, ranks, self._model)
        self.experts = ranks.each(lambda: watch_of(self._model, text, config, ranks, out))
        stats = None if self.experts is None else self.experts.stats
        balance = ranks.each(lambda: balance_of(self._model.plain, config, ranks, stats))
        self._mixture: Driver | FixedMixture = ranks.each(
            lambda: self._driver(text, known, out / MIXTURE_LOG)
        )
        one = config.metrics.peak_flops or peak_flops(ranks.device)
        peak = None if one is None else one * ranks.count
        self._meter = Meter(text.domain_names, config, balance, flops=self._flops, peak=peak)
        self._metrics = MetricsFile(out / METRICS if ranks.is_first else None)
        self._trainer = TrainingStep(
            self._model, self._optimizer, config, ranks, self.experts, balance, self._averaged
        )

    def begin(self) -> None:
        """Begin before the first step; metrics of a run that came to no checkpoint go."""
        take_optimizer(self._config, self._model.plain, self._optimizer)
        self._metrics.cut(0)
        if self.experts is not None:
            self.experts.begin()

    def resume(self, path: Path, state: CheckpointState) -> None:
        """Resume from a checkpoint that is whole."""
        self._ranks.each(lambda: self._resume_batches(path, state))
        self._mixture.load_state_dict(state.mixture)
        if (experts := self.experts) is not None:
            self._ranks.each(lambda: experts.resume(path, state.step))
        self._checkpoints.load(path, self._model.plain, self._optimizer)
        self._ranks.each(lambda: self._metrics.cut(state.metrics_size))
        self._ranks.each(lambda: self._meter.load_state_dict(state.meter))
        self.step, self._losses = state.step, dict(state.losses)

    @property
    def first_mixture(self) -> Mapping[str, float]:
        """The mixture that the run begins with."""
        return self._loader.sampler.mixture_at(0)

    @property
    def is_finished(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self._config.training.steps

    def run(self, interruption: Interruption) -> None:
        """Take the steps that are left, or those until a rank is asked to stop."""
        config = self._config
        self._check_ranks()
        self._mixture.start()
        with self._progress() as update, self._own_randomness():
            for batch in self._batches():
                weights = self._weights()
                failed = self._checkpoints.has_failed
                outcome = self._trainer.take(
                    self.step, batch, stop=interruption.asked, failed=failed
                )
                self.step += 1
                if outcome.failed:
                    self._checkpoints.wait()
                self._observe(outcome)
                with self._meter.paused():
                    self._evaluate()
                    if self.experts is not None:
                        self.experts.step(self.step)
                self._write_metrics(outcome, weights, update)
                if self._is_due(config.checkpoint.every) or outcome.stopping:
                    with self._meter.paused():
                        self._save()
                if outcome.stopping or self.is_finished:
                    self._checkpoints.wait()
                if outcome.stopping:
                    return

    def _build_model(self, text: Text, out: Path) -> None:
        config, ranks = self._config, self._ranks
        start = starting_model(
            partial(initial_model, config, text.vocab_size, out),
            partial(initial_model, config, text.vocab_size, out, outline=True),
            config.parallel,
            ranks,
        )
        masks = ranks.each(lambda: self._masks(text, start))
        length = config.training.sequence_length
        self._flops = ranks.first(lambda: flops_per_token(start.module, length))
        self._model = ParallelModel(start, config, ranks, masks)
        self._optimizer = make_optimizer(self._model.plain, config.training)
        decay, self._averaged = config.training.ema_decay, None
        if decay is not None:
            self._averaged = AveragedWeights(self._model.plain, self._optimizer, decay)

    def _masks(self, text: Text, start: StartingModel) -> DocumentMasks | None:
        """Return what keeps documents of a row apart, where that is asked for."""
        config = self._config
        if not config.training.mask_documents:
            return None
        if isinstance(text, StreamedText):
            ends: tuple[int, ...] = (text.tokenizer.end_of_document,)
        else:
            ends = document_ends(text)
        masks = DocumentMasks(start.module, ends)
        if self._ranks.is_first or not start.held_by_first:
            check_apart(start.module, config.training.sequence_length, text.vocab_size)
        return masks

    def _driver(self, text: Text, known: Scheduled, log: Path) -> Driver | FixedMixture:
        config, chosen = self._config, self._config.estimator
        if chosen is None:
            return FixedMixture(known, log)
        options = DriverOptions(
            steps=config.training.steps,
            tokens_per_sample=config.training.sequence_length,
            evaluations=text.evaluation_names,
            objective=chosen.objective or dict.fromkeys(text.domain_names, 1.0),
            evaluate=self._held_out.sums,
            natural=known[0][1] if text.natural is None else text.natural,
            inventory=text.inventory,
            bounds=chosen.bounds,
            observe_every=chosen.observe_every,
            lead=chosen.lead,
            shadow=chosen.shadow,
            log=log,
            seed=config.seed,
        )
        loader = self._loader
        mixed = loader if isinstance(loader, MixtureLoader) else loader.sampler
        return Driver(make_estimator(chosen.name, chosen.options), mixed, options)

    def _observe(self, outcome: StepOutcome) -> None:
        """Tell mixture and meter of a step; one that was skipped has no losses."""
        self._held_out.forget()
        self._meter.add(outcome)
        for losses, domain in outcome.parts:
            mask = torch.zeros_like(losses, dtype=torch.bool) if outcome.skipped else None
            self._mixture.record(losses, domain, mask)
        self._mixture.step(learning_rate=outcome.learning_rate)
        skipped, limit = self._meter.skipped, self._config.training.max_skipped
        if skipped > limit:
            self._ranks.fail(
                f"step {self.step}: the loss or the gradient was not finite in {skipped} steps,"
                f" more than training.max_skipped: {limit}; the weights are those before such"
                " steps: lower training.lr, or look at the data"
            )

    def _evaluate(self) -> None:
        if not self._is_due(self._config.held_out.every):
            return
        held_out = self._held_out
        averaged = self._averaged if self._config.held_out.ema else None
        if averaged is not None:
            held_out.forget()
        with nullcontext() if averaged is None else averaged.in_use():
            found = held_out.losses()
        if averaged is not None:
            held_out.forget()
        if isinstance(found, HeldOut):
            self._losses = dict(zip(held_out.names, found.losses_M.tolist(), strict=True))
            self._metrics.write(held_out_line(self.step, held_out.names, found, held_out.bits_M))
        else:
            self._losses = {}
            self._metrics.write({"step": self.step, "trouble": found})

    def _write_metrics(
        self, outcome: StepOutcome, weights: Mapping[str, float], update: Any
    ) -> None:
        if not self._is_due(self._config.metrics.every):
            return
        line = self._meter.line(self.step, outcome, weights)
        self._metrics.write(line)
        loss = line.get("loss", math.nan)
        update(self.step, f"loss {loss:.4g}, {line['tokens_per_second']:,.0f} tokens/s")

    def _save(self) -> None:
        self._check_ranks()
        state = {
            "meter": self._meter.state_dict(),
            "losses": self._losses,
            "weights": shares(self._weights()),
            "sampler": self._loader.state_dict(),
            "mixture": self._mixture.state_dict(),
            "metrics_size": self._metrics.size,
        }
        files, paths = dict[str, bytes](), self._beside
        if self.experts is not None:
            files[EXPERTS_STATE] = self.experts.state()
            paths = [*paths, *self.experts.record.beside]
        model, optimizer = self._model.plain, self._optimizer
        self._checkpoints.save(model, optimizer, self.step, state, files=files, beside=paths)

    def _batches(self) -> Iterator[dict[str, Any]]:
        """Yield this rank's batches; where one cannot read a stream, all ranks end."""
        batches: Iterator[Any] = iter(self._loader)
        if isinstance(self._loader, MixtureLoader):
            yield from batches
            return
        while (batch := self._ranks.each(lambda: next(batches, None))) is not None:
            yield batch

    def _weights(self) -> Mapping[str, float]:
        """Return the mixture of the next step."""
        return self._loader.sampler.mixture_at(self.step)

    def _is_due(self, every: int) -> bool:
        return self.is_finished or (every > 0 and self.step % every == 0)

    def _check_ranks(self) -> None:
        """Check that ranks have one order of samples; rank 0 reports where they differ."""
        try:
            check_ranks(self._loader.sampler)
        except SamplerError as error:
            raise (error if self._ranks.is_first else OtherRankError(str(error))) from error

    def _resume_batches(self, path: Path, state: CheckpointState) -> None:
        saved, loader = state.sampler, self._loader
        if not isinstance(loader, MixtureLoader):
            loader.load_state_dict(saved)
            return
        fields = StateFields(saved, f"{path}: sampler", RunError)
        here, names = loader.sampler.sizes, fields.texts("domains")
        before = dict(zip(names, fields.wholes("sizes", len(names)), strict=True))
        mapped = self._config.map_domains if before != here else None
        if before != here and mapped is None:
            raise RunError(
                f"{path}: {_changes(before, here)}; to resume with other domains, give "
                "map_domains, names there to names here or null"
            )
        loader.load_state_dict(saved, map_domains=mapped)

    @contextmanager
    def _progress(self) -> Iterator[Any]:
        if self._ranks.is_first:
            with progress("pretrain", self._config.training.steps) as update:
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
