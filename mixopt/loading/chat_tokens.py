"""ChatTokens: tokenise conversations by a chat template, with loss on the assistant's turns only.

Templates with `{% generation %}` mark the tokens of these turns. For other templates they are
found by applying the template to prefixes of the conversation: the tokens that a turn adds after
the generation prompt. Templates that change earlier turns when later ones follow are refused,
because their tokens would be guessed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixopt.errors import CorpusError
from mixopt.loading.packing import NO_LOSS
from mixopt.system import one_line

_MARKS = re.compile(r"\{%-?\s*generation\b")


class ChatTokens:
    """Turns a sample with messages into `input_ids` and `labels`, for `tokenize=`."""

    def __init__(
        self, tokenizer: Any, *, template: str | None = None, messages: str = "messages"
    ) -> None:
        """Check and store the tokenizer.

        Args:
            tokenizer: A transformers tokenizer.
            template: A chat template that replaces the tokenizer's.
            messages: The column with the conversation.

        Raises:
            CorpusError: The tokenizer has no chat template, or several and none is chosen.
        """
        chosen = template or getattr(tokenizer, "chat_template", None)
        if not isinstance(chosen, str):
            name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
            fault = "has several chat templates" if chosen else "has no chat template"
            raise CorpusError(f"tokenizer {name}: {fault}; give ChatTokens(template=)")
        self._tokenizer, self._template, self._field = tokenizer, chosen, messages
        self._is_marked = bool(_MARKS.search(chosen))

    def __call__(self, sample: Any) -> dict[str, Any]:
        """Return the tokens of a conversation, and labels that are -100 outside answers."""
        messages = sample.get(self._field) if isinstance(sample, Mapping) else None
        if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
            raise CorpusError(f"a conversation: column {self._field!r} has no messages")
        tools = sample.get("tools") or None
        if self._is_marked:
            marked = self._apply(messages, tools, return_assistant_tokens_mask=True)
            tokens, mask = np.asarray(marked["input_ids"]), np.asarray(marked["assistant_masks"])
            return {"input_ids": tokens, "labels": np.where(mask != 0, tokens, NO_LOSS)}
        tokens = self._tokens(messages, tools)
        labels = np.full(len(tokens), NO_LOSS)
        for turn, message in enumerate(messages):
            if message.get("role") == "assistant":
                start = self._beginning(tokens, messages, turn, tools, is_asked=True)
                stop = self._beginning(tokens, messages, turn + 1, tools, is_asked=False)
                labels[start:stop] = tokens[start:stop]
        return {"input_ids": tokens, "labels": labels}

    def _beginning(
        self, tokens: Any, messages: Sequence[Any], turns: int, tools: Any, *, is_asked: bool
    ) -> int:
        """Count the tokens of the first turns, on request with the generation prompt."""
        if turns == len(messages) and not is_asked:
            return len(tokens)
        beginning = self._tokens(messages[:turns], tools, add_generation_prompt=is_asked)
        if not np.array_equal(beginning, tokens[: len(beginning)]):
            raise CorpusError(
                f"the chat template writes the first {turns} of {len(messages)} messages "
                "otherwise than at the beginning of all of them, so answers cannot be located: "
                "mark them by {% generation %} in the template"
            )
        return len(beginning)

    def _tokens(self, messages: Sequence[Any], tools: Any, **options: Any) -> Any:
        return np.asarray(self._apply(messages, tools, **options)["input_ids"], np.int64)

    def _apply(self, messages: Sequence[Any], tools: Any, **options: Any) -> Any:
        try:
            return self._tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                chat_template=self._template,
                tokenize=True,
                return_dict=True,
                **options,
            )
        except Exception as error:  # a template may raise anything on unsupported messages
            reason = one_line(f"{type(error).__name__}: {error}")
            raise CorpusError(f"the chat template cannot write a conversation: {reason}") from error
