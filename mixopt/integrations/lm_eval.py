"""A model of `mixopt pretrain` inside lm-eval (EleutherAI's harness), for its tasks and prompts.

    import mixopt.integrations.lm_eval  # registers the model "mixopt"
    lm_eval.simple_evaluate("mixopt", model_args="run=runs/pretrain", tasks=["arc_easy"])

Text is encoded and cut as `mixopt tasks score` does it: a row begins with the end-of-document
token, each token that ends after the context is scored, a long context is cut from the left, and a
long answer is scored in pieces. So ln p of an answer is that of mixopt. lm-eval's own models give
the same, but where a context ends in white space, which they score with the answer.

lm-eval is no dependency of mixopt: pip install lm-eval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from numpy.typing import NDArray

from mixopt.corpus import Tokenizer
from mixopt.errors import PluginError
from mixopt.system import Array, BoolArray, progress
from mixopt.tasks import scored_from

Row = tuple[NDArray[Any], int]
Request = tuple[tuple[str, str], list[int], list[int]]


class ScoringModel(Protocol):
    """What is asked of a model (mixopt.pretraining.TrainedModel)."""

    @property
    def tokenizer(self) -> Tokenizer:
        """That of its training text."""
        ...

    @property
    def length(self) -> int:
        """Most tokens that it predicts at once."""
        ...

    @property
    def checkpoint(self) -> Path:
        """Where its weights are from."""
        ...

    def score(
        self, rows: Iterable[Row], update: Callable[[int, int], None]
    ) -> tuple[Array, BoolArray]:
        """Return ln p of the scored tokens of each row, and whether all are the likeliest."""
        ...


@register_model("mixopt")
class MixoptLM(TemplateLM):  # type: ignore[misc]
    """A checkpoint of a pretraining that scores what lm-eval asks; it does not generate.

    Attributes:
        model: What scores.
    """

    def __init__(
        self,
        run: str | Path | ScoringModel,
        *,
        checkpoint: str | None = None,
        device: str = "auto",
        trust: bool = False,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        """Read a checkpoint.

        Args:
            run: The directory of a pretraining, a folder of transformers, or a model that is read
                already.
            checkpoint: Name of its folder, such as `step-00001000`; the newest when None.
            device: `auto`, `cpu` or `cuda`.
            trust: Whether what the run names may be imported, and read where it is elsewhere.
            batch_size: lm-eval gives one to every model; batches are by tokens here.
            max_batch_size: Likewise.

        Raises:
            MixoptError: The checkpoint cannot be used.
        """
        super().__init__()
        self.model = _opened(run, checkpoint, device, trust)

    @property
    def eot_token_id(self) -> int:
        """The end-of-document token, with which every row begins."""
        return self.model.tokenizer.end_of_document

    @property
    def max_length(self) -> int:
        """Most tokens that the model reads at once."""
        return self.model.length

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval keeps its cache of requests by."""
        path = self.model.checkpoint.resolve()
        return str(path if (path / "config.json").exists() else path.parent.parent)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Return the tokens of a text; there are no special ones to add."""
        ids: list[int] = self.model.tokenizer.spans([string])[0].tokens_T.tolist()
        return ids

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Encode both as one text, and part them before the first token that is scored."""
        spans = self.model.tokenizer.spans([context + continuation])[0]
        first = scored_from(spans, context)
        ids: list[int] = spans.tokens_T.tolist()
        return ids[:first], ids[first:]

    def _loglikelihood_tokens(
        self, requests: list[Request], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        rows = [self._row(context, answer) for _, context, answer in requests]
        found = self._scored(rows)
        for (texts, _, _), answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return found

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return ln p of whole texts; a long one goes in pieces with half a window before each."""
        texts = [request.args[0] for request in requests]
        rows = [self._row([], self.tok_encode(text)) for text in texts]
        found = [total for total, _ in self._scored(rows)]
        for text, total in zip(texts, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> NoReturn:
        """Refuse to write text.

        Raises:
            PluginError: Always.
        """
        raise PluginError(
            "lm-eval asks the model 'mixopt' to generate text, but it only scores answers; leave "
            "out tasks whose output_type is generate_until"
        )

    def _row(self, context: list[int], answer: list[int]) -> Row:
        """Join a row; lm-eval gives an empty context as the end-of-document token."""
        start = [] if context[:1] == [self.eot_token_id] else [self.eot_token_id]
        return np.array([*start, *context, *answer]), len(start) + len(context)

    def _scored(self, rows: list[Row]) -> list[tuple[float, bool]]:
        with progress("scoring", 1.0) as update:
            total_R, greedy_R = self.model.score(
                rows, lambda done, all_of: update(done / all_of, f"{done} of {all_of}")
            )
        return list(zip(total_R.tolist(), greedy_R.tolist(), strict=True))


def _opened(
    run: str | Path | ScoringModel, checkpoint: str | None, device: str, trust: bool
) -> ScoringModel:
    if not isinstance(run, (str, Path, int)):  # lm-eval reads a name of digits as a number
        return run
    from mixopt.pretraining import TrainedModel

    return TrainedModel.open(str(run), checkpoint=checkpoint, device=device, trust=trust)
