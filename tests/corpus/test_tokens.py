import errno
import os
import pickle
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt.corpus import TokenShards, TokenWriter, token_shards
from mixopt.errors import ShardError


def written(path, tokens, *, dtype="uint16", shard_tokens=10, chunk=7):
    with TokenWriter(path, dtype=dtype, tokenizer="bytes", shard_tokens=shard_tokens) as writer:
        for start in range(0, len(tokens), chunk):
            writer.write(tokens[start : start + chunk], documents=1, bytes=3)
    return TokenShards.open(path)


@pytest.fixture
def tokens():
    return np.random.default_rng(0).integers(0, 1 << 16, 95)


@pytest.fixture
def shards(tmp_path, tokens):
    return written(tmp_path / "train", tokens)


@settings(deadline=None, max_examples=40)
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


def test_another_process_gets_the_path_and_not_the_tokens(shards, tokens):
    sent = pickle.dumps(shards)
    assert len(sent) < 1_000
    np.testing.assert_array_equal(pickle.loads(sent).read(0, 95), tokens)


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
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    TokenShards.open(shards.path, verify=False)
    with pytest.raises(ShardError, match=r"00003.bin: altered: SHA-256 .* mixopt run CONFIG"):
        TokenShards.open(shards.path)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ShardError, match=r"truncated: 18 bytes, but its index has 20; prepare"):
        TokenShards.open(shards.path, verify=False)
    path.unlink()
    with pytest.raises(ShardError, match=r"00003.bin: not found; prepare the corpus again"):
        TokenShards.open(shards.path)
    with pytest.raises(ShardError, match=r"index.json: not found"):
        TokenShards.open(shards.path / "elsewhere")


def test_many_bytes_are_hashed_once_a_node(shards, monkeypatch):
    monkeypatch.setattr(token_shards, "_SHARED_HASH_BYTES", 0)
    monkeypatch.setattr("mixopt.system.manifest.LARGE", 0)
    TokenShards.open(shards.path)
    with monkeypatch.context() as patch:
        patch.setattr("mixopt.system.manifest.file_hash", None)  # nothing is read again
        TokenShards.open(shards.path)
    (shards.path / "00003.bin").write_bytes(b"\0" * 20)
    with pytest.raises(ShardError, match=r"00003.bin: altered: SHA-256"):
        TokenShards.open(shards.path)


def test_ranges_outside_the_tokens_are_refused(shards):
    with pytest.raises(IndexError, match=r"tokens \[90, 96\) of 95"):
        shards.read(90, 96)
    with pytest.raises(IndexError, match=r"rows of 6 from 0 to 90 of 95"):
        shards.rows([0, 90], 6)


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
    monkeypatch.setattr(token_shards, "_CALLS", ())  # of another system than POSIX
    np.testing.assert_array_equal(shards.read(0, 95), tokens)


def test_too_many_open_files_are_told_with_the_limit_to_raise(shards, monkeypatch):
    def full(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("mixopt.corpus.token_shards.os.open", full)
    with pytest.raises(ShardError, match=r"Too many open files; raise the limit: ulimit -n 4096"):
        shards.read(0, 5)


def test_a_shard_that_is_cut_or_removed_after_it_was_opened_is_one_line(shards):
    shards.read(0, 95)
    path = shards.path / "00003.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ShardError, match=r"00003.bin: truncated: 18 bytes, but its index has 20"):
        shards.read(0, 95)
    path.unlink()
    with pytest.raises(ShardError, match=r"00003.bin: no longer found; restore it and resume"):
        shards.read(0, 95)
