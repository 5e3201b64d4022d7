"""Sizes without tokenising: exact where all is read, near where a sample stands for the rest."""

import bz2
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from made_corpus import write_lines
from refusals import refuses

from mixopt.config import CorpusConfig, SourceConfig, load_config
from mixopt.corpus import FastTokenizer, count_domains, first_look, inventory_of, sizes
from mixopt.errors import CorpusError
from mixopt.pipeline import steps


@pytest.fixture(scope="module")
def texts(text_files) -> list[str]:
    """Distinct documents of two kinds, one after the other."""
    files = [text_files[name].read_text() for name in ("prose", "code")]
    lines = [line for file in files for line in file.splitlines()]
    return list(dict.fromkeys(json.loads(line)["text"] for line in lines))


def written(folder: Path, kind: str, texts: list[str]) -> Path:
    """Write the texts in a form; beside the text a row has a number."""
    path, oldest = folder / f"it.{kind}", pl.CompatLevel.oldest()
    rows = pl.DataFrame({"id": range(len(texts)), "text": texts})
    match kind:
        case "parquet":
            rows.write_parquet(path)
        case "arrow":
            rows.write_ipc(path, compat_level=oldest)
        case "stream.arrow":
            rows.write_ipc_stream(path, compat_level=oldest)
        case "json":
            rows.write_json(path)
        case "jsonl":
            rows.write_ndjson(path)
        case "jsonl.zst":
            path.write_bytes(pa.Codec("zstd").compress(rows.write_ndjson().encode(), asbytes=True))
        case "jsonl.bz2":
            path.write_bytes(bz2.compress(rows.write_ndjson().encode()))
        case "txt":
            path.write_text("".join(texts))
    return path


def count(path: Path, tokenizer: str = "bytes"):
    domains = {"it": {"path": str(path)}}
    (found,) = count_domains(CorpusConfig(domains=domains, tokenizer=tokenizer))
    return found


@pytest.mark.parametrize(
    "kind",
    [
        *("jsonl", "json", "jsonl.bz2", "parquet", "arrow", "txt"),
        *(pytest.param(kind, marks=pytest.mark.nightly) for kind in ("jsonl.zst", "stream.arrow")),
    ],
)
def test_a_small_domain_is_counted_exactly_and_a_part_stands_for_a_large_one(
    kind, texts, tmp_path, monkeypatch
):
    mixed = [text for pair in zip(texts[::2], reversed(texts[1::2]), strict=False) for text in pair]
    path = written(tmp_path, kind, mixed)
    found, whole = count(path), sum(len(text.encode()) for text in mixed)
    assert found.bytes == whole > 2 * 150_000
    assert found.tokens == whole + (1 if kind == "txt" else len(mixed))
    monkeypatch.setattr(sizes, "SAMPLE_BYTES", 150_000)
    near = {"jsonl.zst": 0.08, "jsonl.bz2": 0.08, "json": 0.11}.get(kind, 0.05)
    sample = count(path)
    assert sample.bytes == pytest.approx(whole, rel=near)
    assert sample.is_exact == (kind in {"txt", "jsonl.bz2"}), "one document or block is read whole"


def test_files_that_are_not_read_are_as_those_that_are(texts, tmp_path):
    for number in range(40):
        write_lines(tmp_path / f"{number:02}.jsonl", texts[number::40])
    found = count(tmp_path)
    assert found.bytes == pytest.approx(sum(len(t.encode()) for t in texts), rel=0.03)
    assert not found.is_exact


def test_what_is_counted_is_what_a_run_prepares_and_holds_out(text_files, experiment, tmp_path):
    (tmp_path / "c.yaml").write_text(experiment)
    counts = count_domains(load_config(tmp_path / "c.yaml").corpus)
    corpus = steps.run(tmp_path / "c.yaml", tmp_path / "run", until="prepare").corpus
    for counted, domain in zip(counts, corpus.domains, strict=True):
        # Documents that are there twice, or held out elsewhere, are left out of the corpus.
        both = domain.train.tokens + domain.validation.tokens
        assert counted.tokens == pytest.approx(both, rel=0.01)


def test_a_bpe_is_counted_in_bytes_until_it_is_trained(text_files, texts, tmp_path):
    found = count(text_files["code"], "bpe:512")
    assert inventory_of([found]) == {"it": {"bytes": found.bytes}}
    trained = FastTokenizer.train(texts, 300)
    trained.save(tmp_path)
    counted = count(written(tmp_path, "jsonl", texts), str(tmp_path))
    assert inventory_of([counted]) == {"it": len(trained.encode(texts))}
    assert not counted.is_exact


def test_what_has_no_text_here_says_what_to_do(tmp_path):
    blank = written(tmp_path, "jsonl", ["", ""])
    for source, message in (
        ({"path": "nobody/has-this"}, "state its tokens or bytes in corpus.domains"),
        ({"tokens": 5}, "its text is not available here; state its tokens"),
        ({"path": str(blank)}, "no text; add text, or leave the domain out"),
    ):
        refuses(CorpusError, message, count_domains, CorpusConfig(domains={"it": source}))
    assert first_look("it", SourceConfig(tokens=5)) == 0.0
    message = r"domain 'it': .*it.jsonl: no text; add text, or"
    refuses(CorpusError, message, first_look, "it", SourceConfig(path=str(blank)))
