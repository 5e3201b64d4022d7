"""Items: what a line may be, what is refused with its file and line, and which ones are chosen."""

from __future__ import annotations

import gzip
import json

import pytest
import zstandard

from mixopt.errors import ConfigError
from mixopt.tasks import Item, chosen_items, item_warnings, read_items, text_fingerprint

CHOICES = {"id": "394", "context": "Q?\nAnswer:", "choices": [" a", " b"], "gold": 1}
GOLD = {"id": 7, "context": "def f():\n", "continuation": "    return 1", "weight": 2}
OTHER = {"id": "w", "contexts": ["Ann", "Bob"], "choices": [" ran", " ran"], "gold": 0}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_line_is_an_item_of_choices_or_of_a_gold_answer(tmp_path):
    path = write(tmp_path / "t.jsonl", CHOICES, GOLD, OTHER)
    assert list(read_items(path)) == [
        Item("394", ("Q?\nAnswer:",) * 2, (" a", " b"), 1),
        Item("7", ("def f():\n",), ("    return 1",), 0, 2.0),
        Item("w", ("Ann", "Bob"), (" ran", " ran"), 0),
    ]


def test_what_an_item_writes_is_read_back(tmp_path):
    rows = [CHOICES, GOLD, OTHER, {**CHOICES, "id": "u", "unconditional": "Answer:"}]
    items = list(read_items(write(tmp_path / "t.jsonl", *rows)))
    again = write(tmp_path / "again.jsonl", *(item.to_json() for item in items))
    assert list(read_items(again)) == items


@pytest.mark.parametrize(
    ("ending", "pack"), [(".gz", gzip.compress), (".zst", zstandard.ZstdCompressor().compress)]
)
def test_a_packed_file_is_read_and_a_damaged_one_is_refused(tmp_path, ending, pack):
    content = json.dumps(CHOICES).encode() + b"\n"
    lines = b"".join(content.replace(b"394", str(n).encode()) for n in range(500))
    path = tmp_path / f"t.jsonl{ending}"
    path.write_bytes(pack(lines))
    assert len(list(read_items(path))) == 500
    whole = pack(lines)
    for damaged in (whole[: len(whole) // 2], whole[:40] + b"\x55" * 40 + whole[80:], b"no"):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"t\.jsonl\.(gz|zst):"):
            list(read_items(path))


WRONG = {
    "2: choices.1: '' is empty: there is nothing to score": {"choices": [" a", ""]},
    "2: gold: 2 is out of range; the choices are numbered from 0 to 1": {"gold": 2},
    "2: gold: -1 is out of range": {"gold": -1},
    "2: gold: True is out of range": {"gold": True},
    "2: gold: None is out of range": {"gold": None},
    "2: unknown field 'contxt'; did you mean 'context'": {"contxt": "Q"},
    "2: id '394' is also that of line 1 too; give each item its own": {"id": "394"},
    "2: id: None; give each item text or a number": {"id": None},
    "2: choices: '\\[\\]'; need a list of text": {"choices": []},
    "2: choices.0: int '3' is not text": {"choices": [3, " b"]},
    "2: give context, or contexts with one for each choice": {"contexts": ["a", "b"]},
    "2: give choices and gold, or a continuation": {"continuation": " a"},
    "2: context: list .* is not text": {"context": ["Q"]},
    "2: weight: 0; need a number above 0": {"weight": 0},
    "2: weight: 1000": {"weight": 10**200},
    "2: weight: nan": {"weight": float("nan")},
    "2: context: invalid UTF-8 at character 2": {"context": "a\ud800"},
    "2: id: invalid UTF-8 at character 1": {"id": "\ud800"},
    "2: unconditional: int '1' is not text": {"unconditional": 1},
}


@pytest.mark.parametrize("said", WRONG)
def test_a_wrong_item_is_refused_with_its_line(tmp_path, said):
    path = write(tmp_path / "t.jsonl", CHOICES, {**CHOICES, "id": "2", **WRONG[said]})
    with pytest.raises(ConfigError, match=f"t.jsonl:{said}"):
        list(read_items(path))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "1", "context": "a", "continuation": ""}, "continuation: '' is empty"),
        ({"id": "1", "context": "a", "continuation": " b", "gold": 0}, "gold: goes with choices"),
        ({"id": "1", "contexts": ["a"], "choices": [" a", " b"], "gold": 0}, "need a list of 2"),
        ({"id": "1", "choices": [" a", " b"], "gold": 0}, "give context, or contexts"),
        ([1], "a list; an item is an object"),
    ],
)
def test_what_is_no_item_is_refused(tmp_path, row, said):
    with pytest.raises(ConfigError, match=said):
        list(read_items(write(tmp_path / "t.jsonl", row)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"id": "\xff"}', "t.jsonl:2: invalid UTF-8 at byte 9"),
        (b'{"id": ', "t.jsonl:2: broken JSON"),
        (b"[" * 100_000, "t.jsonl:2: broken JSON"),
    ],
)
def test_a_broken_line_is_refused(tmp_path, content, said):
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(CHOICES).encode() + b"\n" + content + b"\n")
    with pytest.raises(ConfigError, match=said):
        list(read_items(path))


def test_a_file_without_items_or_none_at_all_is_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text("\n\n")
    with pytest.raises(ConfigError, match=r"t\.jsonl: has no items"):
        list(read_items(tmp_path / "t.jsonl"))
    with pytest.raises(ConfigError, match=r"u\.jsonl: no such file \(working directory"):
        list(read_items(tmp_path / "u.jsonl"))
    with pytest.raises(ConfigError, match="cannot be read: .*[Dd]irectory"):
        list(read_items(tmp_path))


def items_called(names):
    return [Item(str(name), ("c",), (" a",), 0) for name in names]


def test_items_are_chosen_by_their_ids_wherever_they_stand():
    first = {item.id for item in chosen_items(iter(items_called(range(500))), 50)}
    turned = {item.id for item in chosen_items(iter(items_called(reversed(range(500)))), 50)}
    assert first == turned
    assert len(first) == 50
    fewer = {item.id for item in chosen_items(iter(items_called(range(500))), 20)}
    assert fewer < first


def test_chosen_items_keep_the_order_of_the_file_and_all_are_chosen_where_there_are_fewer():
    chosen = [int(item.id) for item in chosen_items(iter(items_called(range(500))), 50)]
    assert chosen == sorted(chosen)
    assert len(chosen_items(iter(items_called(range(5))), 50)) == 5
    assert len(chosen_items(iter(items_called(range(5))), None)) == 5


def test_oddities_of_items_are_said_with_their_ids():
    odd = [
        Item("joined", ("Q:",), ("a",), 0),
        Item("tuple", ("Q:",), (" ('swedish',)",), 0),
        Item("equal", ("Q:",) * 3, (" a", " a", " b"), 2),
        Item("crlf", ("Q:\n",), ("a\r\nb",), 0),
        Item("shifted", ("Q:\n",), (" def f():",), 0),
        Item("again", ("Q:",), (" ('swedish',)",), 0),
        Item("blank", ("Q:",), ("  ",), 0),
        Item("fine", ("Q:\n",), ("    return 1",), 0),
        Item("contexts", ("Ann", "Bob"), (" ran", " ran"), 0),
    ]
    assert item_warnings(odd) == [
        "1 of 9 items (joined) have no white space between context and answer",
        "1 of 9 items (equal) have two equal choices",
        "1 of 9 items (blank) have an answer of white space alone",
        "2 of 9 items (tuple, again) have an answer that looks like a list or tuple of code",
        "1 of 9 items (crlf) have carriage returns (CRLF) in the answer",
        "1 of 9 items (shifted) have a line of the answer that begins with one space",
        "1 of 9 items (again) appear twice under different ids",
    ]
    assert item_warnings(odd[-2:]) == []


def test_equal_texts_under_other_ids_have_one_fingerprint():
    one, other = Item("a", ("c",), (" a",), 0), Item("b", ("c",), (" b",), 0)
    renamed = [Item("x", ("c",), (" b",), 0), Item("y", ("c",), (" a",), 0)]
    assert text_fingerprint([one, other]) == text_fingerprint(renamed)
    assert text_fingerprint([one]) != text_fingerprint([other])
