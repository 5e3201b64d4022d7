"""AdamW, documents kept apart, and a step on a global batch, the same on every rank.

Randomness of a pass (dropout) follows from the seed and the position of its sequences in the
stream, so no random state is saved. One small all-reduce tells all ranks whether the step is
skipped or any rank was asked to stop: the only time that the host waits.

Shapes: B sequences, T tokens, W = T + 1, P passes, V vocabulary.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mixopt.errors import ConfigError
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.models import blocks_of, document_positions, has_bfloat16, logits_of
from mixopt.pretraining.parallel import ParallelModel
from mixopt.pretraining.ranks import Ranks
from mixopt.routing import auxiliary_coefficient
from mixopt.system import one_line

_CHUNK_LOGITS = 1 << 24  # logits that are converted to float32 at once
_MASKS = "training.mask_documents"
_MASK_CHECK_TOKENS = 12  # of the two documents in the mask check
_MAX_LEAK = 1e-4  # allowed influence across documents, relative to that within one

Counting = Callable[[Tensor, int, Sequence[int]], AbstractContextManager[None]]


@dataclass(frozen=True)
class StepOutcome:
    """Result of a step.

    Attributes:
        learning_rate: Learning rate of the step.
        gradient_norm: Norm of the gradient before clipping.
        skipped: Whether it changed nothing because a loss or the gradient was not finite.
        stopping: Whether any rank was asked to stop.
        parts: Losses (B, T) and domains (B,) of each pass of this rank.
        added_P: Auxiliary loss of each pass; None if the model has none.
    """

    learning_rate: float
    gradient_norm: float
    skipped: bool
    stopping: bool
    parts: list[tuple[Tensor, Tensor]]
    added_P: Tensor | None


class DocumentMasks:
    """Separates the documents of a row, by `position_ids` that restart at 0 for each document.

    Each document is followed by the end-of-document id. As a target that id ends a document; as an
    input it starts the next one, whose first token is predicted from it alone.
    """

    def __init__(self, model: nn.Module, ends: Sequence[int], length: int, vocab_size: int) -> None:
        """Check that a model keeps documents apart.

        Args:
            model: The model, on the CPU.
            ends: Ids that end a document.
            length: Tokens of a sequence.
            vocab_size: Number of ids.
        """
        arguments = inspect.signature(model.forward).parameters
        if "position_ids" not in arguments:
            raise ConfigError(
                f"{_MASKS}: {type(model).__name__} takes no position_ids, which would tell it where"
                " documents begin; leave it out"
            )
        self._ends = ends
        # With a cache transformers builds no masks from positions.
        self._fixed = {"use_cache": False} if "use_cache" in arguments else {}
        half = min(length, _MASK_CHECK_TOKENS) // 2
        if half >= 2 and vocab_size >= 4:
            self._check(model, half, vocab_size)

    def _check(self, model: nn.Module, half: int, ids: int) -> None:
        """Raise unless documents of `half` tokens do not influence each other."""
        kind = str(getattr(getattr(model, "config", None), "_attn_implementation", ""))
        if kind.startswith("flash"):
            raise ConfigError(
                f"{_MASKS}: model.options.attn_implementation: {kind} keeps documents apart in"
                " single rows only; give sdpa or flex_attention"
            )
        name = type(model).__name__
        try:
            leak, within = self._influences(model.eval(), half, ids)
        except Exception as error:  # a model without support may raise anything
            raise ConfigError(f"{_MASKS}: {name}: {one_line(error)}") from error
        if not leak <= _MAX_LEAK * within:
            raise ConfigError(
                f"{_MASKS}: {name} does not keep documents apart by position_ids: what it predicts"
                " in one depends on the one before it; leave it out, or take another model"
            )

    def inputs(self, tokens_BT: Tensor) -> dict[str, Any]:
        """Return the arguments of a call besides the tokens."""
        return {"position_ids": document_positions(tokens_BT, self._ends), **self._fixed}

    @torch.no_grad()
    def _influences(self, model: nn.Module, half: int, ids: int) -> tuple[float, float]:
        """Return how much outputs for a document depend on its surroundings, and on itself."""
        draw = torch.Generator().manual_seed(0)
        before, document = torch.randint(ids, (2, half), generator=draw)
        other_before = (before + 1) % ids
        other_start = document.clone()
        other_start[0] = (document[0] + 1) % ids
        rows = torch.stack(
            [
                torch.cat([before, document]),
                torch.cat([other_before, document]),
                torch.cat([before, other_start]),
            ]
        )
        positions = torch.arange(half).repeat(3, 2)
        output = model(rows, position_ids=positions, **self._fixed)
        logits, logits_other_before, logits_other_start = logits_of(output)[:, half:]
        leak = (logits - logits_other_before).abs().max().item()
        within = (logits - logits_other_start)[1:].abs().max().item()
        return leak, within


class Trainer:
    """A model on its device, wrapped for the ranks, and its optimizer."""

    def __init__(
        self, model: nn.Module, config: PretrainConfig, ranks: Ranks, masks: DocumentMasks | None
    ) -> None:
        """Move, compile and wrap a model on the CPU, the same on every rank."""
        self._ranks = ranks
        self._masks = masks
        self._training = config.training
        self._seed = config.seed
        if config.training.precision == "auto":
            self._is_bfloat16 = has_bfloat16(ranks.device)
        else:
            self._is_bfloat16 = config.training.precision == "bfloat16"
        for block in blocks_of(model):
            if config.training.activation_checkpointing:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
            if config.training.compile:
                block.compile()
        self._parallel = ParallelModel(model, config.parallel, ranks, bfloat16=self._is_bfloat16)
        self.model = self._parallel.module
        self._weights = [w for w in self.model.parameters() if w.requires_grad]
        self.optimizer = make_optimizer(self.model, config.training)
        self._coefficient = ranks.each(lambda: auxiliary_coefficient(self.model))

    @property
    def balances_experts(self) -> bool:
        """Whether an auxiliary loss is added."""
        return self._coefficient > 0 or hasattr(self.model, "own_loss")

    def evaluate(self, tokens_BT: Tensor) -> Any:
        """Return the model's output without gradients; all ranks call it."""
        self.model.eval()
        with torch.no_grad():
            return self._output(self.model, tokens_BT)

    def _output(self, model: nn.Module, tokens_BT: Tensor) -> Any:
        inputs = {} if self._masks is None else self._masks.inputs(tokens_BT)
        device = self._ranks.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self._is_bfloat16):
            return model(tokens_BT, **inputs)

    def step(
        self, step: int, batch: dict[str, Any], counting: Counting | None, *, stop: bool
    ) -> StepOutcome:
        """Run a step on a batch of this rank; `counting` counts its experts."""
        parts, added_P = self._accumulate(batch, counting or _uncounted)
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        skipped, stopping = self._agree(parts, norm, stop=stop)
        rate = self._training.rates.rate(step)
        if not skipped:
            if self._training.clip > 0:
                nn.utils.clip_grads_with_norm_(self._weights, self._training.clip, norm)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.optimizer.zero_grad()
        return StepOutcome(
            learning_rate=rate,
            gradient_norm=float(norm),
            skipped=skipped,
            stopping=stopping,
            parts=parts,
            added_P=added_P,
        )

    def _accumulate(
        self, batch: dict[str, Any], counting: Counting
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """Accumulate gradients over passes; return losses, domains and auxiliary losses."""
        parts: list[tuple[Tensor, Tensor]] = []
        added: list[Tensor] = []
        rows_BW = batch["input_ids"].to(self._ranks.device, torch.long, non_blocking=True)
        row_domain_B = batch["domain"].to(self._ranks.device, non_blocking=True)
        size = self._training.micro_batch or len(rows_BW)
        passes = list(zip(rows_BW.split(size), row_domain_B.split(size), strict=True))
        position = batch["position"]  # of the next pass in the stream
        self.model.train()
        for number, (tokens_BW, domain_B) in enumerate(passes, start=1):
            torch.manual_seed(_seed_at(self._seed, position))
            positions = range(position, position + len(domain_B))
            position = positions.stop
            with self._parallel.reducing(last=number == len(passes)):
                with counting(domain_B, tokens_BW.shape[1] - 1, positions):
                    output = self._output(self._parallel.called, tokens_BW[:, :-1])
                losses_BT = token_losses(output, tokens_BW[:, 1:])
                loss = losses_BT.mean()
                auxiliary = added_loss(self.model, output, self._coefficient)
                if auxiliary is not None:
                    added.append(auxiliary.detach())
                    loss = loss + auxiliary
                (loss / len(passes)).backward()  # type: ignore[no-untyped-call]
            parts.append((losses_BT.detach(), domain_B))
        added_P = torch.stack(added) if added else None
        return parts, added_P

    def _agree(
        self, parts: list[tuple[Tensor, Tensor]], norm: Tensor, *, stop: bool
    ) -> tuple[bool, bool]:
        """Return on every rank whether a value is not finite, and whether any rank must stop."""
        values = [norm]
        values += [losses_BT.sum() for losses_BT, _ in parts]
        is_broken = ~torch.isfinite(torch.stack(values)).all()
        counts = torch.stack([is_broken, torch.full_like(is_broken, stop)]).float()
        dist.all_reduce(counts)
        skipped, stopping = counts.bool().tolist()
        return skipped, stopping


def _uncounted(
    domain_B: Tensor, length: int, positions: Sequence[int]
) -> AbstractContextManager[None]:
    return nullcontext()


def _seed_at(seed: int, position: int) -> int:
    """Return the random seed of a pass at a position in the stream."""
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def token_losses(output: Any, targets_BT: Tensor) -> Tensor:
    """Return the cross-entropy of each token in nats, float32, shape (B, T).

    Logits are converted to float32 in chunks of rows, and again in the backward pass, so that they
    are never stored in float32 as a whole.
    """
    logits_BTV = logits_of(output)
    rows = max(1, _CHUNK_LOGITS // logits_BTV[0].numel())
    chunks = zip(torch.split(logits_BTV, rows), torch.split(targets_BT, rows), strict=True)
    if not logits_BTV.requires_grad or rows >= len(targets_BT):
        return torch.cat([_cross_entropy(logits, targets) for logits, targets in chunks])
    recomputed = partial(checkpoint, _cross_entropy, use_reentrant=False)
    return torch.cat([recomputed(logits, targets) for logits, targets in chunks])


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    flat = functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
    )
    return flat.view(targets.shape)


def make_optimizer(model: nn.Module, options: Any) -> optim.AdamW:
    """Return AdamW with initialised state; matrices decay, vectors such as norms do not.

    Args:
        model: The model, on its device.
        options: Has `lr`, `betas`, `eps` and `weight_decay`.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim > 1]
    vectors = [weight for weight in trained if weight.ndim <= 1]
    groups: list[dict[str, Any]] = []
    if matrices:
        groups.append({"params": matrices, "weight_decay": options.weight_decay})
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    adam = optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=True)
    get_optimizer_state_dict(model, adam)  # creates the state by a step without effect
    for state in adam.state.values():
        state["step"].zero_()
    return adam


def added_loss(model: nn.Module, output: Any, coefficient: float) -> Tensor | None:
    """Return the auxiliary loss of a pass: `own_loss`, or the model's auxiliary output."""
    loss = getattr(model, "own_loss", None)
    if isinstance(loss, Tensor):
        return loss
    auxiliary = getattr(output, "aux_loss", None)
    if not coefficient or not isinstance(auxiliary, Tensor):
        return None
    return coefficient * auxiliary
