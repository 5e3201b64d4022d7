"""What mkdocs builds beside the pages in docs/: the reference, and what pages link to elsewhere.

The reference has a page for each package of the table in docs/architecture.md, with the public
names of its face, so that no list of them is written by hand. Pages link to files of the repository
by their relative path, as a reader of the repository expects: such files become part of the site
under the same path, and the links are rewritten to point there.
"""

from __future__ import annotations

import ast
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[2]
ROOTS = {"mixopt_proxies": "proxies", "mixopt_regressors": "regressors"}
# Pages outside docs/ that the site shows too.
MORE_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "experiments/**/*.md")
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=(?:#[^)\s]*)?\))")
FENCED = re.compile(r"(^ *```.*?^ *```)", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation's entries for pages that are generated."""
    for entry in config.nav or []:
        if "Reference" in entry:
            entry["Reference"] += [{name: page_of(name)} for name in packages()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, the pages outside docs/, and every file that a page links to."""
    for name in packages():
        files.append(File.generated(config, page_of(name), content=reference(name)))
    waiting = [path for pattern in MORE_PAGES for path in sorted(PROJECT.glob(pattern))]
    known = {file.src_uri for file in files}
    for file in files.documentation_pages():
        waiting += linked(source_folder(file), file.content_string)
    while waiting:
        path = waiting.pop(0)
        name = path.relative_to(PROJECT).as_posix()
        if name in known or name.startswith("docs/") or not path.is_file():
            continue
        known.add(name)
        level = InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, name, abs_src_path=str(path), inclusion=level))
        if path.suffix == ".md":
            waiting += linked(path.parent, path.read_text(encoding="utf-8"))
    return files


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that hold in the repository into links that hold in the site."""
    here = posixpath.dirname(page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        path = Path(os.path.normpath(source_folder(page.file) / found[1]))
        if not path.is_relative_to(PROJECT):
            return found[1]
        name = path.relative_to(PROJECT).as_posix().removeprefix("docs/")
        return posixpath.relpath(name, here or ".")

    return "".join(
        part if part.lstrip().startswith("```") else LINK.sub(moved, part)
        for part in FENCED.split(markdown)
    )


def source_folder(file: File) -> Path:
    """Return the folder of the repository that a page's links are relative to."""
    inside = PROJECT / "docs" / file.src_uri
    return (inside if inside.exists() else PROJECT / file.src_uri).parent


def linked(folder: Path, markdown: str) -> Iterator[Path]:
    """Yield the paths that a page links to, fenced code left out."""
    for found in LINK.findall(FENCED.sub("", markdown)):
        path = Path(os.path.normpath(folder / found))
        if path.is_relative_to(PROJECT):
            yield path


def packages() -> list[str]:
    """Return the packages that docs/architecture.md describes, `mixopt` first."""
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Packages")[2].partition("## ")[0]
    return ["mixopt", *re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)]


def page_of(package: str) -> str:
    """Return where a package's page is in the site."""
    return f"reference/{package}.md"


def face(package: str) -> Path:
    """Return the file of a package or module."""
    root = PROJECT / ROOTS.get(package.split(".", maxsplit=1)[0], ".")
    path = root.joinpath(*package.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def public_names(package: str) -> dict[str, str]:
    """Return the public names of a package, and the dotted path of what each one is."""
    tree = ast.parse(face(package).read_text(encoding="utf-8"))
    if face(package).name != "__init__.py":
        kinds = (ast.ClassDef, ast.FunctionDef)
        own = [node.name for node in tree.body if isinstance(node, kinds)]
        return {name: f"{package}.{name}" for name in own if not name.startswith("_")}
    typed = [node for node in tree.body if isinstance(node, ast.If)]
    nodes = [*tree.body, *(inner for node in typed for inner in node.body)]
    return {
        alias.asname: f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname and not alias.asname.startswith("_")
    }


def resolved(path: str) -> str:
    """Return where the object behind a public name is defined: faces hand on names of faces."""
    package, _, name = path.rpartition(".")
    if face(package).name != "__init__.py":
        return path
    inner = public_names(package).get(name)
    return path if inner in (None, path) else resolved(inner)


def reference(package: str) -> str:
    """Return the page of a package: its docstring, then each public name."""
    docstring = ast.get_docstring(ast.parse(face(package).read_text(encoding="utf-8"))) or ""
    head = f"# {package}\n\n{docstring}\n\n"
    names = {name: resolved(path) for name, path in public_names(package).items()}
    if package == "mixopt":  # its names have their places on the pages of their packages
        places = {
            path: f"({path}.md)" if path in packages() else f"[{path}]" for path in names.values()
        }
        return head + "".join(f"- [`mixopt.{n}`]{places[path]}\n" for n, path in names.items())
    if not names:
        return head + "Nothing in it is public.\n"
    order = sorted(names, key=lambda name: (name.isupper(), name))  # constants last
    return head + "\n".join(shown(names[name]) for name in order)


def shown(path: str) -> str:
    """Return the directive that shows a name, or a line for one that is unpacked from a tuple."""
    module, _, name = path.rpartition(".")
    tree = ast.parse(face(module).read_text(encoding="utf-8"))
    targets = [node.targets[0] for node in tree.body if isinstance(node, ast.Assign)]
    unpacked = [one for target in targets if isinstance(target, ast.Tuple) for one in target.elts]
    if name in {one.id for one in unpacked if isinstance(one, ast.Name)}:
        return f"## {name}\n\nA constant, `{path}`.\n"
    return f"::: {path}\n"
