"""Look at which experts held-out text is given, as much of each training domain, now and then.

Windows are the same each time, spread over the held-out text, so that checkpoints compare. Ranks
share the passes; that one pass is one part of the probe makes the whole the same for any number of
ranks.

Shapes: B rows of a pass, W tokens of a row, D domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from mixopt.pretraining.batches import Text
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.parallel import ParallelModel
from mixopt.pretraining.ranks import Ranks
from mixopt.routing import ProbeResult, RouterStats, join_probes
from mixopt.system import IntArray

PROBES = 8  # of a run
TOKENS = 65_536  # of each domain
COST = 0.05  # of the tokens of a run, all probes together, where the user says nothing
KEPT = 8192  # tokens of a probe whose experts are kept one by one


@dataclass(frozen=True, eq=False)
class ExpertProbe:
    """The held-out windows that a run's routers are looked at with.

    Attributes:
        tokens_RW: The windows of all domains, one of each after the other.
        domain_R: Their domains.
        size: Rows of a pass.
        ranks: Who shares the passes.
    """

    tokens_RW: IntArray
    domain_R: IntArray
    size: int
    ranks: Ranks

    @classmethod
    def of(cls, corpus: Text, config: PretrainConfig, ranks: Ranks) -> ExpertProbe | None:
        """Read the windows; None where the run has no probe.

        Args:
            corpus: Each domain has held-out text for a row at least.
            config: How much of each domain, and the size of a pass.
            ranks: Who shares them.
        """
        rows = _rows_of_each(corpus, config)
        if rows == 0:
            return None
        parts = [_windows(domain.validation, config.row_length, rows) for domain in corpus.domains]
        tokens_RW = np.stack(parts, axis=1).reshape(-1, config.row_length)
        domain_R = np.tile(np.arange(len(parts)), rows)
        size = config.rows_of_pass(ranks.count)
        return cls(tokens_RW, domain_R, size, ranks)

    def look(self, stats: RouterStats, model: ParallelModel) -> ProbeResult | None:
        """Run the windows through the model; every rank calls it, rank 0 gets what was seen."""
        passes, ranks = -(-len(self.domain_R) // self.size), self.ranks
        found = {}
        # All ranks run as many, since sharded ones wait for each other; what is over is not kept.
        for place in range(-(-passes // ranks.count)):
            number = place * ranks.count + ranks.rank
            part = self._pass(stats, model, number % passes)
            if number < passes:
                found[number] = part
        gathered: list[Any] = [found]
        if ranks.count > 1:
            gathered = [None] * ranks.count
            dist.gather_object(found, gathered if ranks.is_first else None)
        if not ranks.is_first:
            return None
        every = {number: part for some in gathered for number, part in some.items()}
        return join_probes([every[number] for number in sorted(every)])

    def _pass(self, stats: RouterStats, model: ParallelModel, number: int) -> ProbeResult:
        rows = slice(number * self.size, (number + 1) * self.size)
        tokens_BW = torch.from_numpy(self.tokens_RW[rows, :-1]).to(self.ranks.device)
        domain_B = torch.from_numpy(self.domain_R[rows])
        kept = max(0, KEPT - number * self.size * tokens_BW.shape[1])
        with stats.probe(tokens=kept) as probe:
            with stats.domains(domain_B, torch.ones(tokens_BW.shape, dtype=torch.bool)):
                model.evaluate(tokens_BW)
            return probe.result()


def _rows_of_each(corpus: Text, config: PretrainConfig) -> int:
    """Return how many windows each domain has: as many as asked for, and as the least has."""
    tokens = config.experts.probe
    if tokens is None:
        run = config.tokens_before(config.training.steps)
        tokens = min(TOKENS, int(COST * run / PROBES / len(corpus.domains)))
        tokens = max(tokens, config.training.sequence_length)
    least = min(domain.validation.tokens for domain in corpus.domains) // config.row_length
    wanted = -(-tokens // config.training.sequence_length)
    return min(wanted, least)


def _windows(shards: Any, length: int, rows: int) -> IntArray:
    """Return windows at even distances of a domain's held-out text, shape (rows, length)."""
    starts = np.arange(rows) * (shards.tokens - length) // max(rows - 1, 1)
    return np.asarray(shards.rows(starts, length), np.int64)
