"""A damaged file is named, and skipped or refused like any other bad document."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flips import flips

from mixopt.config import SourceConfig
from mixopt.corpus import BadDocuments, text_files
from mixopt.corpus.sources import read_documents
from mixopt.errors import CorpusError

TEXTS = [f"document {k} with some text" for k in range(40)]


def read(*files, policy="error", **source):
    bad = BadDocuments(policy)
    files = [str(file) for file in files]
    texts = list(read_documents("web", SourceConfig(data_files=files, **source), bad))
    return texts, bad


def arrow(path, texts=TEXTS):
    table = pa.table({"id": range(len(texts)), "text": texts})
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("suffix", ["parquet", "jsonl.zst"])
def test_a_damaged_file_is_skipped_and_counted_too(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"something else")
    arrow(tmp_path / "z.arrow", ["last"])
    texts, bad = read(tmp_path / f"a.{suffix}", tmp_path / "z.arrow", policy="skip")
    assert (texts, bad.count) == (["last"], 1)
    assert f"a.{suffix}: cannot be read: " in bad.first


def test_a_file_that_the_system_cannot_read_is_never_skipped(tmp_path):
    path = arrow(tmp_path / "a.jsonl")
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(CorpusError):
        read(path, policy="skip")


def test_texts_that_lie_outside_their_file_are_refused(tmp_path):
    path = arrow(tmp_path / "a.arrow", ["first", "second", "third"])
    places = np.array([0, 5, 11, 16], "<i4")
    moved = np.array([0, 5, 1 << 28, 16], "<i4")
    path.write_bytes(path.read_bytes().replace(places.tobytes(), moved.tobytes()))
    with pytest.raises(CorpusError, match=r"a.arrow: cannot be read: .*[Oo]ffset"):
        read(path)


@pytest.mark.parametrize("content", ["[" * 100_000, '[{"text": ' + "9" * 5_000 + "}]"])
def test_a_json_array_that_cannot_be_read_is_one_line(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(CorpusError, match=r"a.json.*: .*; fix it") as caught:
        read(tmp_path / "a.json")
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_names_of_columns_do_not_break_a_message(tmp_path):
    row = {f"column\n{k}": k for k in range(500)}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(CorpusError, match="and 480 more$") as caught:
        read(tmp_path / "a.jsonl")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_flipped_bits_raise_nothing_but_errors_of_ours(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    pq.write_table(pa.table({"text": TEXTS}), path) if kind == "parquet" else arrow(path)
    for _ in flips(path, count=40):
        try:
            read(path, policy="skip")
        except CorpusError as error:
            message = str(error)
        else:
            continue
        assert "\n" not in message


def test_a_line_that_does_not_end_is_a_bad_document_and_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "LONGEST_DOCUMENT", 1000)
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"text": "a"}}\n{"x" * 5000}\n{{"text": "b"}}\n')
    texts, bad = read(path, policy="skip")
    assert (texts, bad.count) == (["a", "b"], 1)
    with pytest.raises(CorpusError, match=r"t\.jsonl:2: longer than"):
        read(path)


def test_a_compressed_text_that_is_too_large_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "LONGEST_DOCUMENT", 1000)
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * 5000))
    with pytest.raises(CorpusError, match=r"t\..*gz: .*longer than") as caught:
        read(path)
    assert "\n" not in str(caught.value)
