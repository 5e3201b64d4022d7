"""Each format of tokens is read as its writer wrote it and becomes shards; faults are one line."""

import bz2
import errno
import gzip
import lzma
import os
import pickle
import re
from functools import lru_cache
from itertools import chain, pairwise
from unittest.mock import patch

import numpy as np
import pytest
from flips import flips
from hypothesis import given, settings, strategies as st
from refusals import refuses
from token_writers import write_megatron, write_nanogpt

from mixopt import MixtureDataset
from mixopt.corpus import (
    FastTokenizer,
    TokenShards,
    TokenWriter,
    import_tokens,
    token_formats,
    token_shards,
)
from mixopt.corpus.token_formats import open_token_files
from mixopt.corpus.token_import import token_pieces
from mixopt.errors import CorpusError, ShardError

DOCUMENTS = [[5, 6, 7, 0], [8, 0], [9, 9, 9, 9, 0]]
TOKENS = [token for document in DOCUMENTS for token in document]


def read(path, format, dtype=None):
    (found,) = open_token_files([str(path)], format, dtype)
    return found


def names(patterns, format=None):
    return [file.path.name for file in open_token_files(patterns, format, None)]


def tokens_of(file):
    return np.concatenate(list(file.parts())).tolist()


def documents(file, document_end=None):
    ends = None if file.ends is None else file.ends()
    return [piece.tolist() for piece in token_pieces(file.parts(), document_end, ends)]


def refused(message, path, format=None, dtype=None, *, tokenizer="gpt2", **options):
    options |= {"format": format, "dtype": dtype, "tokenizer": tokenizer}
    refuses(CorpusError, re.escape(message), import_tokens, path, path.parent / "out", **options)
    assert not (path.parent / "out").exists()


@pytest.mark.parametrize("dtype", ["<i8", ">u2"])
def test_arrays_of_integers_are_read_with_and_without_a_header(tmp_path, dtype):
    np.array(TOKENS, dtype).astype("<i8").tofile(tmp_path / "raw.npy")
    found = read(tmp_path / "raw.npy", "raw", dtype="int64")
    assert (tokens_of(found), found.tokens, documents(found, 0)) == (TOKENS, len(TOKENS), DOCUMENTS)
    np.save(tmp_path / "a.npy", np.array(TOKENS, dtype))
    found = read(tmp_path / "a.npy", "npy")
    assert tokens_of(found) == TOKENS
    assert not found.is_shard, "an array with a header is no shard as it is"
    np.save(tmp_path / "b.npy", np.array(TOKENS[:10], dtype).reshape(2, 5))
    assert tokens_of(read(tmp_path / "b.npy", "npy")) == TOKENS[:10]


def test_an_array_that_is_no_tokens_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    for array, message in (
        (np.array(TOKENS, np.float32), "is an array of float32; tokens are integers"),
        (np.array([{"a": 1}], object), "not a .npy: "),
        (np.asfortranarray(np.arange(6).reshape(2, 3)), "is in Fortran order"),
        (np.zeros(0, np.int32), ""),
    ):
        np.save(path, array, allow_pickle=True)
        refused(f"a.npy: {message}", path, "npy")
    np.save(path, np.array(TOKENS, np.uint16))
    assert tokens_of(read(path, None)) == TOKENS
    path.write_bytes(path.read_bytes()[:-3])
    refused("a.npy: not a .npy: ", path, "npy")
    np.array(TOKENS, "<u2").tofile(path)
    refused("(nor has OLMo-core's .npy): use format 'raw'", path, "npy")
    assert tokens_of(read(path, None, "uint16")) == TOKENS


@pytest.mark.parametrize("dtype", [("<i8", 5), ("u1", 1)])
def test_megatrons_documents_are_those_of_its_index(tmp_path, dtype):
    write_megatron(tmp_path / "web", DOCUMENTS, dtype[0], code=dtype[1])
    found = read(tmp_path / "web", "megatron")
    assert documents(found) == DOCUMENTS
    assert (found.documents, found.tokens) == (3, len(TOKENS))


def test_documents_of_several_sequences_end_where_the_index_says(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 9, rng.integers(0, 6)).tolist() for _ in range(60)]
    bounds = [0, 0, 1, 1, 7, 30, 59, 60]
    write_megatron(tmp_path / "web", sequences, bounds=bounds)
    wanted = [list(chain.from_iterable(sequences[a:b])) for a, b in pairwise(bounds)]
    for part in (1, 2, 7, 1 << 20):
        monkeypatch.setattr(token_formats, "PART", part)
        assert documents(read(tmp_path / "web", "megatron")) == [d for d in wanted if d]


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((0, 2, 1, 3), "are not increasing"),
        ((1, 2, 3, 3), "begin at sequence 1"),
        ((0, 1, 2, 9), "end at sequence 9"),
    ],
)
def test_bounds_of_documents_that_cannot_be_are_refused(tmp_path, bounds, message):
    write_megatron(tmp_path / "web", DOCUMENTS, bounds=bounds)
    refuses(CorpusError, message, lambda: documents(read(tmp_path / "web", "megatron")))


def write_datatrove(path, documents, dtype="<u2", *, metadata="gpt2|2\n11\n11 T"):
    np.array([t for d in documents for t in d], dtype).tofile(path)
    np.cumsum([len(d) for d in documents]).astype("<u8").tofile(f"{path}.index")
    if metadata is not None:
        path.with_name(path.name + ".metadata").write_text(metadata)


def test_datatroves_tokens_have_the_type_of_their_metadata_and_documents_of_their_index(tmp_path):
    write_datatrove(tmp_path / "a.ds", DOCUMENTS)
    assert documents(read(tmp_path / "a.ds", "datatrove")) == DOCUMENTS
    write_datatrove(tmp_path / "b.ds", DOCUMENTS, "<u4", metadata="llama|4\n11\n11 T")
    assert documents(read(tmp_path / "b.ds", "datatrove")) == DOCUMENTS
    write_datatrove(tmp_path / "c.ds", DOCUMENTS, metadata=None)
    refused("c.ds.metadata: not found", tmp_path / "c.ds", "datatrove")
    assert documents(read(tmp_path / "c.ds", "datatrove", dtype="uint16")) == DOCUMENTS
    refused("its tokens are uint16, not 'uint32'", tmp_path / "a.ds", "datatrove", dtype="uint32")


@pytest.mark.parametrize(
    ("metadata", "tokens", "ends", "message"),
    [
        ("gpt2|4", TOKENS, [4, 6, 11], "bytes are not a whole number of uint32 tokens"),
        ("anything", TOKENS, [4, 6, 11], "its first line is 'anything'"),
        ("gpt2|2", TOKENS[:-1], [4, 6, 11], "10 tokens, but its index has 11"),
        ("gpt2|2", TOKENS, [4, 2, 11], "the ends of its documents are not increasing"),
    ],
)
def test_datatroves_files_that_do_not_fit_each_other_are_refused(
    tmp_path, metadata, tokens, ends, message
):
    write_datatrove(tmp_path / "a.ds", DOCUMENTS, metadata=metadata)
    np.array(tokens, "<u2").tofile(tmp_path / "a.ds")
    np.array(ends, "<u8").tofile(tmp_path / "a.ds.index")
    refuses(CorpusError, message, lambda: documents(read(tmp_path / "a.ds", "datatrove")))


def test_globs_folders_and_companions_name_each_file_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("web_00", "web_01"):
        write_megatron(tmp_path / name, DOCUMENTS)
    found = ["web_00.bin", "web_01.bin"]
    assert names(["web_0*"], "megatron") == names([str(tmp_path)]) == found
    assert names(["web_01.bin", "web_0*"], "megatron") == found[::-1]
    (tmp_path / "ds").mkdir()
    write_datatrove(tmp_path / "ds" / "00_a.ds", DOCUMENTS)
    assert names(["ds/*"], "datatrove") == names(["ds/*"]) == ["00_a.ds"]
    refuses(CorpusError, "zeb: not found", names, ["zeb"], "raw")
    refuses(CorpusError, r"z\*: the glob matches no file", names, ["z*"], "raw")


def test_a_folder_with_the_tokens_of_two_tools_or_of_none_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("what it is")
    refuses(CorpusError, "has no token files", names, [str(tmp_path)], "raw")
    write_megatron(tmp_path / "web", DOCUMENTS)
    refuses(CorpusError, r"tokens are megatron \(.*web\), not npy", names, [str(tmp_path)], "npy")
    write_nanogpt(tmp_path / "shard_000.bin", DOCUMENTS)
    for format in (None, "megatron", "raw"):
        with pytest.raises(CorpusError, match=r"megatron \(.*web\) and raw \(.*shard_0"):
            names([str(tmp_path)], format)


def test_documents_span_parts_of_a_file_and_a_truncated_file_is_refused(tmp_path, monkeypatch):
    write_megatron(tmp_path / "web", DOCUMENTS)
    found = read(tmp_path / "web.bin", "raw", dtype="uint16")
    for part in (1, 2, 11):
        monkeypatch.setattr(token_formats, "PART", part)
        assert documents(found, 0) == DOCUMENTS
        assert documents(found, 7) == [TOKENS[:3], TOKENS[3:]]
    monkeypatch.setattr(token_formats, "PART", 4)
    parts = found.parts()
    next(parts)
    (tmp_path / "web.bin").write_bytes(b"abcdefgh")
    refuses(CorpusError, "web.bin: was truncated while it was being read", list, parts)


def test_files_of_shards_are_linked_and_raw_tokens_need_a_type(tmp_path):
    write_megatron(tmp_path / "web", DOCUMENTS, "<i4", code=4)
    train = tmp_path / "train.bin"
    np.array(TOKENS, "<u4").tofile(train)
    for format in (None, "raw"):
        refused("train.bin: raw tokens do not state their type; give dtype='uint16'", train, format)
    raw = {"document_end": 0, "dtype": "uint32"}
    for file, how in ((tmp_path / "web.bin", {}), (train, raw)):
        shards = import_tokens(file, tmp_path / f"{file.stem}-out", tokenizer="gpt2", **how)
        assert (shards.dtype.name, shards.documents, shards.tokens) == ("uint32", 3, len(TOKENS))
        assert shards.read(0, len(shards)).tolist() == TOKENS
        assert (shards.path / "00000.bin").samefile(file)
        assert MixtureDataset({"web": shards}, length=4).sizes == {"web": 2}


def test_files_with_a_header_are_not_read_as_raw_tokens(tmp_path):
    np.save(tmp_path / "a.npy", np.array(TOKENS, "<u2"))
    message = "a.npy: has a header, but raw tokens have none; it is numpy's: use format 'npy'"
    refused(message, tmp_path / "a.npy", format="raw", dtype="uint16")
    (tmp_path / "a.bin").write_bytes((20240520).to_bytes(4, "little") + bytes(2044))
    refused("it is llm.c's: remove its first 1,024 bytes", tmp_path / "a.bin", dtype="uint16")
    for packed in (gzip, bz2, lzma):  # whose bytes would be ids
        (tmp_path / "a.bin").write_bytes(packed.compress(bytes(100)) + b" ")
        refused(": unpack it", tmp_path / "a.bin", dtype="uint16")


def test_an_id_outside_the_vocabulary_is_named_with_file_place_and_value(tmp_path):
    train, known = tmp_path / "train.bin", {"dtype": "uint16", "tokenizer": "bpe:300"}
    np.array([*TOKENS, 400, 5], "<u2").tofile(train)
    reason = "'bpe:300' has the ids 0 to 299; check the tokenizer"
    refused(f"train.bin: token 11 is 400, but {reason}", train, **known)
    ids = "document_end 300: 'bpe:300' has the ids 0 to 299"
    refused(ids, train, **known, document_end=300)
    for size in (0, (1 << 32) + 1):
        refused(f"vocab_size {size}; a tokenizer has from 1", train, **known, vocab_size=size)
    FastTokenizer.train(["some text"], 260).save(tmp_path)
    np.array([1, 260], "<u2").tofile(train)
    refused("token 1 is 260", train, dtype="uint16", tokenizer=str(tmp_path))
    assert import_tokens(train, tmp_path / "t", dtype="uint16", tokenizer="x", vocab_size=261)


def test_an_index_of_megatrons_cut_anywhere_is_refused_and_one_with_a_flip_or_harmless(tmp_path):
    write_megatron(tmp_path / "web", DOCUMENTS)
    content = (tmp_path / "web.idx").read_bytes()
    for size in range(len(content)):
        (tmp_path / "web.idx").write_bytes(content[:size])
        refused("web.idx: ", tmp_path / "web")
    (tmp_path / "web.idx").write_bytes(content)
    for _ in flips(tmp_path / "web.idx", step=1):
        try:
            (found,) = open_token_files([str(tmp_path / "web")], "megatron", None)
        except CorpusError:
            continue
        assert (found.documents, found.stored.name) == (3, "uint16")


def test_what_is_there_already_is_kept_and_what_is_unknown_is_refused(tmp_path):
    refused("dtype 'uint61'; did you mean 'uint16'?", tmp_path / "x.bin", dtype="uint61")
    for named, message in (("", "the path is empty"), ([], "source is empty; name at least")):
        refuses(CorpusError, message, import_tokens, named, tmp_path / "out", tokenizer="gpt2")
    with pytest.raises(CorpusError, match="token files must be local; copy them to this"):
        import_tokens("s3://bucket/a.bin", tmp_path / "out", tokenizer="gpt2")
    np.array(TOKENS, "<u2").tofile(tmp_path / "train.bin")
    with pytest.raises(CorpusError, match="already exists"):
        import_tokens(tmp_path / "train.bin", tmp_path, tokenizer="t")


def test_an_index_of_another_kind_or_type_or_none_is_refused(tmp_path):
    for missing in ("web.bin", "web.idx"):
        write_megatron(tmp_path / "web", DOCUMENTS)
        (tmp_path / missing).unlink()
        refused(f"{missing}: cannot be read: No such file", tmp_path / "web", "megatron")
    write_megatron(tmp_path / "web", DOCUMENTS)
    refused("web.idx: its tokens are uint16, not 'int32'", tmp_path / "web", dtype="int32")
    write_megatron(tmp_path / "web", DOCUMENTS, code=6)
    refused("tokens of type code 6; supported: version 1 of uint8 (1), int32 (4)", tmp_path / "web")
    write_megatron(tmp_path / "web", DOCUMENTS, version=2)
    refused("version 2 of a Megatron index, tokens of type code 8;", tmp_path / "web")
    write_megatron(tmp_path / "web", DOCUMENTS, magic=b"SOMETHING")
    refused("not a Megatron index: it begins with b'SOMETHING'", tmp_path / "web")


# --- Shards ---------------------------------------------------------------------------------------


def written(path, tokens, *, dtype="uint16", shard_tokens=10, chunk=7):
    size = patch.object(token_shards, "SHARD_TOKENS", shard_tokens)
    with size, TokenWriter(path, dtype=dtype, tokenizer="bytes") as writer:
        for start in range(0, len(tokens), chunk):
            writer.write(tokens[start : start + chunk], documents=1, bytes=3)
    return TokenShards.open(path)


@pytest.fixture
def tokens():
    return np.random.default_rng(0).integers(0, 1 << 16, 95)


@pytest.fixture
def shards(tmp_path, tokens):
    return written(tmp_path / "train", tokens)


@settings(max_examples=40)
@given(size=st.integers(1, 60), shard=st.integers(1, 25), data=st.data())
def test_a_range_and_rows_are_slices_of_all_tokens(tmp_path_factory, size, shard, data):
    tokens = np.arange(size)
    shards = written(tmp_path_factory.mktemp("t") / "train", tokens, shard_tokens=shard)
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    np.testing.assert_array_equal(shards.read(start, stop), tokens[start:stop])
    length = data.draw(st.integers(1, size))
    starts = data.draw(st.lists(st.integers(0, size - length), max_size=5))
    expected = np.array(starts, dtype=int).reshape(-1, 1) + np.arange(length)
    np.testing.assert_array_equal(shards.rows(starts, length), expected)


def test_a_token_that_does_not_fit_is_refused(tmp_path):
    for token in (-1, 65_536):
        with pytest.raises(ShardError, match=rf"token {token} does not fit uint16 \(0 to 65535\)"):
            written(tmp_path / "train", np.array([5, token, 6]))
    assert written(tmp_path / "t", np.array([65_536]), dtype="uint32").read(0, 1) == [65_536]
    with pytest.raises(ShardError, match="tokens of dtype float64; expected integers"):
        written(tmp_path / "train", np.array([0.5]))
    with pytest.raises(ShardError, match="dtype 'int64'; tokens are uint16 or uint32"):
        written(tmp_path / "train", np.array([1]), dtype="int64")


def test_an_altered_shard_is_found_by_its_hash_and_a_truncated_or_absent_one_without(shards):
    path = shards.path / "00003.bin"
    shards.read(0, 95)
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    TokenShards.open(shards.path, verify=False)
    with pytest.raises(ShardError, match=r"00003.bin: altered: SHA-256 .* mixopt run CONFIG"):
        TokenShards.open(shards.path)
    path.write_bytes(path.read_bytes()[:-2])
    cut = "00003.bin: truncated: 18 bytes, but its index has 20"
    refuses(ShardError, f"{cut}; prepare", TokenShards.open, shards.path, verify=False)
    refuses(ShardError, cut, shards.read, 0, 95)
    path.unlink()
    missing = "00003.bin: not found; prepare the corpus again"
    refuses(ShardError, missing, TokenShards.open, shards.path)
    refuses(ShardError, "00003.bin: no longer found; restore it and resume", shards.read, 0, 95)
    refuses(ShardError, r"index.json: not found", TokenShards.open, shards.path / "elsewhere")


def test_many_bytes_are_hashed_once_a_node(shards, monkeypatch):
    monkeypatch.setattr(token_shards, "_SHARED_HASH_BYTES", 0)
    monkeypatch.setattr("mixopt.system.manifest.LARGE", 0)
    TokenShards.open(shards.path)
    with monkeypatch.context() as patch:
        patch.setattr("mixopt.system.manifest.file_hash", None)  # nothing is read again
        TokenShards.open(shards.path)
    (shards.path / "00003.bin").write_bytes(b"\0" * 20)
    refuses(ShardError, r"00003.bin: altered: SHA-256", TokenShards.open, shards.path)


def test_ranges_outside_the_tokens_are_refused(shards):
    refuses(IndexError, r"tokens \[90, 96\) of 95", shards.read, 90, 96)
    refuses(IndexError, r"rows of 6 from 0 to 90 of 95", shards.rows, [0, 90], 6)


def test_a_failed_write_leaves_what_was_there_and_another_replaces_it(shards, tokens):
    def interrupted():
        with TokenWriter(shards.path, dtype="uint16", tokenizer="bytes") as writer:
            writer.write(tokens[:5], documents=1, bytes=3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    np.testing.assert_array_equal(TokenShards.open(shards.path).read(0, 95), tokens)
    assert [path.name for path in shards.path.parent.iterdir()] == ["train"]
    assert written(shards.path, np.arange(3)).read(0, 3).tolist() == [0, 1, 2]
    assert sorted(path.name for path in shards.path.iterdir()) == ["00000.bin", "index.json"]


def test_mapped_shards_keep_no_descriptor_and_many_replace_each_other(shards, tokens, monkeypatch):
    mapping = lru_cache(maxsize=2)(token_shards._mapping.__wrapped__)
    monkeypatch.setattr(token_shards, "_mapping", mapping)
    before = len(os.listdir("/proc/self/fd"))
    starts = np.arange(0, 80, 3)
    np.testing.assert_array_equal(shards.rows(starts, 12), tokens[starts[:, None] + np.arange(12)])
    assert mapping.cache_info().currsize == 2
    assert len(os.listdir("/proc/self/fd")) == before
    sent = pickle.dumps(shards)  # to another process: the path and not the tokens
    assert len(sent) < 1_000
    np.testing.assert_array_equal(pickle.loads(sent).read(0, 95), tokens)


def test_the_error_for_too_many_open_files_names_the_limit_to_raise(shards, monkeypatch):
    def full(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("mixopt.corpus.token_shards.os.open", full)
    refuses(ShardError, r"Too many open files; raise the limit: ulimit -n 4096", shards.read, 0, 5)
