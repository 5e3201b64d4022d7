"""A tokenizer, a chat template, a model and rows for the tests of fine-tuning, made here."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }} <end> {% endgeneration %}"
    "{% else %}{{ m['content'] }} <end> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
MARKS = ["<pad>", "<eos>", "<unk>", "<user>", "<assistant>", "<end>"]
WORDS = [f"{domain}{k}" for domain in ("web", "code", "chat", "ask") for k in range(20)]


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: k for k, word in enumerate([*MARKS, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>", "<end>"]})
    made.chat_template = TEMPLATE
    return made


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    sizes = {"vocab_size": len(MARKS + WORDS), "max_position_embeddings": 64}
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **shape, **ids, **sizes))


def words_of(domain, row, count):
    return " ".join(f"{domain}{(row + k) % 20}" for k in range(count))


def texts(domain, rows):
    return [{"text": words_of(domain, k, 3 + k % 7)} for k in range(rows)]


def completions(domain, rows):
    return [
        {"prompt": words_of(domain, k, 2 + k % 3), "completion": " " + words_of(domain, k + 9, 2)}
        for k in range(rows)
    ]


def chats(domain, rows):
    questions = [words_of(domain, k, 2 + k % 3) for k in range(rows)]
    answers = [words_of(domain, k + 9, 1 + k % 4) for k in range(rows)]
    roles = ("user", "assistant")
    return [
        {"messages": [{"role": r, "content": c} for r, c in zip(roles, pair, strict=True)]}
        for pair in zip(questions, answers, strict=True)
    ]
