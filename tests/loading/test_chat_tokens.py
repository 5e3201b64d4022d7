"""Conversations: loss on the assistant's tokens alone, the same whole and packed."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mixopt import CorpusError
from mixopt.loading import ChatTokens

PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|end|>\n{% endgeneration %}{% else %}{{ m.content }}<|end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
FORGETFUL = (  # drops what was answered before, as templates of reasoning models drop thoughts
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if loop.last or m.role != 'assistant' %}{{ m.content }}{% endif %}<|end|>\n{% endfor %}"
)
TALK = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello, world"},
    {"role": "user", "content": "and ünïcode?"},
    {"role": "assistant", "content": "yés"},
]


def tokenizer(template=None):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: k for k, c in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    marks = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    made = PreTrainedTokenizerFast(tokenizer_object=inner, additional_special_tokens=marks)
    made.chat_template = template
    return made


def answers(fields, decode):
    """Return the text of each run of tokens that carry loss."""
    carries = np.asarray(fields["labels"]) != -100
    bounds = np.flatnonzero(np.diff(carries.astype(int), prepend=0, append=0)).reshape(-1, 2)
    return [decode(np.asarray(fields["input_ids"])[start:stop].tolist()) for start, stop in bounds]


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_loss_is_on_what_the_assistant_said_and_its_end(template):
    made = tokenizer(template)
    fields = ChatTokens(made)({"messages": TALK})
    assert made.decode(fields["input_ids"].tolist()) == made.apply_chat_template(
        TALK, tokenize=False
    )
    assert answers(fields, made.decode) == ["hello, world<|end|>\n", "yés<|end|>\n"]
    other = ChatTokens(tokenizer(), template=template, messages="talk")({"talk": TALK})
    assert other["labels"].tolist() == fields["labels"].tolist()


@pytest.mark.parametrize(
    ("template", "sample", "message"),
    [
        (PLAIN, {"text": "a"}, "column 'messages' has no messages"),
        (FORGETFUL, {"messages": TALK}, "writes the first 3 of 5 messages otherwise"),
        ("{{ raise_exception('no system') }}", {"messages": TALK}, "TemplateError: no system"),
    ],
)
def test_a_conversation_that_cannot_be_written_is_told_in_one_line(template, sample, message):
    with pytest.raises(CorpusError, match=message) as error:
        ChatTokens(tokenizer(template))(sample)
    assert "\n" not in str(error.value)


def test_a_tokenizer_without_a_template_is_refused_at_once():
    with pytest.raises(CorpusError, match=r"has no chat template; give ChatTokens\(template=\)"):
        ChatTokens(tokenizer())
