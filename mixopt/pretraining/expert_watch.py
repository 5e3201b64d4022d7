"""Count experts while a model that has some is pretrained, and keep the record.

Windows of counts end at fixed steps, whatever checkpoints there are; a window that a checkpoint
cuts is in the checkpoint. So a run that went on has the record of one that was never stopped.
Nothing about training depends on this: loss, gradients and random numbers are those of a run
without.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixopt.errors import RoutingError
from mixopt.pretraining.batches import Text
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.expert_probe import PROBES, ExpertProbe
from mixopt.pretraining.metrics import line_names
from mixopt.pretraining.parallel import ParallelModel
from mixopt.pretraining.ranks import Ranks
from mixopt.routing import (
    COUNTS,
    EXPERTS,
    LAYERS,
    PROBE,
    Assignments,
    CountedWindow,
    ExpertRecord,
    LayerAssignments,
    RouterStats,
    ScalarNames,
    Thresholds,
    expert_ranks,
    has_experts,
    load_state,
    named_adapters,
    nothing,
    probe_scalars,
    saved_domains,
    saved_state,
    suspected_experts,
    training_scalars,
)
from mixopt.system import StateFields, read_arrays

THRESHOLDS = "experts.thresholds"
STATE = "experts.npz"  # in a checkpoint
WINDOWS = 20  # of a run


class ExpertWatch:
    """The counts of a run's experts, on one rank; every rank calls the same methods.

    Attributes:
        record: What is on disk; rank 0 writes it.
        stats: What counts.
        looked: Called on rank 0 when what a probe saw after so many steps is written.
    """

    def __init__(
        self, model: ParallelModel, corpus: Text, config: PretrainConfig, ranks: Ranks, out: Path
    ) -> None:
        """Attach to the model before its first step.

        Raises:
            RoutingError: It has no router.
        """
        # The model is put into training only in the block of `counting`, which nothing else opens.
        self.stats = RouterStats.attach(
            model.plain,
            corpus.domain_names,
            adapters=named_adapters(config.experts.adapters or ()),
            evaluation=True,
        )
        self._model, self._ranks = model, ranks
        self._probe = ExpertProbe.of(corpus, config, ranks)
        self.record = ExpertRecord(out / EXPERTS)
        steps = config.training.steps
        self._steps, self._every_line = steps, config.metrics.every
        self._every_part = config.experts.every or -(-steps // WINDOWS)
        self._every_probe = -(-steps // PROBES)
        self._nothing = self.stats.total()
        layers = [layer.key for layer in self._nothing.layers]
        others = len(line_names(corpus.domain_names, corpus.evaluation_names))
        self._named = ScalarNames.within_budget(layers, corpus.domain_names, others)
        self._limits = Thresholds().with_values(config.experts.thresholds or {}, THRESHOLDS)
        self._expert_ranks = config.experts.ranks
        self._line = self._part = self._nothing
        self._begun = 0
        self.looked: Callable[[int], None] = _nobody

    @contextmanager
    def counting(self, domain_B: Tensor, length: int, positions: Sequence[int]) -> Iterator[None]:
        """Count the forward pass in the block.

        Args:
            domain_B: Domains of its sequences.
            length: Tokens of a sequence.
            positions: Of its sequences in the stream of all ranks.

        Raises:
            RoutingError: A router does not run once in a pass.
        """
        domain_BT = domain_B[:, None].expand(-1, length)
        try:
            with self.stats.domains(domain_BT, position=positions):
                yield
        except RoutingError as error:
            why = f"{error}; experts.enabled: false trains without counting"
            raise RoutingError(why) from error

    def check_thresholds(self) -> None:
        """Check that loads can be beyond the thresholds, and experts on the ranks, asked for.

        Raises:
            RoutingError: They never can, with these experts.
        """
        self._limits.check_reachable(self._nothing.highest_load, THRESHOLDS)
        for layer in self._nothing.layers:
            try:
                expert_ranks(layer, self._expert_ranks)
            except RoutingError as error:
                raise RoutingError(f"experts.ranks: {error}") from error

    def begin(self) -> None:
        """Begin a run: what was recorded before its first checkpoint is dropped."""
        self._ranks.first(lambda: self.record.cut(0))

    def step(self, step: int) -> None:
        """Write what is due after so many steps."""
        due = [self._is_due(step, every) for every in self._schedule]
        line, part, look = due
        if line or part:
            self._collect()
        probe = self._probe.look(self.stats, self._model) if look and self._probe else None
        self._ranks.first(lambda: self._write(step, line=line, part=part, probe=probe))
        if look:
            self._ranks.first(lambda: self.looked(step))
        if line:
            self._line = self._nothing
        if part:
            self._part, self._begun = self._nothing, step

    def state(self) -> bytes:
        """Return the windows that are not at their end, as the content of a file."""
        self._collect()
        state = saved_state({"line": self._line, "part": self._part})
        about = np.frombuffer(state.pop("about").encode(), np.uint8)
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        stream = io.BytesIO()
        np.savez_compressed(stream, about=about, begun=np.array(self._begun), **arrays)
        return stream.getvalue()

    def resume(self, checkpoint: Path, step: int) -> None:
        """Resume from a checkpoint; what was recorded after it is dropped.

        Raises:
            RoutingError: It is of other experts, or damaged.
        """
        self._ranks.first(lambda: self.record.cut(step))
        self._line = self._part = self._nothing
        self._begun = step
        if not (checkpoint / STATE).exists():  # experts were not counted before it
            return
        state, begun = _read(checkpoint / STATE)
        domains = saved_domains(state)
        if domains == self._nothing.domains:
            kept = StateFields(
                load_state(state, self._nothing), str(checkpoint / STATE), RoutingError
            )
            self._line, self._part, self._begun = kept.get("line"), kept.get("part"), begun
            return
        # Counts of other domains cannot be added to: their last window ends here.
        before = nothing(domains, self._nothing.sizes)
        loaded = StateFields(load_state(state, before), str(checkpoint / STATE), RoutingError)
        window = CountedWindow(begun, step, loaded.get("part"))
        if window.start < step:
            self._ranks.first(lambda: self.record.write_window(window))

    def files(self) -> dict[str, list[Path]]:
        """Return the parts and probes that the whole run will have, by the folder they are in."""

        def due(folder: str, every: int, name: str) -> list[Path]:
            return [self.record.path / folder / name.format(n) for n in self._steps_due(every)]

        part = "part-{:08d}.parquet"
        return {
            COUNTS: due(COUNTS, self._every_part, part),
            LAYERS: due(LAYERS, self._every_part, part),
            PROBE: due(PROBE, self._every_probe, "{:08d}.npz") if self._probe else [],
        }

    @property
    def looks(self) -> list[int]:
        """The steps after which a run's routers are looked at."""
        return self._steps_due(self._every_probe)

    @property
    def _schedule(self) -> tuple[int, int, int]:
        return self._every_line, self._every_part, self._every_probe

    def _is_due(self, step: int, every: int) -> bool:
        return step == self._steps or step % every == 0

    def _steps_due(self, every: int) -> list[int]:
        return [step for step in range(1, self._steps + 1) if self._is_due(step, every)]

    def _collect(self) -> None:
        self.stats.reduce()
        counted = _known(self.stats.window())
        self._line, self._part = self._line + counted, self._part + counted

    def _write(self, step: int, *, line: bool, part: bool, probe: Any) -> None:
        values = {}
        if line:  # of the steps of a line alone there may be too little to diagnose
            limits, ranks = self._limits, self._expert_ranks
            values = training_scalars(self._line, self._named, limits, self._part, ranks)
        if probe is not None:
            before = self.record.last_probe()
            self.record.write_probe(step, probe)
            values |= probe_scalars(probe, before[1] if before else None, self._named)
        if values:
            self.record.write_scalars(step, values)
        if part:
            self.record.write_window(CountedWindow(self._begun, step, self._part))


def _nobody(step: int) -> None:
    """Do nothing after a probe."""


def watch_of(
    model: ParallelModel, corpus: Text, config: PretrainConfig, ranks: Ranks, out: Path
) -> ExpertWatch | None:
    """Return what counts the model's experts; None where it has none, or is not to be counted.

    Raises:
        RoutingError: It has routers that cannot be counted; or none, and `experts.enabled: true`.
    """
    enabled, adapters = config.experts.enabled, config.experts.adapters
    wanted = enabled is True or adapters or has_experts(model.plain)
    if enabled is False:
        return None
    if not wanted:
        _warn_of_suspected(model, ranks)
        return None
    try:
        watch = ExpertWatch(model, corpus, config, ranks, out)
    except RoutingError as error:
        why = f"experts.enabled: {str(enabled).lower()}: {error}"
        raise RoutingError(f"{why}; experts.enabled: false trains without counting") from error
    watch.check_thresholds()
    return watch


def _warn_of_suspected(model: ParallelModel, ranks: Ranks) -> None:
    """Report what has the form of experts in a model that is trained without a record of them."""
    for line in suspected_experts(model.plain) if ranks.is_first else ():
        logging.getLogger("mixopt.pretraining").warning(
            "%s; its experts are neither counted nor known to be balanced; experts.enabled: false"
            " leaves out this line",
            line,
        )


def _known(counted: Assignments) -> Assignments:
    """Return assignments without sums that a step which was not finite has spoilt."""
    return replace(counted, layers=tuple(_finite(layer) for layer in counted.layers))


def _finite(layer: LayerAssignments) -> LayerAssignments:
    sums = ("probability_DE", "entropy_D", "squared_logsumexp_D", "chosen_D")
    arrays = layer.arrays()
    if all(np.isfinite(arrays[name]).all() for name in sums):
        return layer
    return replace(layer, **{name: np.zeros_like(arrays[name]) for name in sums})


def _read(path: Path) -> tuple[dict[str, Any], int]:
    """Return the windows of a checkpoint and the step at which the last of them began.

    Raises:
        RoutingError: The file cannot be read, or a field is missing or cannot be right.
    """
    arrays: dict[str, Any] = dict(read_arrays(path, error=RoutingError))
    fields = StateFields(arrays, str(path), RoutingError)
    begun = StateFields({"begun": fields.get("begun").tolist()}, str(path), RoutingError)
    about = bytes(fields.int_array("about", (-1,)).astype(np.uint8)).decode(errors="replace")
    tensors = {
        name: torch.from_numpy(array)
        for name, array in arrays.items()
        if name not in {"about", "begun"} and array.dtype.kind in "if"
    }
    return {**tensors, "about": about}, begun.whole("begun")
