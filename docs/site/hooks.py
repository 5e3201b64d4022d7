"""What mkdocs builds beside the pages in docs/: the reference, and what pages link to elsewhere.

The reference has a page for each command, and one for each package with the public names of its
face, so that no list of them is written by hand. Pages link to files of the repository
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
from typing import Any

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
            entry["Reference"].append({"Commands": [{n: f"commands/{n}.md"} for n in commands()]})
            entry["Reference"].append({"Python": [{name: page_of(name)} for name in packages()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, the pages outside docs/, and every file that a page links to."""
    for name in packages():
        files.append(File.generated(config, page_of(name), content=reference(name)))
    for name, page in commands().items():
        files.append(File.generated(config, f"commands/{name}.md", content=page))
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
    """Return `mixopt`, its packages and modules, and the packages of the plug-ins."""
    found = [path.parent for path in sorted((PROJECT / "mixopt").glob("*/__init__.pyi"))]
    found += [PROJECT / "mixopt" / f"{name}.py" for name in ("errors", "mixture", "objective")]
    names = [f"mixopt.{path.stem}" for path in sorted(found)]
    for root, folder in ROOTS.items():
        stubs = sorted((PROJECT / folder / root).glob("*/__init__.pyi"))
        names += [f"{root}.{path.parent.name}" for path in stubs]
    return ["mixopt", *names]


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
    stub = face(package).with_suffix(".pyi")
    if not stub.exists():
        own = ast.parse(face(package).read_text(encoding="utf-8")).body
        kinds = (ast.ClassDef, ast.FunctionDef)
        names = [node.name for node in own if isinstance(node, kinds)]
        return {name: f"{package}.{name}" for name in names if not name.startswith("_")}
    return {
        alias.asname: resolved(f"{package}.{node.module}", alias.name)
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname and not alias.asname.startswith("_")
    }


def resolved(module: str, name: str) -> str:
    """Return where the object behind a public name is defined: a face hands on names of faces."""
    is_face = face(module).with_suffix(".pyi").exists()
    return public_names(module)[name] if is_face else f"{module}.{name}"


def reference(package: str) -> str:
    """Return the page of a package: its docstring, then each public name."""
    docstring = ast.get_docstring(ast.parse(face(package).read_text(encoding="utf-8"))) or ""
    head, names = f"# {package}\n\n{docstring}\n\n", public_names(package)
    if package == "mixopt":  # its names have their places on the pages of their packages
        return head + "".join(f"- [`mixopt.{n}`][{path}]\n" for n, path in names.items())
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


def commands() -> dict[str, str]:
    """Return the page of each command: what it does, its arguments and its options."""
    from typer.main import get_command

    from mixopt.cli.main import app

    root: Any = get_command(app)
    return {
        name: command_page(name, root.get_command(None, name)) for name in root.list_commands(None)
    }


def command_page(name: str, command: Any) -> str:
    """Return the page of one command."""
    rows = [
        f"| `{', '.join(one.opts) if one.opts[0].startswith('-') else str(one.name).upper()}` |"
        f" {' '.join((getattr(one, 'help', None) or '').split())} |"
        for one in command.params
    ]
    table = "\n".join(["| argument or option | |", "|---|---|", *rows])
    usage = f"```sh\nmixopt {name} --help\n```"
    return f"# mixopt {name}\n\n{command.help}\n\n{usage}\n\n{table}\n"
