"""The model of a pretraining with the weights of a checkpoint, to score text and tasks with.

A folder of transformers, such as `mixopt export-model` writes, is opened likewise.

It is read into memory on one device in float32, whatever it was trained in, so that its numbers
compare with those of other tools. What the run directory names is not imported, and what lies
outside it is not read, unless the user trusts it.

Shapes: R rows, B windows of a pass, T tokens, V vocabulary, P scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mixopt.corpus import (
    EncodedTask,
    TaskWindow,
    Tokenizer,
    WindowBatch,
    chosen_items,
    encode_task,
    open_tokenizer,
    read_corpus_index,
    read_items,
    read_stream_index,
    row_windows,
    saved_tokenizer,
    sums_by_row,
    task_files,
    window_batches,
)
from mixopt.errors import RunError, did_you_mean
from mixopt.pretraining.batches import HELD_OUT, corpus_path
from mixopt.pretraining.checkpoints import CHECKPOINTS, found_checkpoints
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.directory import recorded_pretraining
from mixopt.pretraining.model_start import open_origin
from mixopt.pretraining.models import logits_of
from mixopt.pretraining.ranks import device_named
from mixopt.pretraining.transformers_folder import is_transformers_folder
from mixopt.reporting import table_text
from mixopt.system import Array, BoolArray, check_trusted, progress

_PASS_TOKENS = 8192
_USUAL_LENGTH = 2048  # of a model whose positions have no end
_PASS_LOGITS = 1 << 27


class RowScores(NamedTuple):
    """What a model says of rows.

    Attributes:
        log_probability_R: Sum of the natural logarithms of the probabilities of the scored tokens.
        greedy_R: Whether each of them is the likeliest.
    """

    log_probability_R: Array
    greedy_R: BoolArray


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A causal language model, its tokenizer, and how much it reads at once.

    Attributes:
        model: In evaluation mode, on its device.
        tokenizer: That of its training text.
        length: Most tokens that it predicts at once.
        device: Where it is.
        checkpoint: Where its weights are from.
        step: Steps that it has taken.
    """

    model: nn.Module
    tokenizer: Tokenizer
    length: int
    device: torch.device
    checkpoint: Path
    step: int

    @classmethod
    def open(
        cls,
        run: str | Path,
        *,
        checkpoint: str | None = None,
        device: str = "auto",
        trust: bool = False,
    ) -> TrainedModel:
        """Read a checkpoint of a pretraining, or a model of transformers."""
        run = Path(run).expanduser()
        if is_transformers_folder(run) and not (run / CHECKPOINTS).exists():
            if checkpoint is not None:
                raise RunError(f"{run}: is one model, without checkpoints such as {checkpoint!r}")
            origin, tokenizer = open_origin(run), open_tokenizer(str(run))
        else:
            path = _checkpoint(run, checkpoint)
            config = recorded_pretraining(run)
            check_trusted("model", config.model.name, str(run / "config.yaml"), trust)
            origin = open_origin(path, trust=trust)
            tokenizer = _tokenizer(config, run, trust=trust)
        place = device_named(device)
        model = origin.module().to(place).eval().requires_grad_(False)
        length = origin.length or _USUAL_LENGTH
        return cls(model, tokenizer, length, place, origin.path, origin.step or 0)

    def score(
        self,
        rows: Iterable[tuple[NDArray[Any], int]],
        update: Callable[[int, int], None] = lambda done, total: None,
    ) -> RowScores:
        """Score rows: the tokens of each, and where the first one is that is scored, >= 1."""
        windows: list[TaskWindow] = []
        count = 0
        for number, (tokens, scored) in enumerate(rows):
            windows += row_windows(number, tokens, scored, self.length)
            count = number + 1
        return self._scored(windows, count, update)

    def _scored(
        self, windows: Sequence[TaskWindow], count: int, update: Callable[[int, int], None]
    ) -> RowScores:
        if not windows:
            return RowScores(np.zeros(count), np.ones(count, dtype=bool))
        tokens = min(_PASS_TOKENS, _PASS_LOGITS // self.tokenizer.vocab_size)
        batches = window_batches(windows, longest=self.length, tokens=tokens)
        parts = []
        for number, batch in enumerate(batches):
            parts.append(self._pass(batch))
            update(number + 1, len(batches))
        loss_P, missed_P = torch.cat(parts, 1).cpu().numpy()
        missed_R = sums_by_row(batches, missed_P, count)
        return RowScores(-sums_by_row(batches, loss_P, count), missed_R == 0)

    def _pass(self, batch: WindowBatch) -> Tensor:
        """Return each scored token's loss, and 1 where it is not the likeliest; shape (2, P)."""
        read = (batch.tokens_BW[:, :-1], batch.place_P, batch.targets_P)
        tokens_BT, place_P, target_P = (
            torch.from_numpy(np.ascontiguousarray(part)).to(self.device) for part in read
        )
        with torch.no_grad():
            logits_BTV = logits_of(self.model(tokens_BT))
        logits_PV = logits_BTV.flatten(0, 1)[place_P].float()
        losses_P = functional.cross_entropy(logits_PV, target_P, reduction="none")
        missed_P = logits_PV.argmax(-1) != target_P
        return torch.stack([losses_P.double(), missed_P.double()])


def _checkpoint(run: Path, name: str | None) -> Path:
    found = {path.name: path for path in found_checkpoints(run / CHECKPOINTS)}
    if not found:
        raise RunError(
            f"{run}: has no checkpoints; give the directory of a mixopt pretrain, or a folder"
            " of transformers"
        )
    if name is None:
        return list(found.values())[-1]
    if name not in found:
        raise RunError(
            f"{run / CHECKPOINTS}: has no checkpoint {name!r}{did_you_mean(name, found)}; "
            f"available: {', '.join(found)}"
        )
    return found[name]


def _tokenizer(config: PretrainConfig, run: Path, *, trust: bool) -> Tokenizer:
    """Return the tokenizer of a run's text."""
    if config.stream is not None:
        return saved_tokenizer(run / HELD_OUT, read_stream_index(run / HELD_OUT).tokenizer)
    path = corpus_path(config, run)
    if config.prepared_corpus is not None and not trust:
        raise RunError(
            f"{run / 'config.yaml'}: prepared_corpus: {config.prepared_corpus} is outside the run;"
            " to read its tokenizer add --trust (in Python trust=True)"
        )
    return saved_tokenizer(path, read_corpus_index(path).tokenizer)


@dataclass(frozen=True)
class ScoredTask:
    """What a model scored in a task.

    Attributes:
        name: The task.
        items: Items that were scored.
        bits_per_byte: Of their continuations.
        contexts_cut: Items whose context was cut from the left.
        answers_in_pieces: Items whose continuation is longer than what the model reads at once.
    """

    name: str
    items: int
    bits_per_byte: float
    contexts_cut: int
    answers_in_pieces: int


@dataclass(frozen=True)
class TaskScores:
    """What a checkpoint scored.

    Attributes:
        checkpoint: Where its weights are from.
        step: Steps that it has taken.
        length: Most tokens that the model predicts at once.
        tasks: By name, in order.
    """

    checkpoint: Path
    step: int
    length: int
    tasks: tuple[ScoredTask, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        tasks = {}
        for one in self.tasks:
            values = asdict(one)
            tasks[values.pop("name")] = values
        about = {"checkpoint": str(self.checkpoint), "step": self.step, "length": self.length}
        return {**about, "tasks": tasks}


def score_tasks(
    run: str | Path,
    folder: str | Path,
    *,
    checkpoint: str | None = None,
    items: int | None = None,
    device: str = "auto",
    trust: bool = False,
) -> TaskScores:
    """Score tasks with a checkpoint of a pretraining."""
    files = task_files(folder)
    chosen = {name: chosen_items(read_items(path), items) for name, path in files.items()}
    model = TrainedModel.open(run, checkpoint=checkpoint, device=device, trust=trust)
    encoded = [encode_task(name, some, model.tokenizer) for name, some in chosen.items()]
    scored = tuple(
        _scored_task(task, bits, model.length)
        for task, bits in zip(encoded, _bits_per_byte(model, encoded), strict=True)
    )
    return TaskScores(model.checkpoint, model.step, model.length, scored)


def scores_text(scores: TaskScores) -> str:
    """Return a table for a terminal."""
    title = f"{scores.checkpoint.name}, {scores.length:,} tokens at once, float32"
    rows = [
        (task.name, f"{task.bits_per_byte:.4f}", f"{task.items:,}", _cut(task))
        for task in scores.tasks
    ]
    return table_text(title, ("task", "bits per byte", "items", "cut"), rows)


def _cut(task: ScoredTask) -> str:
    counts = ((task.contexts_cut, "contexts"), (task.answers_in_pieces, "answers in pieces"))
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)


def _scored_task(task: EncodedTask, bits_per_byte: float, length: int) -> ScoredTask:
    sizes_R = np.diff(task.start_R)
    is_long_R = sizes_R - task.scored_R > length
    is_cut_R = (sizes_R - 1 > length) & ~is_long_R
    return ScoredTask(
        task.name, task.rows, bits_per_byte, int(is_cut_R.sum()), int(is_long_R.sum())
    )


def _bits_per_byte(model: TrainedModel, tasks: Sequence[EncodedTask]) -> list[float]:
    """Score all tasks together."""
    rows = [(task.row(r), int(task.scored_R[r])) for task in tasks for r in range(task.rows)]
    with progress("scoring tasks", 1.0) as update:
        scores = model.score(rows, lambda done, total: update(done / total, f"{done} of {total}"))
    found, first = [], 0
    for task in tasks:
        found.append(task.bits_per_byte(scores.log_probability_R[first : first + task.rows]))
        first += task.rows
    return found
