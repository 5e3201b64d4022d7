"""Tokens of other tools become shards, by a link where the bytes allow it."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from token_writers import write_megatron

from mixopt import CorpusError, MixtureDataset
from mixopt.corpus import TokenShards, import_tokens
from mixopt.corpus.token_formats import open_token_files
from mixopt.corpus.tokenizer import FastTokenizer

DOCUMENTS = [[5, 6, 7, 0], [8, 0], [9, 9, 9, 9, 0]]
TOKENS = [token for document in DOCUMENTS for token in document]


@pytest.mark.parametrize(("dtype", "code", "ours"), [("<u2", 8, "uint16"), ("<i4", 4, "uint32")])
def test_megatrons_files_are_linked_not_copied(tmp_path, dtype, code, ours):
    write_megatron(tmp_path / "web", DOCUMENTS, dtype, code=code)
    shards = import_tokens(tmp_path / "web.bin", tmp_path / "out", tokenizer="gpt2")
    assert (shards.dtype.name, shards.documents, shards.tokens) == (ours, 3, len(TOKENS))
    assert shards.read(0, len(shards)).tolist() == TOKENS
    assert (tmp_path / "out" / "00000.bin").samefile(tmp_path / "web.bin")
    assert MixtureDataset({"web": TokenShards.open(tmp_path / "out")}, length=4).sizes == {"web": 2}


def test_nanogpts_tokens_are_linked_and_documents_counted_by_their_end(tmp_path):
    np.array(TOKENS, "<u2").tofile(tmp_path / "train.bin")
    source, out = tmp_path / "train.bin", tmp_path / "out"
    shards = import_tokens(source, out, tokenizer="gpt2", document_end=0, dtype="uint16")
    assert shards.documents == 3
    assert shards.read(0, len(shards)).tolist() == TOKENS
    assert (out / "00000.bin").samefile(source)


def test_raw_tokens_need_a_type(tmp_path):
    np.array(TOKENS, "<u4").tofile(tmp_path / "train.bin")
    for format in (None, "raw"):
        refused("train.bin: raw tokens do not state their type; give dtype='uint16'", tmp_path,
                "train.bin", format=format)  # fmt: skip
    shards = imported(tmp_path, "train.bin", dtype="uint32")
    assert (shards.dtype.name, shards.read(0, 11).tolist()) == ("uint32", TOKENS)


def test_files_with_a_header_are_not_read_as_raw_tokens(tmp_path):
    np.save(tmp_path / "a.npy", np.array(TOKENS, "<u2"))
    message = "a.npy: has a header, but raw tokens have none; it is numpy's: use format 'npy'"
    refused(message, tmp_path, "a.npy", format="raw", dtype="uint16")
    np.savez(tmp_path / "a.npz", np.array(TOKENS, "<u2"))
    refused("it is a zip archive, as .npz is", tmp_path, "a.npz", dtype="uint16")
    (tmp_path / "a.bin.gz").write_bytes(gzip.compress(b"tokens"))
    refused("it is gzip: unpack it", tmp_path, "a.bin.gz", dtype="uint16")
    (tmp_path / "a.bin").write_bytes((20240520).to_bytes(4, "little") + bytes(2044))
    refused("it is llm.c's: leave its first 1,024 bytes out", tmp_path, "a.bin", dtype="uint16")


def test_a_type_that_contradicts_the_file_is_refused(tmp_path):
    write_megatron(tmp_path / "web", DOCUMENTS)
    refused("web.idx: its tokens are uint16, not 'int32'", tmp_path, "web", dtype="int32")


def test_an_id_outside_the_vocabulary_is_named_with_file_place_and_value(tmp_path):
    np.array([*TOKENS, 400, 5], "<u2").tofile(tmp_path / "train.bin")
    reason = "'bpe:300' has the ids 0 to 299; is this its tokenizer"
    refused(f"train.bin: token 11 is 400: {reason}", tmp_path, "train.bin",
            dtype="uint16", tokenizer="bpe:300")  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_the_vocabulary_of_a_tokenizers_folder_is_known(tmp_path):
    FastTokenizer.train(["some text"], 260).save(tmp_path)
    np.array([1, 260], "<u2").tofile(tmp_path / "train.bin")
    refused("token 1 is 260", tmp_path, "train.bin", dtype="uint16", tokenizer=str(tmp_path))


def test_an_end_of_document_outside_the_vocabulary_is_refused(tmp_path):
    np.array(TOKENS, "<u2").tofile(tmp_path / "x.bin")
    refused("document_end 257: 'bytes' has the ids 0 to 256", tmp_path, "x.bin", dtype="uint16",
            tokenizer="bytes", document_end=257)  # fmt: skip
    refused("vocab_size 0; a tokenizer has from 1", tmp_path, "x.bin", dtype="uint16",
            vocab_size=0)  # fmt: skip


def imported(tmp_path, name, *, tokenizer="gpt2", **options):
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    return import_tokens(tmp_path / name, out, tokenizer=tokenizer, **options)


def refused(message, tmp_path, name, *, tokenizer="gpt2", **options):
    with pytest.raises(CorpusError) as caught:
        import_tokens(tmp_path / name, tmp_path / "out", tokenizer=tokenizer, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_index_of_megatrons_that_is_cut_short_is_refused(tmp_path):
    write_megatron(tmp_path / "web", DOCUMENTS)
    content = (tmp_path / "web.idx").read_bytes()
    for size in range(len(content)):
        (tmp_path / "web.idx").write_bytes(content[:size])
        refused("web.idx: ", tmp_path, "web")


def test_a_changed_bit_of_megatrons_index_is_refused_or_harmless(tmp_path):
    write_megatron(tmp_path / "web", DOCUMENTS)
    content = (tmp_path / "web.idx").read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "web.idx").write_bytes(flipped)
        try:
            (found,) = open_token_files([str(tmp_path / "web")], "megatron", None)
        except CorpusError:
            continue
        assert (found.documents, found.stored.name) == (3, "uint16")


def test_what_is_there_already_is_kept_and_what_is_unknown_is_refused(tmp_path):
    refused("dtype 'uint61'; did you mean 'uint16'?", tmp_path, "x.bin", dtype="uint61")
    with pytest.raises(CorpusError, match="the path is empty"):
        import_tokens("", tmp_path / "out", tokenizer="gpt2")
    np.array(TOKENS, "<u2").tofile(tmp_path / "train.bin")
    with pytest.raises(CorpusError, match="already exists"):
        import_tokens(tmp_path / "train.bin", tmp_path, tokenizer="t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"code": 6},
            "type code 6; supported: uint8 \\(1\\), int32 \\(4\\), int64 \\(5\\), uint16 \\(8\\)",
        ),
        ({"magic": b"SOMETHING"}, "not a Megatron index: it begins with b'SOMETHING'"),
    ],
)
def test_an_index_of_another_kind_is_refused(tmp_path, options, message):
    write_megatron(tmp_path / "web", DOCUMENTS, **options)
    with pytest.raises(CorpusError, match=message):
        import_tokens(tmp_path / "web", tmp_path / "out", tokenizer="t")
