"""Count experts while a model that has some is pretrained, and keep the record.

Windows of counts end at fixed steps, whatever checkpoints there are; a window that a checkpoint
cuts is in the checkpoint. So a run that resumes has the record of one that was never stopped.
Nothing about training depends on this: loss, gradients and random numbers are those of a run
without.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from mixopt.errors import RoutingError
from mixopt.pretraining.batches import Text
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.metrics import line_names
from mixopt.pretraining.parallel import ParallelModel
from mixopt.pretraining.ranks import Ranks
from mixopt.routing import (
    EXPERTS,
    Assignments,
    ExpertRecord,
    RouterStats,
    ScalarNames,
    Thresholds,
    expert_ranks,
    has_experts,
    named_adapters,
    training_scalars,
)
from mixopt.system import StateFields, read_json

THRESHOLDS = "experts.thresholds"
STATE = "experts.json"  # in a checkpoint
WINDOWS = 20  # of a run


class ExpertWatch:
    """The counts of a run's experts, on one rank; every rank calls the same methods.

    Attributes:
        record: What is on disk; rank 0 writes it.
        stats: What counts.
        looked: Called on rank 0 when a window of counts is written, with the steps taken.
    """

    def __init__(
        self, model: ParallelModel, corpus: Text, config: PretrainConfig, ranks: Ranks, out: Path
    ) -> None:
        """Attach to the model before its first step."""
        # The model is put into training only in the block of `counting`, which nothing else opens.
        self.stats = RouterStats.attach(
            model.plain,
            corpus.domain_names,
            adapters=named_adapters(config.experts.adapters or ()),
            evaluation=True,
        )
        self._ranks = ranks
        self.record = ExpertRecord(out / EXPERTS)
        self._steps, self._every_line = config.training.steps, config.metrics.every
        self._every_part = config.experts.every or -(-self._steps // WINDOWS)
        self._nothing = self.stats.total()
        layers = [layer.key for layer in self._nothing.layers]
        others = len(line_names(corpus.domain_names, corpus.evaluation_names))
        self._named = ScalarNames.within_budget(layers, corpus.domain_names, others)
        self._limits = Thresholds().with_values(config.experts.thresholds or {}, THRESHOLDS)
        self._expert_ranks = config.experts.ranks
        self._line = self._part = self._nothing
        self._begun = 0
        self.looked: Callable[[int], None] = lambda step: None

    @contextmanager
    def counting(self, domain_B: Tensor, length: int, positions: Sequence[int]) -> Iterator[None]:
        """Count the forward pass in the block."""
        domain_BT = domain_B[:, None].expand(-1, length)
        try:
            with self.stats.domains(domain_BT, position=positions):
                yield
        except RoutingError as error:
            why = f"{error}; experts.enabled: false trains without counting"
            raise RoutingError(why) from error

    def check_thresholds(self) -> None:
        """Check that loads can be beyond the thresholds, and experts on the ranks, asked for."""
        drops = [float(router.experts) for router in self.stats.routers if router.drops]
        highest = max([self._nothing.highest_load, *drops])
        self._limits.check_reachable(highest, THRESHOLDS)
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
        line, part = (self._is_due(step, every) for every in (self._every_line, self._every_part))
        if not (line or part):
            return
        self._collect()
        self._ranks.first(lambda: self._write(step, line=line, part=part))
        if line:
            self._line = self._nothing
        if part:
            self._part, self._begun = self._nothing, step

    def state(self) -> bytes:
        """Return the windows that are not at their end, as the content of a file."""
        self._collect()
        state = {
            "begun": self._begun,
            "line": self._line.as_dict(),
            "part": self._part.as_dict(),
        }
        return json.dumps(state).encode()

    def resume(self, checkpoint: Path, step: int) -> None:
        """Resume from a checkpoint; what was recorded after it is dropped."""
        self._ranks.first(lambda: self.record.cut(step))
        self._line = self._part = self._nothing
        self._begun = step
        path = checkpoint / STATE
        if not path.exists():  # experts were not counted before it
            return
        fields = StateFields(read_json(path, error=RoutingError), str(path), RoutingError)
        begun = fields.whole("begun")
        line, part = (
            Assignments.from_dict(fields.get(name), f"{path}: {name}") for name in ("line", "part")
        )
        domains = self._nothing.domains
        for counts in (line, part):
            self._nothing.check_sizes(domains, counts.sizes, str(path))
        if part.domains == domains:
            self._line, self._part, self._begun = line, part, begun
        elif begun < step:  # counts of other domains cannot be added to: their last window ends
            self._ranks.first(lambda: self.record.write_window(begun, step, part))

    @property
    def looks(self) -> list[int]:
        """The steps after which a window of counts ends."""
        steps = range(1, self._steps + 1)
        return [step for step in steps if self._is_due(step, self._every_part)]

    def files(self) -> list[Path]:
        """Return the windows of counts that the whole run will have."""
        return [self.record.part(step) for step in self.looks]

    def _is_due(self, step: int, every: int) -> bool:
        return step == self._steps or step % every == 0

    def _collect(self) -> None:
        self.stats.reduce()
        counted = self.stats.window()
        self._line, self._part = self._line + counted, self._part + counted

    def _write(self, step: int, *, line: bool, part: bool) -> None:
        if line:  # of the steps of a line alone there may be too little to diagnose
            limits, ranks = self._limits, self._expert_ranks
            values = training_scalars(self._line, self._named, limits, self._part, ranks)
            self.record.write_scalars(step, values)
        if part:
            self.record.write_window(self._begun, step, self._part)
            self.looked(step)


def watch_of(
    model: ParallelModel, corpus: Text, config: PretrainConfig, ranks: Ranks, out: Path
) -> ExpertWatch | None:
    """Return what counts the model's experts; None where it has none, or is not to be counted."""
    enabled, adapters = config.experts.enabled, config.experts.adapters
    if enabled is False:
        return None
    if not (enabled is True or adapters or has_experts(model.plain)):
        return None
    try:
        watch = ExpertWatch(model, corpus, config, ranks, out)
    except RoutingError as error:
        why = f"experts.enabled: {str(enabled).lower()}: {error}"
        raise RoutingError(f"{why}; experts.enabled: false trains without counting") from error
    watch.check_thresholds()
    return watch
