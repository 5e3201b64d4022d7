"""Sources of streams that shrink, vanish or cannot go on: one line each; states of few bytes."""

from __future__ import annotations

import json
from itertools import islice

import datasets
import pytest
from stream_sources import Resumable, hub, numbered, tokens_of

from mixopt import CorpusError, MixtureStream


def made(source, **options):
    options = {"batch_size": 4, "buffer": 8, **options}
    return MixtureStream({"web": source}, [1.0], **options)


@pytest.mark.parametrize("kind", [list, hub])
def test_a_source_that_has_shrunk_since_the_state_is_one_line(kind):
    one = made(kind(numbered("web", 40)), lanes=1)
    list(islice(one, 8))
    other = made(kind(numbered("web", 20)), lanes=1)
    other.load_state_dict(one.state_dict())
    with pytest.raises(CorpusError, match=r"^domain 'web': .* (part of it is missing|has changed)"):
        list(islice(other, 8))


def test_a_pass_that_is_shorter_than_the_one_before_is_one_line():
    passes = iter([numbered("web", 40), numbered("web", 39)])
    with pytest.raises(CorpusError, match=r"after 39 .* in pass 1; the pass before had 40: part"):
        list(islice(made(lambda: next(passes)), 30))


def test_a_shard_that_vanishes_between_passes_is_one_line(tmp_path):
    files = [tmp_path / f"{k}.jsonl" for k in range(4)]
    for k, file in enumerate(files):
        file.write_text("".join(json.dumps({"id": 10 * k + i}) + "\n" for i in range(10)))
    source = datasets.load_dataset(
        "json", data_files=[str(f) for f in files], split="train", streaming=True
    )
    one = iter(made(source, lanes=1))
    list(islice(one, 9))
    files[2].unlink()
    with pytest.raises(CorpusError, match=r"^domain 'web': document \d+ of pass 1 .*FileNotFound"):
        list(islice(one, 20))


class Stubborn(Resumable):
    def load_state_dict(self, state):
        raise KeyError("place")


def test_a_source_that_cannot_go_on_is_one_line():
    documents = numbered("web", 40)
    one = made(lambda: Resumable(documents), lanes=1)
    list(islice(one, 8))
    other = made(lambda: Stubborn(documents), lanes=1)
    other.load_state_dict(one.state_dict())
    with pytest.raises(CorpusError, match=r"source: cannot be resumed: KeyError: 'place'"):
        next(iter(other))


class Counted:
    """Documents that count how often they are read."""

    def __init__(self, documents):
        self.documents, self.read = documents, 0

    def __iter__(self):
        for document in self.documents:
            self.read += 1
            yield document


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_source_that_cannot_be_divided_is_read_once_a_process(world_size):
    source = Counted(numbered("web", 400))
    list(islice(made(source, batch_size=8, rank=0, world_size=world_size), 20))
    assert 140 <= source.read <= 200


def test_only_what_is_the_ranks_own_is_tokenised():
    seen = []
    one = made(
        numbered("web", 300),
        batch_size=8,
        length=16,
        tokenize=lambda document: seen.append(document["id"]) or tokens_of(document),
        rank=1,
        world_size=4,
    )
    list(islice(one, 10))
    assert {(i - 1000) % 8 for i in seen} == {2, 3}


@pytest.mark.parametrize("resumable", [True, False])
def test_resume_tokenises_a_block_and_reads_up_to_it_what_has_no_state(resumable):
    class Source(Resumable):
        read = 0

        def __iter__(self):
            for document in super().__iter__():
                Source.read += 1
                yield document

    documents, seen = numbered("web", 300), []

    def source():
        return Source(documents) if resumable else iter(Source(documents))

    def tokenize(document):
        seen.append(document["id"])
        return tokens_of(document)

    options = {"lanes": 1, "length": 16, "tokenize": tokenize}
    one = made(source, **options)
    list(islice(one, 30))
    last = max(seen)
    seen.clear()
    Source.read = 0
    other = made(source, **options)
    other.load_state_dict(one.state_dict())
    next(iter(other))
    assert min(seen) >= last - 16  # what was left over, and the block
    assert max(seen) <= last + 8
    assert (Source.read <= 32) is resumable


def test_a_second_resume_goes_on_as_well():
    whole = [b["id"].tolist() for b in islice(made(hub(numbered("web"))), 30)]
    got, state = [], None
    for _ in range(6):
        one = made(hub(numbered("web")))
        if state is not None:
            one.load_state_dict(state)
        got += [b["id"].tolist() for b in islice(one, 5)]
        state = json.loads(json.dumps(one.state_dict()))
    assert got == whole


def test_the_state_is_small_and_does_not_grow_with_what_was_read():
    one = made(numbered("web"), length=512, tokenize=tokens_of, batch_size=16)
    sizes = []
    for _ in range(3):
        list(islice(one, 3))
        sizes.append(len(json.dumps(one.state_dict()["domains"])))
    assert max(sizes) < 16 * 40 + 200


def test_columns_of_the_users_keep_their_names():
    batch = next(iter(made([{"domain": "mine", "id": k} for k in range(40)])))
    assert batch["domain"] == ["mine"] * 4
    assert batch["mixopt_domain"].tolist() == [0] * 4


def test_a_batch_says_its_tokens_by_domain_without_padding():
    options = {"length": 24, "packing": "best_fit", "tokenize": tokens_of}
    batch = next(iter(made(numbered("web"), **options)))
    assert batch["tokens"].tolist() == [int((batch["document"] >= 0).sum())]
    assert batch["supervised"].tolist() == [int((batch["labels"] >= 0).sum())]
