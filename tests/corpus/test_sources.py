"""Documents are read from files of each form; a damaged one is named, and skipped or refused."""

import gzip
import json
import lzma
import re

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flips import flips
from refusals import refusal, refuses

from mixopt.config import SourceConfig
from mixopt.corpus import text_files
from mixopt.corpus.reader_context import ReaderContext
from mixopt.corpus.sources import read_documents, read_validation
from mixopt.errors import CorpusError

TEXTS = ["first é", "second\nline", "third"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(texts, column="text"):
    rows = (json.dumps({"id": k, column: text}) for k, text in enumerate(texts))
    return "".join(f"{row}\n" for row in rows).encode()


def read(on_bad="error", **source):
    return skipping(on_bad, **source)[0]


def skipping(on_bad="skip", **source):
    """Return documents, the number of bad ones and the first of them."""
    config = SourceConfig(**source)
    reading = ReaderContext("web", config, on_bad)
    return list(read_documents(config, reading)), reading.bad, reading.first_bad


def refused(message, **source):
    refuses(CorpusError, re.escape(message), read, **source)


def zstd(content):
    half = content.index(b"\n") + 1
    codec = pa.Codec("zstd")
    return b"".join(codec.compress(c, asbytes=True) for c in (content[:half], content[half:]))


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress), (".zst", zstd)]
)
def test_compressed_json_lines_are_read_and_a_file_that_is_cut_short_is_refused(
    folder, suffix, compress
):
    path = folder / f"a.jsonl{suffix}"
    path.write_bytes(compress(lines(TEXTS)))
    assert read(path=str(path)) == TEXTS
    path.write_bytes(compress(lines(TEXTS * 50))[:-12])
    refused(f"domain 'web': a.jsonl{suffix}: cannot be read: ", path=path.name)


def test_a_text_file_is_one_document_and_a_json_array_or_a_table_many(folder):
    (folder / "a.json").write_text(json.dumps([{"text": text} for text in TEXTS], indent=1))
    assert read(path="a.json") == TEXTS
    (folder / "a.json.gz").write_bytes(gzip.compress((folder / "a.json").read_bytes()))
    assert read(path="a.json.gz") == TEXTS
    (folder / "b.txt").write_bytes(b"one\r\ntwo")
    (folder / "a.txt").write_text("three")
    assert read(data_files="*.txt") == ["three", "one\ntwo"]
    long = "x" * 200_000
    (folder / "a.csv").write_text(f'id,text\n1,"two\nlines"\n2,{long}\n')
    assert read(path="a.csv") == ["two\nlines", long]


def arrow(path, texts, writer=pa.ipc.new_stream):
    table = pa.table({"id": range(len(texts)), "text": texts})
    with writer(str(path), table.schema) as writing:
        writing.write_table(table)
    return table


def test_parquet_and_arrow_as_stream_and_as_file_are_read(folder):
    for writer in (pa.ipc.new_stream, pa.ipc.new_file):
        table = arrow(folder / "a.arrow", TEXTS, writer)
        assert read(path="a.arrow") == TEXTS
    pq.write_table(table, folder / "a.parquet")
    assert read(path="parquet", data_files="*.parquet") == TEXTS
    refused("a.parquet: no column 'body'; set 'column' to one of: id, text",
            path="a.parquet", column="body")  # fmt: skip


def test_a_data_set_saved_to_disk_is_read_by_split(folder):
    saved = datasets.Dataset(arrow(folder / "a.arrow", TEXTS))
    saved.save_to_disk("one")
    assert read(path="one") == TEXTS
    datasets.DatasetDict({"train": saved, "test": saved.select([1])}).save_to_disk("saved")
    assert read(path="saved") == TEXTS
    assert read(path="saved", split="test") == TEXTS[1:2]
    refused("saved: no split 'tests'; did you mean 'test'?", path="saved", split="tests")
    refused("saved: no column 'body'; set 'column' to one of: id, text",
            path="saved", column="body")  # fmt: skip


def test_a_folder_gives_the_files_of_its_split_and_held_out_files_are_read_as_the_source(folder):
    for name in ("train-0", "train-1", "test"):
        (folder / f"{name}.jsonl").write_bytes(lines([name]))
    (folder / "README.md").write_text("not data")
    assert read(path=str(folder)) == ["train-0", "train-1"]
    assert read(path=str(folder), split="test") == ["test"]
    refused("no files of the split 'dev'", path=str(folder), split="dev")
    assert read(path=str(folder), data_files="te*.jsonl") == ["test"]
    refused("domain 'web': path: json needs data_files; name its files", path="json")
    (folder / "held.data").write_bytes(lines(TEXTS, column="body"))
    source = SourceConfig(path="json", data_files="a", column="body", validation="held.data")
    assert list(read_validation(source, ReaderContext("web", source))) == TEXTS


def test_a_missing_file_is_named_and_a_missing_column_with_those_there_are(folder, monkeypatch):
    for place in ("datasets.config.HF_HUB_OFFLINE", "huggingface_hub.constants.HF_HUB_OFFLINE"):
        monkeypatch.setattr(place, True)
    refused("domain 'web': no/such: no such local file, and the hub cannot be reached",
            path="no/such")  # fmt: skip
    refused(f"domain 'web': no.jsonl: no such file (working directory {folder})", path="no.jsonl")
    refused("domain 'web': no*.jsonl: the glob matches no file", data_files="no*.jsonl")
    (folder / "a.jsonl").write_bytes(lines(TEXTS))
    refused("domain 'web': z.jsonl: no such file", path=["a.jsonl", "z.jsonl"])
    (folder / "packed.jsonl").write_bytes(gzip.compress(lines(TEXTS)))
    refused("is compressed; rename it to packed.jsonl.gz", path="packed.jsonl")
    (folder / "a.doc").write_text("x")
    refused("no reader for '.doc'; set path to a reader (arrow, csv, json, ", data_files="a.doc")
    refused("domain 'web': a.jsonl:1: no column 'body'; set 'column' to one of: id, text",
            path="a.jsonl", column="body")  # fmt: skip
    (folder / "a.csv").write_text("id,text\n1,a\n")
    refused("a.csv: no column 'body'", path="a.csv", column="body")
    (folder / "a.csv").write_text(",".join(f"c{k:02}" for k in range(22)) + "\n" + "," * 21)
    refused("c18, c19 and 2 more", path="a.csv", column="body")


BAD_LINES = {
    b'{"text": "caf\xe9"}': "a.jsonl:2: invalid UTF-8 at byte 14",
    b'{"text": "open': "a.jsonl:2: broken JSON at column 10: Unterminated string",
    b'{"text": null}': "a.jsonl:2: column 'text' is null, not text",
    b'{"text": "\\ud800"}': "a.jsonl:2: invalid UTF-8 at character 1",
    b'{"body": "a"}': "a.jsonl:2: no column 'text'",
    b'{"text": "a", "id": ' + b"9" * 5000 + b"}": "a.jsonl:2: broken JSON: Exceeds the limit",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_or_skipped_and_counted(folder, line):
    (folder / "a.jsonl").write_bytes(lines(["good"]) + line + b"\n \n" + lines(["better"]))
    refused(f"domain 'web': {BAD_LINES[line]}", path="a.jsonl")
    refused("fix it, or set on_bad_document: skip", path="a.jsonl")
    texts, bad, first = skipping(path="a.jsonl")
    assert (texts, bad) == (["good", "better"], 1)
    assert BAD_LINES[line] in first


def test_invalid_utf8_is_named_in_each_form(folder):
    (folder / "a.txt").write_bytes(b"one\ntwo \xff")
    refused("domain 'web': a.txt:2: invalid UTF-8 at byte 9", path="a.txt")
    (folder / "a.csv").write_bytes(b"id,text\n1,good\n2,b\xff\n")
    refused("domain 'web': a.csv:3: invalid UTF-8 at character 2", path="a.csv")
    texts = pa.array([b"good", b"\xff", b"better"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), folder / "a.parquet")
    refused("domain 'web': a.parquet (row 2): invalid UTF-8 at byte 1", path="a.parquet")
    assert skipping(path="a.parquet")[:2] == (["good", "better"], 1)


def test_a_list_of_files_globs_and_folders_is_read_in_its_order(folder):
    (folder / "more").mkdir()
    for name, text in {"b.jsonl": "b", "a1.jsonl": "1", "a2.jsonl": "2", "more/c.txt": "c"}.items():
        (folder / name).write_bytes(text.encode() if name.endswith("txt") else lines([text]))
    assert read(path=["b.jsonl", "a*.jsonl", "more"]) == ["b", "1", "2", "c"]
    assert read(path=["b.jsonl", "*.jsonl"]) == ["b", "1", "2"], "a file twice is read once"
    assert read(path="a*.jsonl") == ["1", "2"]


def test_a_cell_reads_the_rows_that_have_its_values_alone(folder):
    rows = [("a", "math"), ("b", "law"), ("c", "math")]
    (folder / "t.jsonl").write_text(
        "".join(json.dumps({"text": text, "topic": topic}) + "\n" for text, topic in rows)
    )
    assert read(path="t.jsonl", by={"topic": "math"}) == ["a", "c"]
    (folder / "t.jsonl").write_text('{"text": "a", "topic": null}\n')
    refused("column 'topic' has no value", path="t.jsonl", by={"topic": "math"})
    refused("t.jsonl:1: by: no column 'kind'", path="t.jsonl", by={"kind": "math"})


@pytest.mark.parametrize("suffix", ["parquet", "jsonl.zst"])
def test_a_damaged_file_is_skipped_and_counted_too_but_not_one_that_cannot_be_opened(
    folder, suffix
):
    (folder / f"a.{suffix}").write_bytes(b"something else")
    arrow(folder / "z.arrow", ["last"])
    texts, bad, first = skipping(path=[f"a.{suffix}", "z.arrow"])
    assert (texts, bad) == (["last"], 1)
    assert f"a.{suffix}: cannot be read: " in first
    (folder / "a.jsonl").symlink_to(folder / "a.jsonl")
    with pytest.raises(CorpusError):
        read("skip", path="a.jsonl")


def test_texts_outside_their_file_and_a_json_array_that_cannot_be_read_are_one_line(folder):
    path = folder / "a.arrow"
    arrow(path, ["first", "second", "third"])
    places = np.array([0, 5, 11, 16], "<i4")
    moved = np.array([0, 5, 1 << 28, 16], "<i4")
    path.write_bytes(path.read_bytes().replace(places.tobytes(), moved.tobytes()))
    refuses(CorpusError, r"a.arrow: cannot be read: .*[Oo]ffset", read, path="a.arrow")
    for content in ("[" * 100_000, '[{"text": ' + "9" * 5_000 + "}]"):
        (folder / "a.json").write_text(content)
        with pytest.raises(CorpusError, match=r"^[^\n]*a.json[^\n]*: [^\n]{,300}; fix it[^\n]*$"):
            read(path="a.json")


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_flipped_bits_raise_nothing_but_errors_of_ours(folder, kind):
    texts, path = [f"document {k} with some text" for k in range(40)], folder / f"t.{kind}"
    pq.write_table(pa.table({"text": texts}), path) if kind == "parquet" else arrow(path, texts)
    for _ in flips(path, count=40):
        refusal(read, "skip", path=path.name)


def test_a_line_or_a_packed_text_that_does_not_end_is_a_bad_document(folder, monkeypatch):
    monkeypatch.setattr(text_files, "LONGEST_DOCUMENT", 1000)
    line = lines(["x" * (999 - len(lines([""])))])  # with its end the longest that is read
    (folder / "t.jsonl").write_bytes(lines(["a"]) + b"x" * 5000 + b"\n" + line)
    texts, bad, _ = skipping(path="t.jsonl")
    assert ([len(text) for text in texts], bad) == ([1, 977], 1)
    refused("t.jsonl:2: longer than 256 MiB; fix it", path="t.jsonl")
    (folder / "t.json.gz").write_bytes(gzip.compress(b"[" + b" " * 5000))
    refused("t.json.gz: cannot be read: longer than 256 MiB", path="t.json.gz")
