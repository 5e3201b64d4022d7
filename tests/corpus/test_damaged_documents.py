"""A file on which a library dies is named, and skipped or refused like any other bad document."""

from __future__ import annotations

import faulthandler
import gzip
import io
import json
import os
import random
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from mixopt.config import SourceConfig
from mixopt.corpus import BadDocuments
from mixopt.corpus.text import readers
from mixopt.corpus.text.child_reader import read_in_child
from mixopt.corpus.text.reader_input import Reading
from mixopt.corpus.text.sources import read_documents
from mixopt.errors import CorpusError
from mixopt.system import close_children, open_zst

TEXTS = [f"document {k} with some text" for k in range(40)]
NAMED = re.compile(
    r"domain 'web': .*t\.arrow: (cannot be read: |the reader died with SIG(SEGV|ABRT|BUS))"
)


@pytest.fixture(autouse=True)
def no_child_is_left():
    yield
    close_children()


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


@pytest.fixture
def deadly(tmp_path):
    """An Arrow file with one flipped bit, on which libarrow dies where nothing is checked."""
    path = arrow(tmp_path / "t.arrow")
    whole = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), k=300):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        if libarrow_dies(path):
            return path
    return pytest.fail("this libarrow dies of none of 300 flips")


def libarrow_dies(path):
    process = os.fork()
    if process == 0:
        faulthandler.disable()
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 2)
        try:
            with pa.memory_map(str(path)) as source:
                for batch in pa.ipc.open_stream(source):
                    batch.column("text").to_pylist()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.mark.nightly
def test_a_file_that_libarrow_dies_of_is_named_in_one_line(deadly):
    with pytest.raises(CorpusError) as caught:
        read(deadly)
    assert NAMED.match(str(caught.value))
    assert str(caught.value).endswith("fix it, or set on_bad_document: skip")
    assert "\n" not in str(caught.value)


@pytest.mark.nightly
def test_a_file_that_libarrow_dies_of_is_skipped_and_counted(deadly, tmp_path):
    first, last = arrow(tmp_path / "a.arrow", ["first"]), arrow(tmp_path / "z.arrow", ["last"])
    texts, bad = read(first, deadly, last, policy="skip")
    assert (texts[0], texts[-1]) == ("first", "last")
    assert bad.count == 1
    assert NAMED.match(bad.first)


DEADLY = """
import os, signal
from mixopt.corpus.text.child_reader import sent

def documents(**given):
    def read(reading):
        yield "document"
        reading.is_bad("row 2", "bad")
        os.kill(os.getpid(), signal.SIGSEGV)
    yield from sent(read, **given)
"""


@pytest.fixture
def deadly_reader(tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "deadly_reader.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    close_children()
    return lambda bad: list(
        read_in_child("deadly_reader:documents", "t.arrow", {}, Reading("web", "text", bad))
    )


def test_a_reader_that_dies_names_the_file_and_the_signal(deadly_reader):
    with pytest.raises(CorpusError, match=r"^domain 'web': row 2: bad; fix it"):
        deadly_reader(BadDocuments())
    bad = BadDocuments("skip")
    assert deadly_reader(bad) == []  # what was not yet sent died with it
    assert (bad.count, bad.first) == (1, "domain 'web': t.arrow: the reader died with SIGSEGV")


@pytest.mark.parametrize("suffix", ["arrow", "parquet", "jsonl.zst"])
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


def test_bad_documents_in_a_child_are_counted_where_they_stand(tmp_path):
    texts = pa.array([b"good", b"\xff", b"better", b"\xfe"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    found, bad = read(tmp_path / "a.parquet", policy="skip")
    assert (found, bad.count) == (["good", "better"], 2)
    assert "a.parquet (row 2): invalid UTF-8 at byte 1" in bad.first


def test_texts_that_lie_outside_their_file_are_refused(tmp_path):
    path = arrow(tmp_path / "a.arrow", ["first", "second", "third"])
    places = np.array([0, 5, 11, 16], "<i4")
    moved = np.array([0, 5, 1 << 28, 16], "<i4")
    path.write_bytes(path.read_bytes().replace(places.tobytes(), moved.tobytes()))
    with pytest.raises(CorpusError, match=r"a.arrow: cannot be read: .*[Oo]ffset"):
        read(path)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '[{"text": ' + "9" * 5_000 + "}]",
        "[1, 2",
        '[{"text": "a"}, ',
        "[\x00]",
    ],
)
def test_a_json_array_that_cannot_be_read_is_one_line(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(CorpusError, match=r"a.json.*: .*; fix it") as caught:
        read(tmp_path / "a.json")
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_a_deep_nest_in_place_of_a_text_is_a_bad_document(tmp_path):
    deep = '{"text": ' + "[" * 900 + "]" * 900 + "}"
    lines = ['{"text": "good"}', deep, "[" * 100_000, '{"text": "better"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found, bad = read(tmp_path / "a.jsonl", policy="skip")
    assert (found, bad.count) == (["good", "better"], 2)


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
    whole = path.read_bytes()
    for bit in random.Random(1).sample(range(8 * len(whole)), k=40):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            read(path, policy="skip")
        except CorpusError as error:
            message = str(error)
        else:
            continue
        assert "\n" not in message


def test_a_line_that_does_not_end_is_a_bad_document_and_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_DOCUMENT", 1000)
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"text": "a"}}\n{"x" * 5000}\n{{"text": "b"}}\n')
    texts, bad = read(path, policy="skip")
    assert (texts, bad.count) == (["a", "b"], 1)
    with pytest.raises(CorpusError, match=r"t\.jsonl:2: longer than"):
        read(path)


@pytest.mark.parametrize("suffix", [".txt.gz", ".json.gz"])
def test_a_compressed_text_that_is_too_large_is_one_line(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_DOCUMENT", 1000)
    path = tmp_path / f"t{suffix}"
    path.write_bytes(gzip.compress(b"[" + b" " * 5000))
    with pytest.raises(CorpusError, match=r"t\..*gz: .*longer than") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_piece_of_a_zst_bomb_is_as_small_as_memory_allows(tmp_path):
    path, content = tmp_path / "t.jsonl.zst", io.BytesIO()
    with zstandard.ZstdCompressor(level=19).stream_writer(content, closefd=False) as writer:
        for _ in range(512):
            writer.write(bytes(1 << 20))
    path.write_bytes(content.getvalue())
    frames = open_zst(path)
    frames.read(1)
    assert len(frames.raw._waiting) < 160 << 20
