"""Rows straight from a store: the same as from a copy, through a bounded cache, read ahead."""

import os
import pickle
import subprocess
import sys
import time
from itertools import islice

import fsspec
import numpy as np
import pytest

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.corpus import TokenWriter
from mixopt.errors import CorpusError, RunError, SamplerError, ShardError
from mixopt.system import cache_folder, object_store, write_json

LENGTH = 4
ROWS = 1000  # of a shard
SHARD = ROWS * LENGTH  # tokens, two bytes each
ROOM = 17 * SHARD * 2  # two windows of four shards for each of two domains, and one more
NAMES = ("web", "code")
URL = "s3://texts/corpora/one"
WEIGHTS = [0.6, 0.4]

READ = """
import sys
from mixopt import MixtureDataset
dataset = MixtureDataset.from_corpus(sys.argv[1], length=4)
print(int(dataset.read(range(0, 6000, 500))["input_ids"].sum()))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for k, name in enumerate(NAMES):
        tokens = np.random.default_rng(k).integers(0, 5000, 10 * SHARD - 7)
        path = folder / name / "train"
        with TokenWriter(path, dtype="uint16", tokenizer="t", shard_tokens=SHARD) as writer:
            writer.write(tokens, documents=1, bytes=1)
    write_json(folder / "index.json", {"domains": list(NAMES)})
    return folder


@pytest.fixture
def stored(s3, corpus):
    for path in sorted(corpus.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            s3.put(f"corpora/one/{path.relative_to(corpus).as_posix()}", path)
    return s3


def batches(dataset, count, *, chunks=None, **options):
    sampler = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8, chunks=chunks)
    loader = MixtureLoader(dataset, sampler, output="numpy", **options)
    return list(islice(loader, count))


def cached_bytes():
    """Return what the cache holds: the least of some looks, since files come and go meanwhile."""

    def found():
        with os.scandir(cache_folder() / "shards") as entries:
            return SHARD * 2 * sum(len(entry.name) == 64 for entry in entries)

    return min(found() for _ in range(4))


def fetches(s3):
    lines = s3.log.read_text().splitlines()
    return sum("GET /texts/corpora/one/" in line and ".bin " in line for line in lines)


def test_batches_are_those_of_a_copy_and_no_shard_is_fetched_before_it_is_needed(stored, corpus):
    dataset = MixtureDataset.from_corpus(URL, length=LENGTH)
    assert dataset.sizes == MixtureDataset.from_corpus(corpus, length=LENGTH).sizes
    assert not (cache_folder() / "shards").exists()
    here = batches(MixtureDataset.from_corpus(corpus, length=LENGTH), 90)
    for ours, theirs in zip(batches(dataset, 90), here, strict=True):
        assert np.array_equal(ours["input_ids"], theirs["input_ids"])
        assert np.array_equal(ours["row"], theirs["row"])


def test_a_bounded_cache_keeps_its_bound_and_chunks_fetch_each_shard_once_an_epoch(stored, corpus):
    dataset = MixtureDataset.from_corpus(URL, length=LENGTH, cache_bytes=ROOM)
    assert dataset.shards.chunks == (ROWS, 4)
    before, most = fetches(stored), 0
    sampler = MixtureSampler(dataset.sizes, [0.5, 0.5], batch_size=8, chunks=dataset.shards.chunks)
    for batch in islice(MixtureLoader(dataset, sampler, output="numpy"), 2499):
        if batch["batch"] % 8 == 0:
            most = max(most, cached_bytes())
    assert ROOM / 2 < most <= ROOM
    next_epoch = 2 * 4  # what it begins with is read ahead
    assert 20 <= fetches(stored) - before <= 20 + next_epoch


def test_an_order_that_would_fetch_shards_again_and_again_is_refused(stored):
    dataset = MixtureDataset.from_corpus(URL, length=LENGTH, cache_bytes=ROOM)
    said = r"159,9\d\d bytes of .* room for 136,000: MixtureSampler\(..., chunks=\(1000, 4\)\), or"
    with pytest.raises(SamplerError, match=said):
        batches(dataset, 1)


def test_worker_processes_and_a_pickled_dataset_read_the_same_rows(stored, corpus):
    dataset = pickle.loads(pickle.dumps(MixtureDataset.from_corpus(URL, length=LENGTH)))
    here = batches(MixtureDataset.from_corpus(corpus, length=LENGTH), 12)
    dataset.read([0])  # before the fork: a store's library must survive it
    for ours, theirs in zip(batches(dataset, 12, workers=2), here, strict=True):
        assert np.array_equal(ours["input_ids"], theirs["input_ids"])


def test_processes_of_a_node_fetch_each_shard_once_between_them(stored):
    before = fetches(stored)
    command = [sys.executable, "-c", READ, URL]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    sums = {process.communicate()[0] for process in started}
    (told,) = sums
    assert int(told) > 0
    assert fetches(stored) - before == 6


def test_a_shard_that_is_not_what_its_index_says_is_one_line(stored):
    key = "corpora/one/web/train/00003.bin"
    content = stored.get(key)
    dataset = MixtureDataset.from_corpus(URL, length=LENGTH)
    stored.put(key, content[:-2] + b"!!")
    with pytest.raises(ShardError, match=rf"^{URL}/web/train/00003.bin: altered: SHA-256"):
        dataset.read([3 * ROWS + 1])
    stored.put(key, content[:-2])
    with pytest.raises(
        ShardError, match=r"00003.bin: truncated: 7998 bytes, but its index has 8000"
    ):
        dataset.read([3 * ROWS + 1])
    stored.delete(key)
    with pytest.raises(ShardError, match=rf"^{URL}/web/train/00003.bin: no such object"):
        dataset.read([3 * ROWS + 1])
    stored.put(key, content)
    assert dataset.read([3 * ROWS + 1])["input_ids"].tobytes() == content[8:16]


def test_a_store_that_does_not_answer_is_asked_again_and_then_said(stored, monkeypatch):
    monkeypatch.setattr(object_store, "BACK_OFF", 0.01)
    dataset = MixtureDataset.from_corpus(URL, length=LENGTH)
    dataset.read([0])
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    address = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(ShardError, match=rf"^{URL}/web.*cannot be reached .*, 5 times"):
        dataset.read([5 * ROWS])
    assert waits == [0.01, 0.02, 0.04, 0.08]
    assert len(dataset.read([1])["input_ids"]) == 1  # its shard is here
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    dataset.read([5 * ROWS])


def test_shards_are_fetched_while_the_batches_before_theirs_are_read(stored):
    dataset = MixtureDataset.from_corpus(URL, length=LENGTH)
    sampler = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8, chunks=(ROWS, 1))
    second = {(d, r // ROWS) for d, r in zip(*sampler.locate(0, 2000), strict=True)}
    assert len(second) >= 3
    loader = iter(MixtureLoader(dataset, sampler, output="numpy", prefetch=0))
    for _ in range(20):  # 160 rows of 2,000
        next(loader)
    deadline = time.monotonic() + 20
    while cached_bytes() < 3 * SHARD * 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cached_bytes() >= 3 * SHARD * 2
    loader.close()


def test_a_corpus_that_is_not_there_or_has_changed_is_refused(stored, s3):
    with pytest.raises(CorpusError, match=r"s3://texts/none/index.json: no such object"):
        MixtureDataset.from_corpus("s3://texts/none", length=LENGTH)


def test_a_file_larger_than_the_cache_is_refused(stored):
    dataset = MixtureDataset.from_corpus(URL, length=LENGTH, cache_bytes=100)
    with pytest.raises(RunError, match="does not fit into 100; enlarge the cache"):
        dataset.read([0])
