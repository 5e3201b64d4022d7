"""Folders of many shards: opened once a node, read with few descriptors, found out when damaged."""

import hashlib
import json
import os
import pickle
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.corpus import FEW, TokenShards, known_shards, shard_check, shard_files, token_shards
from mixopt.errors import ShardError
from mixopt.loading import token_span
from mixopt.system import cache_folder, write_json, write_sealed

TOKENS = 8  # of a shard
MANY = 3000
RESTRICTED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import numpy as np
from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.corpus import TokenShards

folder, workers = sys.argv[1], int(sys.argv[2])
dataset = MixtureDataset.from_corpus(folder, length=4)
sampler = MixtureSampler(dataset.sizes, [0.5, 0.5], batch_size=50)
loader = MixtureLoader(dataset, sampler, output="numpy", workers=workers)
seen = [row for _, batch in zip(range(120), loader) for row in batch["input_ids"][:, 0].tolist()]
domain, row = divmod(sampler.order.rows(0, 120).ravel(), min(dataset.sizes.values()))
assert seen == (4 * row + 30_000 * domain).tolist(), seen[:10]
print(len(os.listdir("/proc/self/fd")), len(open("/proc/self/maps").readlines()))
"""
RANDOM_ROWS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import numpy as np
from mixopt.corpus import TokenShards
shards = TokenShards.open(sys.argv[1])
starts = np.random.default_rng(0).integers(0, 99_990, 20_000)
assert np.array_equal(shards.rows(starts, 1)[:, 0], starts)
assert np.array_equal(shards.read(50_000, 60_000), np.arange(50_000, 60_000))
"""


def write_many(folder, shards=MANY, *, tokens=TOKENS, first=0, dtype="uint16"):
    """Write shards of one run of numbers, quicker than a TokenWriter does."""
    folder.mkdir(parents=True)
    numbers = np.arange(first, first + shards * tokens).astype(dtype).reshape(shards, tokens)
    entries = []
    for k in range(shards):
        content = numbers[k].tobytes()
        (folder / f"{k:05d}.bin").write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        entries.append({"file": f"{k:05d}.bin", "tokens": tokens, "sha256": sha256})
    fields = {"dtype": dtype, "tokens": shards * tokens, "documents": 1, "bytes": 1}
    content = {"format": "mixopt-tokens/2", "tokenizer": "t", **fields, "shards": entries}
    write_sealed(folder / "index.json", content)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXOPT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for d, name in enumerate(("web", "code")):
        write_many(folder / name / "train", first=30_000 * d)
    write_json(folder / "index.json", {"domains": ["web", "code"]})
    return folder


@pytest.fixture
def few_are_many(monkeypatch):
    """Let five shards be many."""
    for module in (token_shards, known_shards):
        monkeypatch.setattr(module, "FEW", 4)
    monkeypatch.setattr(known_shards, "_LEAST", 100)


@pytest.fixture
def many(tmp_path, few_are_many):
    return write_many(tmp_path / "train", 6)


@pytest.mark.parametrize("workers", [0, 2])
def test_3000_shards_a_domain_are_read_with_few_descriptors(written, workers):
    command = [sys.executable, "-W", "ignore", "-c", RESTRICTED, str(written), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    descriptors, mappings = map(int, done.stdout.split())
    assert descriptors < 128
    assert mappings < 2000


@pytest.mark.nightly
def test_100_000_shards_are_read_under_a_limit_of_256_descriptors(tmp_path):
    write_many(tmp_path / "corpus/web/train", 100_000, tokens=1, dtype="uint32")
    command = [sys.executable, "-c", RANDOM_ROWS, str(tmp_path / "corpus/web/train")]
    subprocess.run(command, check=True)


def test_a_mapping_keeps_no_descriptor_and_ends_with_its_last_use(tmp_path):
    shards = TokenShards.open(write_many(tmp_path / "train", 40))
    before = len(os.listdir("/proc/self/fd"))
    shards.rows(np.arange(40) * TOKENS, TOKENS)
    assert len(os.listdir("/proc/self/fd")) == before
    path = str(tmp_path / "train" / "00000.bin")
    assert path in Path("/proc/self/maps").read_text()
    shard_files._mapping.cache_clear()
    del shards
    assert path not in Path("/proc/self/maps").read_text()


def test_many_shards_are_the_same_tokens_as_few(many, monkeypatch):
    known = TokenShards.open(many)
    assert isinstance(known.shards, known_shards.KnownShards)
    monkeypatch.setattr(token_shards, "has_many", lambda folder: False)
    monkeypatch.setattr(token_shards, "FEW", FEW)
    plain = TokenShards.open(many)
    assert tuple(known.shards) == tuple(plain.shards) == known.shards[:]
    assert np.array_equal(known.read(3, 47), plain.read(3, 47))
    starts = [40, 5, 5, 0, 13]
    assert np.array_equal(known.rows(starts, 7), plain.rows(starts, 7))
    assert pickle.loads(pickle.dumps(known)).read(0, 48).tolist() == list(range(48))


def test_the_second_opening_looks_at_no_shard(many, monkeypatch):
    TokenShards.open(many)
    looked = []
    monkeypatch.setattr(token_shards, "found_shard", lambda *a: looked.append(a))
    monkeypatch.setattr(token_shards, "read_index", lambda *a: looked.append(a))
    assert TokenShards.open(many).read(0, 48).tolist() == list(range(48))
    assert looked == []


def test_a_folder_opened_without_hashes_is_hashed_when_they_are_asked_for(many):
    (many / "00003.bin").write_bytes(b"x" * 2 * TOKENS)
    assert TokenShards.open(many, verify=False).tokens == 48
    with pytest.raises(ShardError, match=r"00003.bin: altered: SHA-256 is not"):
        TokenShards.open(many)


def test_another_index_is_not_taken_for_the_one_that_is_known(many):
    TokenShards.open(many)
    os.rename(many, many.with_name("old"))
    write_many(many, 7)
    assert len(TokenShards.open(many).shards) == 7


def test_what_is_known_and_was_damaged_is_found_out_again(many):
    TokenShards.open(many)
    (kept,) = (cache_folder() / "opened").rglob("shards.bin")
    whole = kept.read_bytes()
    for content in (
        b"",
        whole[:40],
        whole[:-1],
        b"\xff" * 100,
        whole.replace(b"opened/1", b"opened/9"),
    ):
        kept.unlink()
        kept.write_bytes(content)
        assert TokenShards.open(many).read(0, 9).tolist() == list(range(9))
        assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(many, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MIXOPT_CACHE", str(tmp_path / "file" / "cache"))
    assert TokenShards.open(many).read(0, 48).tolist() == list(range(48))


def test_a_shard_that_vanishes_after_it_was_known_is_one_line_when_it_is_read(many):
    TokenShards.open(many)
    (many / "00004.bin").unlink()
    shards = TokenShards.open(many)
    assert shards.read(0, 32).tolist() == list(range(32))
    with pytest.raises(
        ShardError, match=r"00004.bin: not found, but it was there before; restore it"
    ):
        shards.read(30, 40)


def test_a_shard_that_was_truncated_after_it_was_known_is_one_line_when_it_is_read(many):
    shards = TokenShards.open(many)
    os.truncate(many / "00002.bin", 6)
    with pytest.raises(
        ShardError, match=r"00002.bin: truncated: 6 bytes, but its index has 16; prep"
    ):
        shards.rows([17], 3)
    shards.read(0, 8)
    os.truncate(many / "00000.bin", 6)  # while it is open
    with pytest.raises(ShardError, match=r"00000.bin: truncated while it was read"):
        shards.read(0, 8)


def test_a_shard_that_was_altered_after_it_was_verified_is_found_when_it_is_read(many):
    shards = TokenShards.open(many)
    time.sleep(0.02)
    content = (many / "00001.bin").read_bytes()
    (many / "00001.bin").write_bytes(content)  # touched, and what it was
    assert shards.read(8, 16).tolist() == list(range(8, 16))
    (many / "00005.bin").write_bytes(content)
    for found in (shards, pickle.loads(pickle.dumps(shards)), TokenShards.open(many)):
        with pytest.raises(ShardError, match=r"00005.bin: altered: SHA-256 is not .* mixopt prep"):
            found.read(40, 48)


def test_a_shard_that_became_a_link_out_of_its_folder_is_not_read(many, tmp_path):
    shards = TokenShards.open(many)
    (tmp_path / "secret").write_bytes(b"x" * 16)
    (many / "00001.bin").unlink()
    (many / "00001.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ShardError, match=r"'00001.bin' is outside this folder; it is not read"):
        shards.read(8, 16)


def test_where_no_file_can_be_opened_those_that_are_kept_are_closed(many):
    shards = TokenShards.open(many)
    shards.read(0, 40)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    try:
        assert shards.read(40, 48).tolist() == list(range(40, 48))
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_threads_read_while_files_are_closed_under_them(many, monkeypatch):
    monkeypatch.setattr(shard_files, "_DESCRIPTORS", (2, 2))
    shard_files._kept_open.cache_clear()
    shards, faults = TokenShards.open(many), []

    def read_some(seed):
        starts = np.random.default_rng(seed).integers(0, 40, 400)
        rows = [shards.rows([start], 8)[0] for start in starts.tolist()]
        faults.extend(row for row in rows if row.tolist() != list(range(row[0], row[0] + 8)))

    threads = [threading.Thread(target=read_some, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shard_files._kept_open.cache_clear()
    assert faults == []


def large(folder):
    """Write shards that are remembered when they were hashed."""
    return write_many(folder, 5, tokens=600_000, dtype="uint32")


HASHING = """
import sys
from mixopt.corpus import TokenShards, shard_check
from mixopt.system import manifest
shard_check.ALONE = 1
hash, hashed = manifest.file_hash, []
def noted(path):
    hashed.append(path.name)
    return hash(path)
manifest.file_hash = noted
TokenShards.open(sys.argv[1])
print(" ".join(hashed))
"""


def test_processes_of_a_node_hash_a_folder_once_between_them_also_where_it_cannot_be_written(
    tmp_path,
):
    folder = large(tmp_path / "train")
    (folder / ".verified.json").mkdir()  # nothing can be remembered there
    command = [sys.executable, "-c", HASHING, str(folder)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    hashed = [name for process in started for name in process.communicate()[0].split()]
    assert all(process.returncode == 0 for process in started)
    assert sorted(hashed) == [f"{k:05d}.bin" for k in range(5)]


def test_an_altered_shard_is_found_whoever_hashes_it(tmp_path, monkeypatch):
    folder = large(tmp_path / "train")
    monkeypatch.setattr(shard_check, "ALONE", 1)
    TokenShards.open(folder)
    content = bytearray((folder / "00002.bin").read_bytes())
    content[5] ^= 1
    (folder / "00002.bin").write_bytes(content)
    with pytest.raises(ShardError, match=r"00002.bin: altered: SHA-256 is not"):
        TokenShards.open(folder)


def test_an_index_of_another_dtype_is_refused(many):
    content = json.loads((many / "index.json").read_text())
    (many / "index.json").write_text(json.dumps({**content, "dtype": "uint32"}))
    with pytest.raises(ShardError, match=r"has changed since it was written"):
        TokenShards.open(many)
    write_sealed(many / "index.json", {**content, "dtype": "uint32"})
    with pytest.raises(ShardError, match=r"00000.bin: truncated: 16 bytes, but its index has 32"):
        TokenShards.open(many)
    write_sealed(many / "index.json", {**content, "dtype": "int64"})
    with pytest.raises(ShardError, match=r"dtype: 'int64'; tokens are uint16 or uint32"):
        TokenShards.open(many)


def test_a_mapped_shard_that_is_truncated_or_vanishes_between_epochs_is_one_line(tmp_path):
    for name in ("web", "code"):
        write_many(tmp_path / "c" / name / "train", 3, tokens=4096)
    write_json(tmp_path / "c" / "index.json", {"domains": ["web", "code"]})
    dataset = MixtureDataset.from_corpus(tmp_path / "c", length=64)
    dataset.read(np.arange(len(dataset)))
    loader = iter(MixtureLoader(dataset, MixtureSampler(dataset.sizes, [0.5, 0.5], batch_size=8),
                                output="numpy", prefetch=0))  # fmt: skip
    next(loader)
    time.sleep(0.02)
    os.truncate(tmp_path / "c/web/train/00001.bin", 100)
    with pytest.raises(
        ShardError, match=r"00001.bin: truncated: 100 bytes, but its index has 8192"
    ):
        dataset.read(np.arange(len(dataset)))
    with pytest.raises(ShardError, match=r"00001.bin: truncated"):
        list(loader)
    with pytest.raises(ShardError, match=r"00001.bin: truncated"):
        TokenShards.open(tmp_path / "c/web/train", verify=False)
    (tmp_path / "c/code/train/00002.bin").unlink()
    time.sleep(0.02)
    with pytest.raises(
        ShardError, match=r"00002.bin: not found, but it was there before; restore it"
    ):
        dataset.read([len(dataset) - 1])


def test_few_shards_each_of_many_domains_are_not_mapped(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        write_many(tmp_path / "c" / name / "train", 3)
    write_json(tmp_path / "c" / "index.json", {"domains": ["a", "b", "c"]})
    monkeypatch.setattr(token_span, "FEW", 8)
    dataset = MixtureDataset.from_corpus(tmp_path / "c", length=6)  # rows cross shards
    tokens = dataset.read(range(12))["input_ids"]
    assert tokens.reshape(3, 24).tolist() == [list(range(24))] * 3
    assert str(tmp_path / "c" / "a") not in Path("/proc/self/maps").read_text()
    os.truncate(tmp_path / "c/b/train/00001.bin", 4)
    with pytest.raises(ShardError, match=r"b/train/00001.bin: truncated while it was read"):
        dataset.read([5])
