"""`mixopt init`: what it finds in files and folders, and that what it writes is an experiment."""

import csv
import gzip
import json

import pytest
import yaml
from command_line import mixopt

from mixopt.config import load_config
from mixopt.pipeline import check, start_experiment


def texts(word, count=40):
    return [f"{word} {number}: some words that make a document" for number in range(count)]


def jsonl(path, rows, opener=open):
    path.parent.mkdir(parents=True, exist_ok=True)
    with opener(path, "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Domains in every format that is read, and what cannot be read beside them."""
    import polars as pl
    import zstandard

    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    jsonl(data / "web" / "part-00001.jsonl.gz", [{"text": t} for t in texts("web")], gzip.open)
    jsonl(data / "web" / "part-00002.jsonl.gz", [{"text": t} for t in texts("more")], gzip.open)
    (data / "code").mkdir()
    pl.DataFrame({"content": texts("code"), "id": range(40)}).write_parquet(data / "code/0.parquet")
    pl.DataFrame({"text": texts("arrow")}).write_ipc(data / "wiki.arrow", compression=None)
    rows = "".join(json.dumps({"body": t}) + "\n" for t in texts("forum"))
    (data / "forum.jsonl.zst").write_bytes(zstandard.compress(rows.encode()))
    (data / "notes").mkdir()
    for number, text in enumerate(texts("note", 20)):
        (data / "notes" / f"{number}.txt").write_text(text)
    with (data / "mail.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "message"), *enumerate(texts("mail"))])
    return data


def test_a_domain_is_found_in_each_subfolder_and_file_with_the_column_of_its_text(folder):
    out = folder.parent / "new.yaml"
    found = json.loads(mixopt("init", "data", "--out", "new.yaml", "--json").out)
    assert {domain["name"]: domain["column"] for domain in found["domains"]} == {
        "code": "content", "forum": "body", "mail": "message",
        "notes": "text", "web": "text", "wiki": "text",
    }  # fmt: skip
    (web,) = (domain for domain in found["domains"] if domain["name"] == "web")
    size = sum(len(text) for text in (*texts("web"), *texts("more")))
    assert web == {
        "name": "web", "path": ["data/web/*.jsonl.gz"], "files": 2, "format": ".jsonl.gz",
        "column": "text", "bytes": size, "validation": [], "is_broken": False,
    }  # fmt: skip
    assert (found["file"], found["next"]) == ("new.yaml", "mixopt check new.yaml")
    config, written = load_config(out), out.read_bytes()  # which is accepted as it is
    assert (config.design.trials, config.proxy.tokens) == (18, 500_000)
    assert check(config).problems == []
    assert all(source.bytes for source in config.corpus.domains.values())
    ended = mixopt("init", "data", "--out", "new.yaml")
    said = "new.yaml already exists and is not overwritten; choose another --out\n"
    assert (ended.code, ended.error) == (2, f"mixopt: init: {said}")
    assert out.read_bytes() == written


def test_a_held_out_split_alone_is_left_out_as_a_target_to_name(folder):
    jsonl(folder / "eval" / "a.jsonl", [{"text": t} for t in texts("exam")])
    _, left_out = start_experiment(["data"], folder.parent / "new.yaml")
    hint = "a test split; name it under evaluation to use it"
    assert left_out == [f"data/eval/a.jsonl: {hint}"]


def parts_of(found):
    """Return the name, the file and the held-out file of each domain."""
    return [(domain.name, *domain.path, *domain.validation) for domain in found[0]]


def test_a_usual_folder_gives_its_subfolders_and_their_held_out_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    for name in ("web", "code"):
        for split in ("train", "validation", "test"):
            jsonl(data / name / f"{split}.jsonl", [{"text": t} for t in texts(name)])
    (data / "LICENSES").mkdir()
    others = ["LICENSES/web.txt", "README.md", "code/LICENSE"]
    for name in others:
        (data / name).write_text("Permission is granted to anyone.")
    found = start_experiment(["data"], tmp_path / "new.yaml")
    assert parts_of(found) == [
        ("code", "data/code/train.jsonl", "data/code/validation.jsonl"),
        ("web", "data/web/train.jsonl", "data/web/validation.jsonl"),
    ]
    left_out = ["LICENSES", *others[1:], "code/test.jsonl", "web/test.jsonl"]
    said = sorted(line.partition(": ")[0] for line in found[1])
    assert said == [f"data/{name}" for name in left_out]
    config = load_config(tmp_path / "new.yaml")
    assert config.corpus.domains["web"].validation == "data/web/validation.jsonl"
    assert (config.evaluation, config.design.trials) == ({}, 12)
    assert check(config).problems == []


def test_folders_that_are_named_after_a_split_hold_files_of_domains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("train/web-1", "train/code-1", "dev/web-1", "dev/code-1"):
        jsonl(tmp_path / "data" / f"{file}.jsonl", [{"text": t} for t in texts(file)])
    assert parts_of(start_experiment(["data"], tmp_path / "new.yaml")) == [
        ("code", "data/train/code-1.jsonl", "data/dev/code-1.jsonl"),
        ("web", "data/train/web-1.jsonl", "data/dev/web-1.jsonl"),
    ]


def test_odd_names_are_quoted_and_impossible_ones_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my über plan.v2.yaml"
    long = "z" * 150
    for name in (r"a\b", "k: v", "yes", long, "z" * 220):
        for part in "pq":
            jsonl(tmp_path / "data" / name / f"{part}.jsonl", [{"text": t} for t in texts(name)])
    domains, left_out = start_experiment(["data"], file)
    assert [domain.name for domain in domains] == ["k: v", "yes", long]
    assert len(left_out) == 2
    assert all(line.endswith("; rename it") for line in left_out)
    config = load_config(file)
    assert config.name == "my-ber-plan.v2"
    assert list(config.corpus.domains) == ["k: v", "yes", long]
    assert check(config).problems == []


ODD = {
    "binary/a.txt": (b"a\0b", "binary/a.txt: is binary, not text"),
    "empty/a.jsonl": (b"", "empty/a.jsonl: empty file"),
    "pages/a.pdf": (b"%PDF", "pages/a.pdf: .pdf is not a supported text format"),
    "plain/notes": (b"some words", "plain/notes: no suffix names the format"),
    "void": (None, "data/void: no files"),
    "numbers/a.csv": (b"id,n\n1,2\n", "numbers/a.csv: no column of text (columns: id, n)"),
    "broken/a.parquet": (b"PAR1 and no more", "broken/a.parquet: cannot be read: "),
    "lines/a.jsonl": (b"{not json\n", "lines/a.jsonl: no row can be read"),
    "web/z.jsonl": (
        b'{"body": "a text of several words"}\n',
        "web/z.jsonl: no column 'text', which the other files have (columns: body)",
    ),
}


def test_a_folder_without_text_is_no_experiment(tmp_path):
    ended = mixopt("init", tmp_path, "--out", tmp_path / "new.yaml")
    first, second = ended.error.splitlines()
    assert (ended.code, first) == (2, f"left out: {tmp_path}: no files")
    assert second.startswith(f"mixopt: init: no text found in {tmp_path}; a mixture needs two")
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_used_is_left_out_with_one_line(folder, name):
    content, expected = ODD[name]
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)
    ended = mixopt("init", "data", "--out", "new.yaml")
    assert ended.code == 0, ended.error
    lines = [line for line in ended.error.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert len(yaml.safe_load((folder.parent / "new.yaml").read_text())["corpus"]["domains"]) == 6
