"""Items of tasks, which tokens of a continuation are scored, and windows of a model."""

import dataclasses
import gzip
import inspect
import json
import math

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings, strategies as st
from refusals import refuses

from mixopt.corpus import (
    EncodedTask,
    Item,
    RowBatches,
    chosen_items,
    encode_task,
    read_items,
    task_files,
)
from mixopt.corpus.tasks import open_task, row_windows, write_task
from mixopt.corpus.tokenizer import ByteTokenizer, FastTokenizer
from mixopt.errors import ConfigError, CorpusError

TEXTS = [inspect.getsource(inspect), "漢字 é ü «quoted»"]
GOLD = {"id": "394", "context": "Q?\nAnswer:", "continuation": " a"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_line_is_an_item_packed_too_and_a_damaged_file_is_refused(tmp_path):
    content = json.dumps(GOLD).encode() + b"\n"
    whole = gzip.compress(b"".join(content.replace(b"394", str(n).encode()) for n in range(500)))
    other = {"id": 7, "context": "def f():\n", "continuation": "    return 1", "weight": 2}
    assert list(read_items(write(tmp_path / "t.jsonl", GOLD, other))) == [
        Item("394", "Q?\nAnswer:", " a"),
        Item("7", "def f():\n", "    return 1", 2.0),
    ]
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(whole)
    assert len(list(read_items(path))) == 500
    (tmp_path / "empty").write_text("\n")
    for damaged in (whole[: len(whole) // 2], b"no"):
        path.write_bytes(damaged)
        refuses(ConfigError, r"t\.jsonl\.gz: cannot be read", list, read_items(path))
    for name, message in (("none", "none: no such file"), ("empty", "empty: has no items; write")):
        refuses(ConfigError, message, list, read_items(tmp_path / name))


def line(**changes):
    return json.dumps(GOLD | {"id": "2"} | changes).encode()


WRONG = {
    "continuation: is empty": line(continuation=""),
    "contxt: unknown field": line(contxt="Q"),
    "context: invalid UTF-8 at character 2": line(context="Q\ud800"),
    "weight: should be greater than 0": line(weight=0.0),
    "id '394' is also used in line 1; give each item its own id": line(id="394"),
    "invalid UTF-8 at byte 9": b'{"id": "\xff"}',
    "continuation: is missing": b'{"id": 3, "context": ""}',
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_item_is_refused_with_its_line(tmp_path, message):
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(GOLD).encode() + b"\n" + WRONG[message] + b"\n")
    refuses(ConfigError, f"t.jsonl:2: {message}", list, read_items(path))


def test_items_are_chosen_by_their_ids_wherever_they_stand_and_keep_their_order():
    items = [Item(str(n), "c", " a") for n in range(500)]
    first = chosen_items(iter(items), 50)
    assert {item.id for item in chosen_items(iter(items[::-1]), 50)} == {item.id for item in first}
    assert len(first) == 50
    assert [int(item.id) for item in first] == sorted(int(item.id) for item in first)
    assert set(chosen_items(iter(items), 20)) < set(first)
    assert len(chosen_items(iter(items[:5]), 50)) == len(chosen_items(iter(items[:5]), None)) == 5


def test_a_folder_has_a_task_for_each_file(tmp_path):
    for name in ("arc.jsonl", "code.jsonl.gz", ".hidden.jsonl", "README.md"):
        (tmp_path / name).write_text("")
    assert list(task_files(tmp_path)) == ["arc", "code"]
    (tmp_path / "arc.jsonl.zst").write_text("")
    refuses(ConfigError, r"arc\.jsonl is also task 'arc'", task_files, tmp_path)
    refuses(ConfigError, "no such folder", task_files, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: has no tasks; add a file for each, \*.jsonl"):
        task_files(tmp_path / "empty")


@pytest.fixture(scope="module")
def bpe():
    return FastTokenizer.train(TEXTS, 400)


def encoded(context, continuation, tokenizer):
    return encode_task("t", [Item("1", context, continuation)], tokenizer)


def scored(task):
    return task.row(0)[int(task.scored_R[0]) :]


def test_a_row_begins_with_an_end_of_document_and_its_continuation_is_scored_or_refused(
    monkeypatch,
):
    task = encoded("ab", " cd", ByteTokenizer())
    assert task.row(0).tolist() == [256, *b"ab cd"]
    assert scored(task).tolist() == list(b" cd")
    assert (task.bytes_R.tolist(), task.scored_tokens, task.rows) == ([3], 3, 1)
    assert scored(encoded("", "ab", ByteTokenizer())).tolist() == list(b"ab")
    spans = ByteTokenizer().spans(["ab"])
    monkeypatch.setattr(ByteTokenizer, "spans", lambda self, texts: spans)
    with pytest.raises(ConfigError, match="item '1': the tokenizer has no token for the cont"):
        encoded("ab", " cd", ByteTokenizer())


WORDS = st.lists(st.sampled_from(["Q: é\nA:", "def f():\n    ", "\t", "漢", " return x", "\n\n"]))
TEXT = WORDS.map("".join) | st.text(max_size=20)


@settings(max_examples=60)
@given(context=TEXT, continuation=TEXT.filter(len))
def test_what_is_scored_is_the_end_of_the_text_in_whole_tokens(bpe, context, continuation):
    task = encoded(context, continuation, bpe)
    found = bpe.inner.decode(scored(task).tolist(), skip_special_tokens=False)
    text = (context + continuation).encode()
    assert bpe.inner.decode(task.row(0)[1:].tolist()) == context + continuation
    assert task.bytes_R[0] >= len(continuation.encode())
    if "\ufffd" not in found:  # a token may end in the middle of a character
        assert text.endswith(found.encode())
        assert task.bytes_R[0] == len(found.encode())


def test_a_vocabulary_that_is_not_of_bytes_is_placed_by_characters():
    """It is a unigram model that writes a space as another character, as SentencePiece does."""
    letters = ((item, -3.0) for item in "abé漢\u2581")
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *letters, ("\u2581b", -1)]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0, byte_fallback=False))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    metaspace = FastTokenizer(inner, "</s>")
    for text, ends in (("b é", [1, 2, 4]), ("é b", [2, 4]), ("漢 b", [3, 5])):
        (spans,) = metaspace.spans([text])
        assert spans.end_T[-1] == len(text.encode())
        assert set(ends) <= set(spans.end_T.tolist()) | {0}


@settings(max_examples=60)
@given(before=st.integers(0, 40), answer=st.integers(1, 60), length=st.integers(1, 24))
def test_windows_score_each_token_once_and_fit_the_model(before, answer, length):
    text = "".join(chr(97 + n % 26) for n in range(answer))
    task = encoded("c" * before, text, ByteTokenizer())
    found = []
    for window in row_windows(0, task.row(0), int(task.scored_R[0]), length):
        assert len(window.tokens) <= length + 1
        assert window.scored >= 1
        found += window.tokens[window.scored :].tolist()
    assert found == scored(task).tolist()


def test_rows_of_about_one_length_are_read_at_once_and_what_is_scored_is_placed():
    rows = [(np.arange(5), 3), (np.arange(100), 98), (np.arange(5), 4), (np.arange(100), 99)]
    read = RowBatches(rows, longest=128, tokens=128)
    short, long, _ = read.batches
    assert [batch.tokens_BW.shape for batch in read.batches] == [(2, 65), (1, 129), (1, 129)]
    assert (short.place_P.tolist(), short.row_P.tolist()) == ([2, 3, 67], [0, 0, 2])
    assert (short.targets_P.tolist(), long.targets_P.tolist()) == ([3, 4, 4], [98, 99])
    assert read.sums(np.array([1.0, 2, 4, 8, 16, 32])).tolist() == [3, 24, 4, 32]


def test_bits_per_byte_is_the_weighted_mean_over_items_and_an_encoded_task_is_read_back(tmp_path):
    items = [Item("1", "Q", " aé"), Item("2", "", " zzz", weight=3.0)]
    task = encode_task("t", items, ByteTokenizer())
    bits = task.bits_per_byte(np.array([-8.0, -1.0]))
    assert bits == pytest.approx((8 + 3 * 1) / 4 / (4 * math.log(2)))
    assert task.column == "task/t/bits_per_byte"
    write_task(task, tmp_path)
    reloaded = open_task(tmp_path, "t")
    for field in dataclasses.fields(EncodedTask):
        assert np.array_equal(getattr(task, field.name), getattr(reloaded, field.name)), field.name
    np.savez(tmp_path / "tasks" / "other.npz", tokens_T=task.tokens_T)
    with pytest.raises(CorpusError, match=r"other.npz: damaged: its arrays are not those"):
        open_task(tmp_path, "other")
