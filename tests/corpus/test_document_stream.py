"""Documents of one domain as a stream: the same from any place, without what is held out."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import datasets
import pytest

from mixopt.config import SourceConfig
from mixopt.corpus import BadDocuments, DocumentStream
from mixopt.corpus.documents import content_digest
from mixopt.errors import CorpusError

TEXTS = [f"document {k}" for k in range(30)]


def write(path: Path, texts) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> SourceConfig:
    folder = tmp_path_factory.mktemp("files")
    write(folder / "0.jsonl", TEXTS[:12])
    write(folder / "1.jsonl", TEXTS[12:])
    return SourceConfig(data_files=str(folder / "*.jsonl"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> SourceConfig:
    folder = tmp_path_factory.mktemp("saved") / "rows"
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(str(folder))
    return SourceConfig(path=str(folder))


@pytest.fixture(scope="module")
def streamed(tmp_path_factory) -> SourceConfig:
    """Files that are given by URL, so that `datasets` streams them."""
    path = tmp_path_factory.mktemp("streamed") / "rows.jsonl"
    write(path, TEXTS)
    return SourceConfig(path="json", data_files=f"file://{path}", streaming=True)


def opened(source: SourceConfig, held_out=frozenset()) -> DocumentStream:
    return DocumentStream("web", source, BadDocuments(), held_out)


@pytest.mark.parametrize("kind", ["files", "saved", "streamed"])
def test_it_gives_all_documents_in_order(kind, request):
    assert list(opened(request.getfixturevalue(kind))) == TEXTS


@pytest.mark.parametrize("kind", ["files", "saved", "streamed"])
@pytest.mark.parametrize("stop", [0, 1, 12, 13, 29, 30])
def test_it_goes_on_from_a_place(kind, stop, request):
    source = request.getfixturevalue(kind)
    first, second = opened(source), opened(source)
    before = list(islice(first, stop))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert before + list(second) == TEXTS


def test_text_of_the_installed_packages_goes_on_from_a_place():
    source = SourceConfig(environment="cython")
    first, second = opened(source), opened(source)
    list(islice(first, 7))
    second.load_state_dict(first.state_dict())
    assert list(islice(second, 9)) == list(islice(first, 9))


def test_what_is_held_out_is_left_out_wherever_it_stands(files):
    held_out = frozenset(map(content_digest, [TEXTS[3], "document   20"]))
    assert list(opened(files, held_out)) == [t for k, t in enumerate(TEXTS) if k not in {3, 20}]


@pytest.mark.parametrize("stop", [0, 4, 5])
def test_a_pass_ends_after_so_many_bytes(files, stop):
    limited = files.model_copy(update={"max_bytes": 50})
    first, second = opened(limited), opened(limited)
    before = list(islice(first, stop))
    second.load_state_dict(first.state_dict())
    assert before + list(second) == TEXTS[:5]


def test_another_file_in_its_place_is_an_error(tmp_path):
    write(tmp_path / "a.jsonl", TEXTS)
    source = SourceConfig(data_files=str(tmp_path / "*.jsonl"))
    one = opened(source)
    list(islice(one, 3))
    state = one.state_dict()
    write(tmp_path / "a.jsonl", TEXTS[1:])
    with pytest.raises(CorpusError, match=r"had reached .*a\.jsonl of \d+ bytes, .* another --out"):
        opened(source).load_state_dict(state)


@pytest.mark.parametrize("kind", ["saved", "streamed"])
def test_a_column_that_is_not_there_is_named(kind, request):
    source = request.getfixturevalue(kind).model_copy(update={"column": "content"})
    with pytest.raises(CorpusError, match="no column 'content'; set 'column' to one of: text"):
        next(iter(opened(source)))
