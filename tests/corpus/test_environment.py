import re
from collections import Counter
from itertools import islice

import pytest

from mixopt.corpus import environment
from mixopt.corpus.environment import (
    DOMAINS,
    InstalledFile,
    environment_documents,
    environment_versions,
    installed_files,
)
from mixopt.errors import CorpusError

MIN_BYTES = 1_000_000


@pytest.fixture(scope="module")
def text():
    """Documents of each domain, up to a little over 1 MB."""
    found = {name: [] for name in DOMAINS}
    for name, documents in found.items():
        left = 1.1 * MIN_BYTES
        for document in environment_documents(name):
            documents.append(document)
            left -= len(document.text.encode())
            if left < 0:
                break
    return found


def test_at_least_six_domains_have_a_megabyte(text):
    sizes = {name: sum(len(d.text.encode()) for d in found) for name, found in text.items()}
    different = ("docstrings", "python_site", "cpp_headers", "javascript", "stubs", "json")
    assert all(sizes[name] >= 0.99 * MIN_BYTES for name in different), sizes
    counts = Counter(t for found in text.values() for t in {d.text for d in found})
    assert max(counts.values()) == 1, "no document is in two domains"
    assert 100 <= min(map(len, counts)) <= max(map(len, counts)) <= 8_000
    for name, found in text.items():
        of_file = Counter()
        for document in found:
            of_file[document.group] += len(document.text.encode())
        assert max(of_file.values()) <= DOMAINS[name].file_bytes


def test_no_file_gives_both_docstrings_and_code():
    groups = [
        {document.group for document in islice(environment_documents(name), 2_000)}
        for name in ("docstrings", "python_site")
    ]
    assert min(map(len, groups)) > 500
    assert not groups[0] & groups[1]


def test_near_copies_are_left_out(tmp_path, monkeypatch):
    lines = [f"value_{k} = function_{k}(argument)" for k in range(40)]
    copies = {"a": lines, "b": [*lines[:30], "changed_1 = 0"], "c": ["other = 12345"] * 9}
    files = [InstalledFile("x", "gone.pyi", str(tmp_path / "gone.pyi"))]
    for name, content in copies.items():
        path = tmp_path / f"{name}.pyi"
        path.write_text("\n".join(content))
        files.append(InstalledFile("x", path.name, str(path)))
    monkeypatch.setattr(environment, "installed_files", lambda: files)
    found = environment_documents("stubs")
    assert [document.group for document in found] == ["x/a.pyi", "x/c.pyi"]


def test_only_the_closure_of_mixopt_is_read():
    versions = environment_versions()
    assert {"python", "numpy", "scikit-learn"} <= versions.keys()
    assert versions.keys().isdisjoint({"pytest", "mypy", "hypothesis", "mixopt"})
    assert not any(re.search(r"-\d[^/]*\.dist-info/|^/", file.key) for file in installed_files())
    with pytest.raises(CorpusError, match="environment domain 'docstring'; did you mean 'docstr"):
        next(environment_documents("docstring"))


PYTHON = '''# Copyright 2020 Someone. All rights reserved.

"""A module that says in its first lines what it is for, at such a length that it is prose \\
and not a label, since labels teach nothing that code would not."""
TEXT = """This is a string and no docstring, whatever its length, and so it is not taken up \\
as prose, even where it goes on over more than one line of the file."""
def function(argument="it's"):  # a quotation mark " in a comment
    \'\'\'Say what the function does, with what it takes and what it returns, in sentences
    that are long enough to be worth reading by a model of language.\'\'\'
    return """Neither is this, which is returned, although it has a length that would make it \\
one if it stood alone at the start of the function."""
'''


def test_docstrings_are_the_docstrings_alone():
    module, function = environment.docstrings(PYTHON).split("\n\n")
    assert module.startswith("A module that says")
    assert function.startswith("Say what the function does")
    assert function.split("\n")[1].startswith("that are long enough")
    shown = "\n".join([">>> f(1)", "1"] * 40)
    assert environment.docstrings(f'def f():\n    """{shown}\n    """\n') == ""
    assert environment.docstrings('def f():\n    """' + "Copyright: mine. " * 20 + '"""\n') == ""


@pytest.mark.parametrize(
    ("clean", "text", "expected"),
    [
        (environment.python_code, "# Licensed under X\n# more\nx = 1", "x = 1"),
        (environment.python_code, "# What this is\nx = 1", "# What this is\nx = 1"),
        (environment.c_code, "/* Copyright\n * me */\n// SPDX\nint x;", "int x;"),
        (environment.minified_code, "f(a){b=a;c}" * 40, "\n".join(["f(a){", "b=a;", "c}"] * 40)),
        (environment.short_lines, f"a\n{'A' * 300}\n{'word ' * 500}\nend", "a\nend"),
        (environment.json_text, f'{{"a": "{"x " * 150}"}}', f'{{\n  "a": "{"x " * 150}"\n}}'),
        (environment.json_text, f'{{\n"a": 1,\n"h": "{"0f" * 16}"\n}}', '{\n"a": 1,\n}'),
        (environment.json_text, "{" * 300, ""),
        (environment.description, "Metadata-Version: 2\nName: x\n\nWhat it is", "What it is"),
        (environment.description, "# Title\n\nWhat it is", "# Title\n\nWhat it is"),
    ],
)
def test_generated_text_is_left_out_and_minified_code_is_split_into_lines(clean, text, expected):
    assert clean(text) == expected


def test_pieces_cut_at_blank_lines_and_lose_no_words():
    text = "\n\n".join(f"paragraph {k} " + "word " * k for k in range(60))
    found = list(environment.pieces(text, longest=500))
    assert max(map(len, found)) <= 500
    assert " ".join(found).split() == text.split()
    assert all(piece.startswith("paragraph") for piece in found)
    assert list(environment.pieces("x" * 25, longest=10)) == ["x" * 10, "x" * 10, "x" * 5]
