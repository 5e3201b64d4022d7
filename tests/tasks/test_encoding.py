"""Where answers begin among tokens, how many bytes are scored, and windows of a model's length."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings, strategies as st

from mixopt.corpus.tokenizer import ByteTokenizer, FastTokenizer, TransformersTokenizer
from mixopt.errors import ConfigError
from mixopt.tasks import Item, cut_counts, encode_task, windows_of

TEXTS = [inspect.getsource(inspect), "漢字 é ü «quoted»"]


@pytest.fixture(scope="module")
def bpe():
    return FastTokenizer.train(TEXTS, 400)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("byt5")
    transformers.ByT5Tokenizer().save_pretrained(path)
    (path / "tokenizer.json").unlink(missing_ok=True)
    return TransformersTokenizer(str(path))


@pytest.fixture(scope="module")
def metaspace():
    """A unigram model that writes a space as another character, as SentencePiece does."""
    pieces = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        *((one, -3.0) for one in "abé漢\u2581"),
        ("\u2581b", -1),
    ]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0, byte_fallback=False))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    return FastTokenizer(inner, "</s>")


def gold(context, answer, tokenizer):
    return encode_task(
        "t", [Item("1", (context,), (answer,), 0)], ["bits_per_byte"], "none", tokenizer
    )


def scored(task, row=0):
    return task.row(row)[int(task.scored_R[row]) :]


def test_a_row_begins_with_an_end_of_document_and_the_answer_is_scored():
    task = gold("ab", " cd", ByteTokenizer())
    assert task.row(0).tolist() == [256, *b"ab cd"]
    assert scored(task).tolist() == list(b" cd")
    assert (task.bytes_R.tolist(), task.characters_R.tolist()) == ([3], [3])


def test_an_empty_context_leaves_the_end_of_document_before_the_answer():
    task = gold("", "ab", ByteTokenizer())
    assert task.scored_R.tolist() == [1]
    assert scored(task).tolist() == list(b"ab")


@pytest.mark.parametrize("context", ["x", "Q: é\nA:", "def f():\n    ", "tab\t", "漢", ""])
@pytest.mark.parametrize("answer", [" return x", "return", "字", "\n\n", "é é"])
def test_what_is_scored_is_the_end_of_the_text_in_whole_tokens(bpe, context, answer):
    if not answer.strip():
        answer += "x"
    task = gold(context, answer, bpe)
    found = bpe.inner.decode(scored(task).tolist(), skip_special_tokens=False)
    text = (context + answer).encode()
    assert bpe.inner.decode(task.row(0)[1:].tolist()) == context + answer
    assert task.bytes_R[0] >= len(answer.encode())
    if "\ufffd" not in found:  # a token may end in the middle of a character
        assert text.endswith(found.encode())
        assert task.bytes_R[0] == len(found.encode())
    assert task.characters_R[0] == len(answer)


def test_white_space_that_the_answer_shares_a_token_with_is_scored_with_it(bpe):
    task = gold("def f():\n    ", "    return 1", bpe)
    found = bpe.inner.decode(scored(task).tolist())
    assert found.endswith("    return 1")
    assert task.bytes_R[0] == len(found.encode()) > len("    return 1")


def test_a_character_that_is_cut_by_tokens_is_counted_in_bytes(bpe):
    task = gold("漢", "\u6f23", bpe)  # their first byte is the same
    tokens, pieces = task.row(0)[1:].tolist(), bpe.inner.id_to_token
    lengths = [len(pieces(one)) for one in tokens]
    first = int(task.scored_R[0]) - 1
    assert sum(lengths) == 6
    assert task.bytes_R[0] == sum(lengths[first:])
    assert sum(lengths[:first]) <= 3


def test_a_tokenizer_in_python_has_the_bytes_of_its_text(slow):
    text = "aé b"
    (spans,) = slow.spans([text])
    assert spans.end_T.tolist() == [1, 1, 3, 4, 5]
    task = gold("aé", " b", slow)
    assert (task.bytes_R.tolist(), len(scored(task))) == ([2], 2)


def test_a_vocabulary_that_is_not_of_bytes_is_placed_by_characters(metaspace):
    for text, ends in (("b é", [1, 2, 4]), ("é b", [2, 4]), ("漢 b", [3, 5])):
        (spans,) = metaspace.spans([text])
        ends_of_pieces = spans.end_T.tolist()
        assert ends_of_pieces[-1] == len(text.encode())
        assert set(ends) <= set(ends_of_pieces) | {0}, (text, ends_of_pieces)


@settings(deadline=None, max_examples=60)
@given(context=st.text(max_size=20), answer=st.text(min_size=1, max_size=20))
def test_ends_of_tokens_rise_to_the_bytes_of_the_text(bpe, context, answer):
    for tokenizer in (ByteTokenizer(), bpe):
        (spans,) = tokenizer.spans([context + answer])
        assert (np.diff(spans.end_T) >= 0).all()
        assert spans.end_T[-1] == len((context + answer).encode())


def test_an_answer_without_a_token_is_refused():
    class Deaf(ByteTokenizer):
        def spans(self, texts):
            return [
                one._replace(tokens_T=one.tokens_T[:2], end_T=one.end_T[:2])
                for one in super().spans(texts)
            ]

    with pytest.raises(
        ConfigError, match="item '1': the tokenizer has no token for the answer ' cd'"
    ):
        gold("ab", " cd", Deaf())


ITEMS = [
    Item("1", ("Q",) * 3, (" a", " b", " c"), 2, unconditional="A:"),
    Item("2", ("x", "y"), (" d", " d"), 0, unconditional="A:"),
]


def test_only_the_gold_answers_are_encoded_where_nothing_compares_choices():
    task = encode_task("t", ITEMS, ["bits_per_byte"], "characters", ByteTokenizer())
    assert [bytes(task.row(r)[1:].tolist()) for r in range(task.rows)] == [b"Q c", b"x d"]
    assert task.choice_R.tolist() == [2, 0]


def test_all_choices_are_encoded_and_again_without_the_question_where_asked():
    task = encode_task("t", ITEMS, ["accuracy"], "unconditional", ByteTokenizer())
    rows = [bytes(task.row(r)[1:].tolist()) for r in range(task.rows)]
    assert rows == [
        *(b"Q a", b"Q b", b"Q c"),
        *(b"A: a", b"A: b", b"A: c"),
        *(b"x d", b"y d", b"A: d", b"A: d"),
    ]
    assert task.choice_R.tolist() == [0, 1, 2, -1, -2, -3, 0, 1, -1, -2]


def test_a_metric_of_choices_needs_them_and_unconditional_needs_its_context():
    one = [Item("7", ("Q",), (" a",), 0)]
    with pytest.raises(ConfigError, match="item '7' has one answer, but accuracy compares several"):
        encode_task("t", one, ["bits_per_byte", "accuracy"], "none", ByteTokenizer())
    two = [Item("7", ("Q",) * 2, (" a", " b"), 0)]
    with pytest.raises(ConfigError, match="item '7' has no field 'unconditional'"):
        encode_task("t", two, ["accuracy"], "unconditional", ByteTokenizer())


@settings(deadline=None, max_examples=60)
@given(before=st.integers(0, 40), answer=st.integers(1, 60), length=st.integers(1, 24))
def test_windows_score_each_token_of_the_answer_once_and_fit_the_model(before, answer, length):
    task = gold("c" * before, "".join(chr(97 + n % 26) for n in range(answer)), ByteTokenizer())
    found = []
    for window in windows_of(task, length):
        assert len(window.tokens) <= length + 1
        assert window.scored >= 1
        found += window.tokens[window.scored :].tolist()
    assert found == scored(task).tolist()


def test_a_long_context_is_cut_from_the_left_and_a_long_answer_goes_in_pieces():
    short, long = gold("c" * 50, "ab", ByteTokenizer()), gold("c" * 50, "d" * 50, ByteTokenizer())
    (window,) = windows_of(short, 10)
    assert bytes(window.tokens.tolist()) == b"c" * 9 + b"ab"
    assert cut_counts(short, 10) == {"contexts_cut": 1, "answers_in_pieces": 0}
    assert [len(window.tokens) - window.scored for window in windows_of(long, 20)][:2] == [10, 10]
    assert cut_counts(long, 20) == {"contexts_cut": 0, "answers_in_pieces": 1}
    assert cut_counts(long, 100) == {"contexts_cut": 0, "answers_in_pieces": 0}
