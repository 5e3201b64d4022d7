"""Documents become rows: every token once, whole where they fit, labels kept, of any source."""

from unittest.mock import patch

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from refusals import refuses
from token_writers import write_shards
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mixopt import CorpusError, MixtureDataset, MixtureLoader, MixtureSampler, PackedDocuments
from mixopt.errors import SamplerError
from mixopt.loading import ChatTokens, packed_documents, stack_samples
from mixopt.loading.packing import best_fit, best_fit_rows, packed_fields

END = 0
DOCUMENTS = st.lists(st.lists(st.integers(1, 99), max_size=30), min_size=1, max_size=25)


@given(documents=DOCUMENTS, length=st.integers(1, 16))
@settings(max_examples=60)
def test_best_fit_keeps_documents_whole_that_are_no_longer_than_a_row(documents, length):
    packed = best_fit(documents, length)
    found = []
    for tokens, document in zip(packed.tokens_RL, packed.document_RL, strict=True):
        found += [tokens[document == k].tolist() for k in range(document.max() + 1)]
    pieces = [d[k : k + length] for d in documents for k in range(0, len(d), length)]
    assert sorted(found) == sorted(pieces)


def one_by_one(lengths, length):
    """Best fit, decreasing, as it is defined: tokens in each row, in the order of opening."""
    rows = []
    for size in sorted(lengths, reverse=True):
        fitting = [k for k, used in enumerate(rows) if used + size <= length]
        if fitting:
            rows[max(fitting, key=lambda k: rows[k])] += size
        else:
            rows.append(size)
    return rows


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n)))))
@settings(max_examples=200)
def test_rows_are_filled_as_best_fit_is_defined(case):
    length, lengths = case
    row = best_fit_rows(np.array(lengths, int), length)
    assert sorted(np.bincount(row, weights=lengths).tolist()) == sorted(one_by_one(lengths, length))


def test_fields_keep_the_documents_of_a_row_apart():
    fields = packed_fields(best_fit([[5, 6, 7], [8, 9], [4, 4, 4, 4]], 7, padding=0))
    row = {name: values[1].tolist() for name, values in fields.items()}
    assert fields["input_ids"][0].tolist() == [5, 6, 7, 4, 4, 4, 4]
    assert row["input_ids"] == [8, 9, 0, 0, 0, 0, 0]
    assert row["labels"] == [-100, 9, -100, -100, -100, -100, -100]
    assert row["position_ids"] == [0, 1, 0, 1, 2, 3, 4]  # padding is a part of its own
    assert row["document"] == [0, 0, -1, -1, -1, -1, -1]
    assert fields["labels"][0].tolist() == [-100, 6, 7, -100, 4, 4, 4]
    assert fields["position_ids"][0].tolist() == [0, 1, 2, 0, 1, 2, 3]


def shards_of(path, documents):
    tokens = [token for document in documents for token in (*document, END)]
    return write_shards(path, tokens, shard_tokens=300)


def random_documents(count, *, longest=30, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, longest, count)
    return [rng.integers(1, 99, size).tolist() for size in sizes]


def unpacked(packed, field="input_ids"):
    """Return the tokens (or labels) of each document, put together from the rows."""
    found = {}
    for number in range(len(packed)):
        row = packed[number]
        for place, (document, start, stop) in enumerate(packed.documents(number)):
            part = row[field][row["document"] == place]
            assert len(part) == stop - start
            found.setdefault(document, {})[start] = part.tolist()
    return {
        document: [value for _, part in sorted(parts.items()) for value in part]
        for document, parts in found.items()
    }


@given(documents=DOCUMENTS, length=st.integers(1, 20), window=st.integers(1, 9))
@settings(max_examples=60)
def test_each_token_of_each_document_is_in_one_row(documents, length, window):
    if not any(documents):
        return
    with patch.object(packed_documents, "WINDOW", window):
        packed = PackedDocuments(documents, length=length)
    assert unpacked(packed) == {k: d for k, d in enumerate(documents) if d}
    assert packed.lengths().tolist() == [
        (packed[k]["document"] >= 0).sum() for k in range(len(packed))
    ]
    assert packed.summary["tokens"] == sum(map(len, documents))
    assert packed.summary["split"] == sum(len(d) > length for d in documents)


@pytest.mark.parametrize("scanned", [1 << 20, 7])
def test_documents_of_shards_are_found_by_their_ends_across_files(tmp_path, monkeypatch, scanned):
    monkeypatch.setattr("mixopt.loading.documents.SCAN_TOKENS", scanned)
    documents = [[], *random_documents(39)]
    packed = PackedDocuments(shards_of(tmp_path / "t", documents), length=16, document_end=END)
    assert unpacked(packed) == {k: [*d, END] for k, d in enumerate(documents)}
    assert packed[0]["input_ids"].dtype == np.uint16
    assert packed.summary["documents"] == 40
    shards = write_shards(tmp_path / "open", [1, END, 2, 3])
    assert unpacked(PackedDocuments(shards, length=3, document_end=END)) == {0: [1, END], 1: [2, 3]}


def test_long_documents_are_truncated_on_request_and_lost_tokens_are_reported():
    packed = PackedDocuments([[1] * 3, list(range(1, 12))], length=4, long="truncate")
    assert unpacked(packed) == {0: [1] * 3, 1: [1, 2, 3, 4]}
    summary = packed.summary
    lost = {"truncated": 1, "left_out": 7, "split": 0, "tokens": 7, "fill": 7 / 8}
    assert summary == {"documents": 2, "rows": 2, **lost}
    assert sorted(packed[k]["input_ids"].tolist() for k in range(2)) == [[1, 1, 1, 0], [1, 2, 3, 4]]


SAMPLES = [
    {"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]},
    {"input_ids": [5, 6, 7], "completion_mask": [0, 0, 1]},
    {"input_ids": [8, 9, 10, 11, 12], "assistant_masks": [0, 1, 0, 1, 1]},
    {"input_ids": [13, 14, 0, 0], "attention_mask": [1, 1, 0, 0]},
    {"input_ids": [15, 16, 17], "labels": [15, 16, 17], "completion_mask": [0, 1, 1]},
]
TOKENS = {0: [1, 2, 3, 4], 1: [5, 6, 7], 2: [8, 9, 10, 11, 12], 3: [13, 14], 4: [15, 16, 17]}
LABELS = {
    0: [-100, -100, 3, 4],
    1: [-100, -100, 7],
    2: [-100, 9, -100, 11, 12],
    3: [-100, 14],
    4: [-100, 16, 17],
}


def as_dataset(samples):
    names = {name for sample in samples for name in sample}
    return datasets.Dataset.from_dict({n: [sample.get(n) for sample in samples] for n in names})


@pytest.mark.parametrize(("make", "length"), [(list, 5), (as_dataset, 9)])
def test_labels_and_masks_survive_packing_token_for_token(make, length, monkeypatch):
    packed = PackedDocuments(make(SAMPLES), length=length)
    assert unpacked(packed) == TOKENS
    assert unpacked(packed, "labels") == LABELS
    carrying = [(packed[k]["labels"] != -100).sum() for k in range(len(packed))]
    with monkeypatch.context() as patch:
        patch.setattr("mixopt.loading.documents.document_of", None)  # no sample is read again
        assert packed.lengths("supervised").tolist() == carrying
        assert MixtureDataset({"a": packed}).lengths("supervised")["a"].tolist() == carrying
    split = PackedDocuments(make(SAMPLES[:1]), length=2)
    assert unpacked(split, "labels")[0] == [-100, -100, -100, 4], "3 begins a piece"


def test_lengths_of_a_dataset_come_from_its_offsets_or_its_transform(monkeypatch):
    documents = random_documents(30)
    dataset = datasets.Dataset.from_dict({"input_ids": documents, "source": ["x"] * 30})
    dataset, documents = dataset.select([3, 1, 0]), [documents[k] for k in (3, 1, 0)]
    monkeypatch.setattr("mixopt.loading.documents.document_of", None)  # no sample is read
    packed = PackedDocuments(dataset, length=32)
    monkeypatch.undo()
    assert unpacked(packed) == dict(enumerate(documents))
    dataset.set_transform(lambda rows: {"input_ids": [[*ids, 9] for ids in rows["input_ids"]]})
    own = {k: [*document, 9] for k, document in enumerate(documents)}
    assert unpacked(PackedDocuments(dataset, length=40)) == own


def test_packed_domains_stand_beside_cut_ones_in_one_mixture(tmp_path):
    web = shards_of(tmp_path / "web", random_documents(60))
    chat = PackedDocuments(SAMPLES * 20, length=16)
    dataset = MixtureDataset({"web": web, "chat": chat}, length=16, document_end=END, packed=True)
    sampler = MixtureSampler(dataset.sizes, [0.5, 0.5], batch_size=4, batches=5)
    for batch in MixtureLoader(dataset, sampler):
        assert batch["input_ids"].shape == batch["labels"].shape == (4, 16)
        positions = batch["position_ids"].numpy().ravel()
        assert batch["cu_seqlens"].tolist() == [*np.flatnonzero(positions == 0), 64]
        assert batch["max_seqlen"] == np.diff(batch["cu_seqlens"]).max()
        for tokens, d, row in zip(batch["input_ids"], batch["domain"], batch["row"], strict=True):
            own = chat[int(row)]["input_ids"] if d else web.rows([row * 16], 16)[0]
            assert tokens.tolist() == own.tolist()
    assert np.ndim(dataset.lengths("supervised")["web"]) == 1  # first tokens have no label
    sources = {"web": web, "books": chat, "chat": [{"input_ids": np.zeros(16)}] * 9}
    dataset = MixtureDataset(sources, length=16, document_end=END)
    lengths = dataset.lengths("tokens")
    assert lengths["web"] == dataset.lengths("supervised")["web"] == 16
    assert np.array_equal(lengths["books"], chat.lengths())
    assert lengths["chat"].tolist() == [16] * 9
    MixtureSampler(dataset.sizes, [0.4, 0.3, 0.3], batch_size=4, unit="tokens", lengths=lengths)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ([[1]], {"long": "cut"}, r"long='cut'; it is one of split, truncate"),
        ([{"input_ids": [1, 2], "labels": 1}], {}, r"document 0: labels: 1 values for 2 input_"),
        ([[1, -5]], {}, r"document 0: input_ids: -5 is not a token id"),
        ([[0.5]], {}, r"document 0: input_ids: has 1 dimensions of float64; a document is one"),
        ([{"text": "a"}], {}, r"document 0: has no input_ids, but text; tokenise it"),
        ([], {}, r"the source has no tokens: there is nothing to pack"),
        ([[1]], {"document_end": 0}, r"document_end= is for token shards"),
        (iter([[1]]), {}, r"list_iterator has no length and index; for a stream use"),
        ([[[1], [2, 3]]], {}, r"document 0: input_ids: has 2 dimensions of float64; a document"),
    ],
)
def test_what_cannot_be_packed_is_refused_in_one_line(source, options, message):
    refuses(CorpusError, message, PackedDocuments, source, length=4, **options)


def test_shards_need_the_id_that_ends_their_documents(tmp_path):
    shards = shards_of(tmp_path / "t", [[1, 2]])
    with pytest.raises(CorpusError, match="give the id that ends a document, document_end="):
        PackedDocuments(shards, length=4)
    with pytest.raises(CorpusError, match=r"none of its 3 tokens is document_end=77"):
        PackedDocuments(shards, length=4, document_end=77)
    with pytest.raises(CorpusError, match=r"are tokens; tokenize= is for samples"):
        PackedDocuments(shards, length=4, document_end=END, tokenize=list)
    with pytest.raises(CorpusError, match=r"packed=True: give the id that ends a document"):
        MixtureDataset({"web": shards}, length=4, packed=True)


def test_domains_of_different_fields_do_not_go_into_one_batch(tmp_path):
    sources = {"web": shards_of(tmp_path / "t", random_documents(20)), "chat": SAMPLES[:1] * 9}
    dataset = MixtureDataset(sources, length=4)
    sampler = MixtureSampler(dataset.sizes, [0.5, 0.5], batch_size=4, batches=1)
    said = r"domain 'web', row \d+: no column 'labels', which domain 'chat', row \d+ has"
    refuses(SamplerError, said, list, MixtureLoader(dataset, sampler))
    with pytest.raises(SamplerError, match=r"sample 1: no column 'b', which sample 0 has"):
        stack_samples([{"a": 1, "b": 2}, {"a": 1}])


def test_the_seed_decides_which_documents_meet():
    documents = random_documents(60, longest=8)
    rows = [
        [PackedDocuments(documents, length=32, **how).documents(k) for k in range(3)]
        for how in ({}, {"seed": 0}, {"seed": 1})
    ]
    assert rows[0] == rows[1] != rows[2]
    numbers = iter(range(99))
    packed = PackedDocuments(documents, length=32, tokenize=lambda one: one[next(numbers) // 60 :])
    with pytest.raises(CorpusError, match=r"document \d+ has \d tokens, but \d when rows were"):
        packed[0]
    refuses(IndexError, rf"rows 0 to {len(packed)} of {len(packed)}", packed.read, [0, len(packed)])


CONFIG = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2,
    initializer_range=0.5,  # so that attention matters
)  # fmt: skip


def made_samples():
    rng = np.random.default_rng(0)
    for size in rng.integers(1, 32, 24).tolist():
        tokens = rng.integers(0, 64, size)
        yield {"input_ids": tokens, "labels": np.where(rng.random(size) < 0.7, tokens, -100)}


def test_the_loss_over_packed_rows_is_that_of_the_documents_one_by_one():
    torch.manual_seed(0)
    model, samples = LlamaForCausalLM(CONFIG).double().eval(), list(made_samples())
    dataset = MixtureDataset({"chat": PackedDocuments(samples, length=32)})
    sampler = MixtureSampler(dataset.sizes, [1.0], batch_size=1, batches=len(dataset))
    rows = list(MixtureLoader(dataset, sampler))

    def summed(batches, *names):
        """Return the sum of the losses of all tokens that carry one, and their number."""
        loss = tokens = 0
        for batch in batches:
            labels, fields = batch["labels"][:, 1:], {name: batch[name] for name in names}
            with torch.no_grad():  # with a cache, rows are not packed
                logits = model(**fields, use_cache=False).logits[:, :-1].transpose(1, 2)
            loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            tokens += int((labels != -100).sum())
        return loss, tokens

    alone = [{name: torch.as_tensor(v)[None] for name, v in sample.items()} for sample in samples]
    expected, tokens = summed(alone, "input_ids")
    found, packed_tokens = summed(rows, "input_ids", "position_ids")
    assert packed_tokens == tokens
    assert found / tokens == pytest.approx(expected / tokens, abs=1e-5)
    seeing_each_other, _ = summed(rows, "input_ids")
    assert abs(seeing_each_other - expected) / tokens > 1e-2


# --- Conversations: loss on the assistant's tokens alone ------------------------------------------


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
        (None, {}, r"has no chat template; give ChatTokens\(template=\)"),
        (PLAIN, {"text": "a"}, "column 'messages' has no messages"),
        (FORGETFUL, {"messages": TALK}, "writes the first 3 of 5 messages otherwise"),
        ("{{ raise_exception('no system') }}", {"messages": TALK}, "TemplateError: no system"),
    ],
)
def test_a_conversation_that_cannot_be_written_is_told_in_one_line(template, sample, message):
    refuses(CorpusError, message, lambda: ChatTokens(tokenizer(template))(sample))
