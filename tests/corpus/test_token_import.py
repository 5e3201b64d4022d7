"""Tokens of other tools become shards, by a link where the bytes allow it."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from mixopt import CorpusError, MixtureDataset
from mixopt.corpus import TokenShards, import_tokens
from mixopt.errors import ShardError

DOCUMENTS = [[5, 6, 7, 0], [8, 0], [9, 9, 9, 9, 0]]
TOKENS = [token for document in DOCUMENTS for token in document]


def write_megatron(prefix, documents, dtype="<u2", *, code=8, version=1, magic=b"MMIDIDX\0\0"):
    np.array([t for document in documents for t in document], dtype).tofile(
        prefix.with_suffix(".bin")
    )
    lengths = np.array([len(d) for d in documents], "<i4")
    pointers = np.concatenate([[0], np.cumsum(lengths[:-1])]) * np.dtype(dtype).itemsize
    with prefix.with_suffix(".idx").open("wb") as index:
        index.write(magic + struct.pack("<QBQQ", version, code, len(lengths), len(lengths) + 1))
        index.write(lengths.tobytes() + pointers.astype("<i8").tobytes())
        index.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())


@pytest.mark.parametrize(("dtype", "code", "ours"), [("<u2", 8, "uint16"), ("<i4", 4, "uint32")])
def test_megatrons_files_are_linked_not_copied(tmp_path, dtype, code, ours):
    write_megatron(tmp_path / "web", DOCUMENTS, dtype, code=code)
    shards = import_tokens(tmp_path / "web.bin", tmp_path / "out", tokenizer="gpt2")
    assert (shards.dtype.name, shards.documents, shards.tokens) == (ours, 3, len(TOKENS))
    assert shards.read(0, len(shards)).tolist() == TOKENS
    assert (tmp_path / "out" / "00000.bin").is_symlink()
    assert MixtureDataset({"web": TokenShards.open(tmp_path / "out")}, length=4).sizes == {"web": 2}


def test_a_prefix_names_megatrons_files(tmp_path):
    write_megatron(tmp_path / "web", DOCUMENTS)
    shards = import_tokens(tmp_path / "web", tmp_path / "out", tokenizer="gpt2", copy=True)
    assert shards.read(0, 4).tolist() == [5, 6, 7, 0]
    assert not (tmp_path / "out" / "00000.bin").is_symlink()


def test_a_linked_file_that_changes_is_found_out(tmp_path):
    write_megatron(tmp_path / "web", DOCUMENTS)
    import_tokens(tmp_path / "web", tmp_path / "out", tokenizer="gpt2")
    np.array(TOKENS[::-1], "<u2").tofile(tmp_path / "web.bin")
    with pytest.raises(ShardError, match="altered"):
        TokenShards.open(tmp_path / "out")


def test_nanogpts_tokens_are_linked_and_documents_counted_by_their_end(tmp_path):
    np.array(TOKENS, "<u2").tofile(tmp_path / "train.bin")
    source, out = tmp_path / "train.bin", tmp_path / "out"
    shards = import_tokens(source, out, tokenizer="gpt2", document_end=0)
    assert shards.documents == 3
    assert shards.read(0, len(shards)).tolist() == TOKENS


def test_llmcs_tokens_are_copied_without_the_header(tmp_path):
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(TOKENS)
    content = header.tobytes() + np.array(TOKENS, "<u2").tobytes()
    (tmp_path / "train.bin").write_bytes(content)
    shards = import_tokens(tmp_path / "train.bin", tmp_path / "out", tokenizer="gpt2")
    assert shards.read(0, len(shards)).tolist() == TOKENS
    (tmp_path / "train.bin").write_bytes(content[:-4])
    with pytest.raises(CorpusError, match="truncated or altered: 9 tokens, its header says 11"):
        import_tokens(tmp_path / "train.bin", tmp_path / "other", tokenizer="gpt2")


@pytest.mark.filterwarnings("ignore")
def test_mosaics_shards_are_copied(tmp_path):
    streaming = pytest.importorskip("streaming", reason="mosaicml-streaming is absent")
    columns = {"tokens": "ndarray:uint16"}
    with streaming.MDSWriter(out=str(tmp_path / "mds"), columns=columns) as writer:
        for document in DOCUMENTS:
            writer.write({"tokens": np.array(document, np.uint16)})
    source, out = tmp_path / "mds", tmp_path / "out"
    shards = import_tokens(source, out, tokenizer="gpt2", document_end=0)
    assert shards.read(0, len(shards)).tolist() == TOKENS
    assert shards.documents == 3
    with pytest.raises(CorpusError, match="no field 'ids', but \\['tokens'\\]"):
        import_tokens(source, tmp_path / "other", tokenizer="gpt2", field="ids")


@pytest.mark.filterwarnings("ignore")
def test_litdatas_chunks_are_copied(tmp_path):
    pytest.importorskip("litdata", reason="litdata is absent")
    from litdata.streaming.cache import Cache

    cache = Cache(str(tmp_path / "lit"), chunk_bytes=1 << 20)
    for k, document in enumerate(DOCUMENTS):
        cache[k] = {"tokens": np.array(document, np.int64) + 100_000}
    cache.done()
    cache.merge()
    shards = import_tokens(tmp_path / "lit", tmp_path / "out", tokenizer="gpt2")
    assert shards.dtype == np.uint32
    assert shards.read(0, len(shards)).tolist() == [token + 100_000 for token in TOKENS]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(CorpusError, match="nothing: not found"):
        import_tokens(tmp_path / "nothing", tmp_path / "out", tokenizer="t")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"index\.json: not found; a folder is read as mds"):
        import_tokens(tmp_path / "empty", tmp_path / "out", tokenizer="t")


def test_what_is_there_already_is_kept(tmp_path):
    np.array(TOKENS, "<u2").tofile(tmp_path / "train.bin")
    with pytest.raises(CorpusError, match="is there already"):
        import_tokens(tmp_path / "train.bin", tmp_path, tokenizer="t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code": 6}, "type code 6; uint16 \\(8\\) and int32 \\(4\\)"),
        ({"version": 2}, "version 2 of Megatron's index"),
        ({"magic": b"SOMETHING"}, "not Megatron's index: it begins b'SOMETHING'"),
    ],
)
def test_an_index_of_another_kind_is_refused(tmp_path, options, message):
    write_megatron(tmp_path / "web", DOCUMENTS, **options)
    with pytest.raises(CorpusError, match=message):
        import_tokens(tmp_path / "web", tmp_path / "out", tokenizer="t")


def test_truncated_tokens_are_refused(tmp_path):
    write_megatron(tmp_path / "web", DOCUMENTS)
    np.array(TOKENS[:-1], "<u2").tofile(tmp_path / "web.bin")
    with pytest.raises(CorpusError, match="10 tokens, its index says 11 in 3 sequences"):
        import_tokens(tmp_path / "web", tmp_path / "out", tokenizer="t")
    (tmp_path / "odd.bin").write_bytes(b"abc")
    with pytest.raises(CorpusError, match="3 bytes are not whole uint16 tokens"):
        import_tokens(tmp_path / "odd.bin", tmp_path / "out", tokenizer="t")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="'megatrn'; did you mean 'megatron'"):
        import_tokens(tmp_path / "x", tmp_path / "out", tokenizer="t", format="megatrn")
