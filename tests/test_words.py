"""No text of the product uses the words that docs/style.md gives up, each with what to write."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
CODE = ("mixopt", "proxies/mixopt_proxies", "regressors/mixopt_regressors")
PAGES = ("README.md", "CONTRIBUTING.md", "docs", "notebooks")
# What shows the old words on purpose, and folders whose text is not changed yet.
SHOWS_THEM = ("docs/style.md",)
WORDS = {
    r"\bmend(s|ed|ing)\b|\bmend (it|this|them|the)\b": "fix",
    r"\b(goes|gone|going) on\b|\bgo on (from|with|where|to|as)\b|cannot go on|\bgoes? on$": (
        "resumes (after a stop), continues"
    ),
    r"\bthat there (is|are)\b(?! (not|so|too))": "available, existing, known",
    r"\b(says|say|said) so\b": "reports it, declares it",
    r"\bless it\b(?= is a|[,.;)]|$)|\bproposal less\b": "a - b",
    r"\b(it|they|mixture) amounts? to\b": "effective domains: 2.0",
    r"\b(is|are|by) [^ ]* ?too good\b": "optimistic by 0.0055",
    r"(?<!there )\b(is|are) no (number|file|text|mapping|class|size|proposal|mixture|token|whole"
    r"|list|array|phase|corpus|item|plug-in|finite)\b": "is not a, are not",
    r"\bheld (back )?by:": "active constraints:",
    r"no difference from .{1,60} is shown|\bshown (better|worse) than\b|\bnot shown (to|worse)\b": (
        "not significant, significantly better"
    ),
    r"\bno million\b": "better than the best of a million random samples",
    r"\bwins over\b": "overrides",
    r"\bfor ever\b": "forever",
    r"\b(is|are) of no use\b": "has no effect",
    r"\bcounts? (for|as) nothing\b": "is not used, is ignored",
    r"\bwhen absent\b|\bif absent\b": "if omitted",
    r"\banew\b": "again, from scratch",
    r"\bas (it|they) (is|was|are|were) given\b": "unchanged, as given",
    r"\bof one's own\b": "your own, the user's own",
    r"\bwhich (the \w+ |it )?(has|have) not\b(?! [a-z]+ed\b)": "does not have",
    r"\b(is|are) worked on elsewhere\b": "in use elsewhere",
    r"\btakes? off most of\b": "removes most of",
    r"\bgave? no sign of life\b": "sent no heartbeat",
    r"\blets? go\)": "set to 0 to disable",
}
PATTERNS = [(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in WORDS.items()]


def python_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield strings, docstrings and blocks of comments with their lines; text alone, no code."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.JoinedStr(values=values):
                parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in values]
                yield node.lineno, "".join(map(str, parts))
            case ast.Constant(value=str(text)):
                yield node.lineno, text
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, text = token.start[0], token.string.strip("# ")
            if comments and comments[-1][0] == line - 1:
                text = f"{comments.pop()[1]} {text}"
            comments.append((line, text))
    yield from comments


def page_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs of a page or a notebook with their lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        yield from ((number, "".join(cell["source"])) for number, cell in enumerate(cells, 1))
        return
    line = 1
    for paragraph in re.split(r"(?<=\n)\n", text):
        yield line, paragraph
        line += paragraph.count("\n") + 1


def files() -> list[Path]:
    """Return all files with text of ours."""
    code = [path for folder in CODE for path in (HOUSE / folder).rglob("*.py")]
    pages = [HOUSE / page for page in PAGES]
    pages = [path for page in pages for path in ([page] if page.is_file() else page.rglob("*"))]
    pages = [path for path in pages if path.suffix in {".md", ".ipynb"}]
    return sorted(path for path in [*code, *pages] if "site" not in path.parts)


def found(texts: Iterator[tuple[int, str]]) -> list[str]:
    """Return a line for each use of words that are given up."""
    said = []
    for line, text in texts:
        joined = " ".join(text.split())
        for pattern, instead in PATTERNS:
            said += [
                f"{line}: {joined[max(0, at.start() - 30) : at.end() + 30]!r}: write {instead!r}"
                for at in pattern.finditer(joined)
            ]
    return said


def exempt(path: Path, places: tuple[str, ...]) -> bool:
    """Tell whether a file is one of some places, or in one."""
    name = path.relative_to(HOUSE).as_posix()
    return any(name == place or name.startswith(f"{place}/") for place in places)


def test_no_text_uses_words_that_are_given_up():
    said = []
    for path in files():
        if exempt(path, SHOWS_THEM):
            continue
        texts = python_texts(path) if path.suffix == ".py" else page_texts(path)
        said += [f"{path.relative_to(HOUSE)}:{line}" for line in found(texts)]
    assert not said, "\n".join(["docs/style.md has the words to use:", *said])


@pytest.mark.parametrize(
    "text",
    [
        "the smallest change that mends it",
        "a sweep that goes on",
        "share of the tokens that there are",
        "a regressor without gradients says so",
        "proposal less it",
        "it amounts to 2.0 domains",
        "an optimum is 0.0055 too good",
        "'x' is no number",
        "held by: web <= 0.1",
        "no difference from the best trial is shown",
        "shown better than uniform",
        "what no million samples do",
        "by glob; wins over margin",
        "0 is of no use",
        "0 when absent",
        "predicted anew",
    ],
)
def test_the_old_words_are_found(text):
    assert found(iter([(1, text)]))


@pytest.mark.parametrize(
    "text",
    [
        "the smallest change that fixes it",
        "there is no corpus",
        "a file is fetched unless it is here",
        "weights are not a mixture",
        "so that there are not too many",
        "the process has not started",
        "effective domains: 2.0",
    ],
)
def test_ordinary_words_are_not(text):
    assert not found(iter([(1, text)]))


def test_docs_style_has_twenty_pairs_whose_left_sides_are_of_the_old_kind():
    page = (HOUSE / "docs" / "style.md").read_text(encoding="utf-8")
    pairs = re.findall(r"^\| (?!before|---)(.+) \| (.+) \|$", page, re.MULTILINE)
    assert len(pairs) >= 20
    assert all(not found(iter([(1, after)])) for _, after in pairs)
