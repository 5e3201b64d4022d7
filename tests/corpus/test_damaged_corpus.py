"""Every file of a prepared corpus cut, emptied, flipped or replaced is found, or it is harmless."""

import json
import os
import shutil
from functools import partial

import pytest
from flips import flips
from made_corpus import prepared, sealed_again, write_lines
from refusals import refusal, refuses

from mixopt.corpus import Corpus, TokenShards, saved_tokenizer
from mixopt.errors import MixoptError, ShardError
from mixopt.loading import MixtureDataset

TEXTS = [f"document {k} has words of its own, as number {k * k} has" for k in range(60)]
FLIPS = 40  # of each file


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    sides = {"web": TEXTS[:30], "code": TEXTS[30:]}
    domains = {name: {"path": write_lines(folder / f"{name}.jsonl", sides[name])} for name in sides}
    how = {"tokenizer": "bpe:300", "validation_fraction": 0.2}
    return prepared(folder / "corpus", domains, **how).path


@pytest.fixture
def corpus(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "corpus")
    return tmp_path / "corpus"


def believed(path):
    """Return all that a corpus says, as those who read it see it."""
    corpus = Corpus.open(path)
    tokenizer = saved_tokenizer(path, corpus.tokenizer)
    shards = [s for d in corpus.evaluation for s in (d.train, d.validation) if s is not None]
    return (
        corpus.domain_names, corpus.tokenizer, corpus.vocab_size, corpus.fingerprint,
        corpus.provenance, tokenizer.encode(TEXTS[:2]).tolist(),
        [(s.read(0, len(s)).tolist(), s.documents, s.bytes, s.tokenizer) for s in shards],
    )  # fmt: skip


FILES = [
    "index.json", "tokenizer.json", "web/train/index.json", "web/train/00000.bin",
    "code/validation/index.json", "code/validation/00000.bin",
]  # fmt: skip


def is_found(path, before):
    """Check that a damage is found in one line, or harmless; return which."""
    after = []
    line = refusal(lambda: after.append(believed(path)))
    assert line or after == [before]
    return bool(line)


@pytest.mark.nightly
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_or_harmless(whole, corpus, name):
    before, damages = believed(whole), flips(corpus / name, count=FLIPS)
    assert sum(is_found(corpus, before) for _ in damages) >= FLIPS // 2


@pytest.mark.parametrize(
    ("name", "content"),
    [*((name, 0.3) for name in FILES[:4]), *(("index.json", new) for new in (b"[]", b"{}", None))],
)
def test_a_file_that_is_cut_replaced_or_a_folder_is_found(whole, corpus, name, content):
    path = corpus / name
    if isinstance(content, float):
        content = path.read_bytes()[: int(content * path.stat().st_size)]
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    assert is_found(corpus, believed(whole))


def test_a_shard_that_is_altered_a_link_out_of_the_corpus_or_a_pipe_is_not_read(corpus, tmp_path):
    shard = corpus / "web" / "train" / "00000.bin"
    shard.write_bytes(shard.read_bytes()[::-1])
    altered = r"00000\.bin: altered: SHA-256"
    refuses(ShardError, altered, MixtureDataset.from_corpus, corpus, length=8)
    assert MixtureDataset.from_corpus(corpus, length=8, verify=False).domains == ("web", "code")
    shard.rename(tmp_path / "outside.bin")
    shard.symlink_to(tmp_path / "outside.bin")
    refuses(MixoptError, "outside this folder; it is not read", Corpus.open, corpus, verify=False)
    shard.unlink()
    os.mkfifo(shard)
    refuses(MixoptError, r"00000.bin: is not a file", Corpus.open, corpus, verify=False)


@pytest.mark.parametrize("name", ["../secret.bin", ".."])
def test_a_shard_outside_its_folder_is_never_opened(corpus, name):
    path = corpus / "web" / "train"
    size = (path / "00000.bin").stat().st_size
    (corpus / "web" / "secret.bin").write_bytes(b"s" * size)
    (shard,) = json.loads((path / "index.json").read_text())["shards"]
    sealed_again(path / "index.json", shards=[shard | {"file": name}])
    message = r"index.json: shards.0: file '.*': a name "
    refuses(MixoptError, message, TokenShards.open, path, verify=False)


@pytest.mark.parametrize(
    ("field", "name"), [("domains", "../web"), ("domains", 7), ("targets", "/etc")]
)
def test_a_hostile_name_of_a_domain_is_refused(corpus, field, name):
    sealed_again(corpus / "index.json", **{field: [name]})
    for read in (Corpus.open, partial(MixtureDataset.from_corpus, length=8)):
        message = r"^[^\n]*index.json: (domain |domains: |targets: )[^\n]*$"
        refuses(MixoptError, message, read, corpus, verify=False)


def test_what_a_killed_preparation_left_is_removed_at_the_next(corpus, tmp_path):
    left = [corpus / ".text", corpus / "web" / ".train.123.tmp"]
    for folder in left:
        (folder / "sub").mkdir(parents=True)
    (corpus / ".index.json.abc.tmp").write_text("half")
    prepared(corpus, {"web": {"path": write_lines(tmp_path / "a.jsonl", TEXTS)}})
    assert not [p for p in (*left, corpus / ".index.json.abc.tmp") if p.exists()]
    assert not (corpus / "tokenizer.json").exists()
    assert Corpus.open(corpus).tokenizer == "bytes"
