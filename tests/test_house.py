"""The house holds: faces, who imports what, one class a name, and every name that is written."""

from __future__ import annotations

import ast
import itertools
import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
ROOTS = {
    "mixopt": HOUSE / "mixopt",
    "mixopt_proxies": HOUSE / "proxies" / "mixopt_proxies",
    "mixopt_regressors": HOUSE / "regressors" / "mixopt_regressors",
}
PAGE = HOUSE / "docs" / "architecture.md"
# Modules that README.md and docs/ tell users to import, and what a face cannot take from a face.
DOCUMENTED = re.compile(r"mixopt\.(integrations\.\w+|loading\.token_import)")
FOR_FACES = {"mixopt.system.lazy_names", "mixopt.system.version"}
WRITTEN = re.compile(r"\bmixopt(?:_proxies|_regressors)?(?:\.[A-Za-z_][A-Za-z_0-9]*)+")


@cache
def modules() -> dict[str, Path]:
    """Return the product's modules by name."""
    found = {}
    for root, folder in ROOTS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((root, *parts)).removesuffix(".__init__")] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def packages() -> list[str]:
    """Return the modules that are packages."""
    return [name for name, path in modules().items() if path.name == "__init__.py"]


@cache
def defined(module: str) -> set[str]:
    """Return the names that a module itself defines at its top, under conditions too."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(tree(module).body)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                targets = [t for target in targets for t in ast.walk(target)]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.If() | ast.Try():
                waiting += ast.iter_child_nodes(node)
    return found


def imports(node: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Yield (module, name) for each import of ours; the name is None where the module is."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from ((a.name, None) for a in part.names if a.name.split(".")[0] in ROOTS)
        elif isinstance(part, ast.ImportFrom) and (part.module or "").split(".")[0] in ROOTS:
            for alias in part.names:
                inner = f"{part.module}.{alias.name}"
                yield (inner, None) if inner in modules() else (part.module, alias.name)


def listed(package: str) -> dict[str, str]:
    """Return what a package's lazy table hands on: modules by name."""
    for node in ast.walk(tree(package)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_names":
            table = ast.literal_eval(node.args[1])
            pairs = [(n, f"{package}.{module}") for module, names in table.items() for n in names]
            assert len(dict(pairs)) == len(pairs), f"{package} hands on a name twice: {pairs}"
            return dict(pairs)
    return {}


def handed_on(package: str) -> dict[str, str]:
    """Return a package's public names, lazy and plain, with the modules that they come from."""
    plain = [node for node in tree(package).body if not isinstance(node, ast.If)]
    found = {
        n: module for node in plain for module, n in imports(node) if n not in (None, "lazy_names")
    }
    return found | listed(package)


PACKAGES = packages()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_face_says_what_its_package_is_for_and_hands_on_the_same_names_twice(package):
    face = tree(package)
    assert ast.get_docstring(face)
    blocks = [n for n in face.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n)]
    found = [pair for block in blocks for node in block.body for pair in imports(node)]
    shown = {name: module for module, name in found if name}  # others are packages in it
    assert shown == listed(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_face_names_the_module_that_defines_each_name(package):
    for name, module in handed_on(package).items():
        inner = handed_on(module) if module in PACKAGES else defined(module)
        assert name in inner, f"{package} hands on {name} of {module}, which does not define it"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_a_module_of_its_package(package):
    below = {name.rpartition(".")[2] for name in modules() if name.rpartition(".")[0] == package}
    assert not below & (set(handed_on(package)) | defined(package))


def face_for(importer: str, target: str) -> str:
    """Return what an importer may import of a target: the outermost package it is not in."""
    parts = target.split(".")
    for end in range(2, len(parts) + 1):
        package = ".".join(parts[:end])
        if package in PACKAGES and not f"{importer}.".startswith(f"{package}."):
            return package
    return target


def trespasses(importer: str, node: ast.AST) -> list[str]:
    """Return the imports that pass by a face, and those of names that a face does not have."""
    found = []
    for module, name in imports(node):
        said = f"{importer}: {module}" + (f" ({name})" if name else "")
        of_face = module in FOR_FACES or module.startswith(f"{importer}.")
        if module not in modules():
            found.append(f"{said}: there is no such module")
        elif (importer in PACKAGES and of_face) or DOCUMENTED.fullmatch(module):
            continue
        elif face_for(importer, module) != module:
            found.append(f"{said}: import it from {face_for(importer, module)}")
        elif name and module in PACKAGES and name not in handed_on(module).keys() | defined(module):
            found.append(f"{said}: the package does not hand it on")
    return found


def test_code_outside_a_package_imports_from_its_face():
    assert [t for name in modules() for t in trespasses(name, tree(name))] == []


def scripts() -> Iterator[tuple[str, ast.Module]]:
    """Yield the experiments, the notebooks' cells and the examples in the documentation."""
    for path in sorted((HOUSE / "experiments").rglob("*.py")):
        yield path.name, ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted((HOUSE / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            lines = "".join(cell["source"]).splitlines()
            writes = lines[0].startswith("%%writefile") and not lines[0].endswith(".py")
            if cell["cell_type"] == "code" and not writes:
                plain = [line for line in lines if not line.startswith(("%", "!"))]
                yield path.name, ast.parse("\n".join(plain))
    for path in (HOUSE / "README.md", *sorted((HOUSE / "docs").glob("*.md"))):
        for code in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
            yield path.name, ast.parse(code)


def test_experiments_notebooks_and_examples_import_from_faces():
    found = list(scripts())
    assert {Path(name).suffix for name, _ in found} == {".py", ".ipynb", ".md"}
    assert [t for name, node in found for t in trespasses(name, node)] == []


def classes() -> dict[str, list[str]]:
    """Return where each class of the product is defined; `_Name` is `Name`."""
    found: dict[str, list[str]] = defaultdict(list)
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(module)
    return found


def two_meanings() -> dict[str, set[str]]:
    """Return the words that docs/architecture.md gives to several packages, with those."""
    table = PAGE.read_text(encoding="utf-8").partition("| word |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*)", table, re.M)
    return {name: set(re.findall(r"`([\w.]+)`", row)) for name, row in rows}


def test_a_class_name_is_defined_once_or_explained():
    doubled = {name: homes for name, homes in classes().items() if len(homes) > 1}
    known = two_meanings()
    assert {n: homes for n, homes in doubled.items() if n not in known} == {}
    assert known.keys() == doubled.keys(), "docs/architecture.md explains a word that is used once"
    for name, homes in doubled.items():
        assert {home.rpartition(".")[0] for home in homes} == known[name], name


def test_the_page_has_a_line_for_each_package_and_for_nothing_else():
    table = PAGE.read_text(encoding="utf-8").partition("## Packages")[2].partition("## ")[0]
    said = re.findall(r"^\| `([\w.]+)` \|", table, re.M)
    tops = {name for name in modules() if name.count(".") == 1}
    rooms = {name for name in tops if name.startswith("mixopt.") or name in PACKAGES}
    assert sorted(said) == sorted(rooms - {"mixopt.__main__"})


def test_the_page_shows_the_layers_that_are_checked():
    page = PAGE.read_text(encoding="utf-8").partition("## Layers")[2]
    with (HOUSE / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert page.split("```")[1].split("\n")[1:-1] == layers


PATH = re.compile(
    r"(?<![\w/.-])(?:experiments|docs|notebooks|tests|mixopt|proxies|regressors)/"
    r"[\w./-]*\.(?:py|md|yaml|png|sh|ipynb)\b"
)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def test_every_path_that_is_written_and_every_link_leads_somewhere():
    lost = []
    for place, text in texts():
        folder = (HOUSE / place).parent
        links = LINK.findall(text) if place.endswith(".md") else []
        lost += [f"{place}: {path}" for path in PATH.findall(text) if not (HOUSE / path).exists()]
        lost += [f"{place}: {link}" for link in links if not (folder / link).exists()]
    assert lost == []


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of every file that may name a module."""
    folders = ("mixopt", "proxies", "regressors", "experiments", "notebooks", "docs", "tests")
    found = itertools.chain.from_iterable((HOUSE / folder).rglob("*") for folder in folders)
    kinds = {".py", ".md", ".ipynb", ".yaml", ".sh"}
    inside = [path for path in found if path.suffix in kinds and "runs" not in path.parts]
    top = [HOUSE / name for name in ("README.md", "CONTRIBUTING.md", "pyproject.toml", "Makefile")]
    for path in sorted([*inside, *top]):
        yield str(path.relative_to(HOUSE)), path.read_text(encoding="utf-8")


def tags() -> set[str]:
    """Return the tags of MLflow runs, which have the form of a name in mixopt."""
    own = [name for name in modules() if name.startswith("mixopt.tracking.")]
    strings = [n.value for m in own for n in ast.walk(tree(m)) if isinstance(n, ast.Constant)]
    return {s for s in strings if isinstance(s, str) and re.fullmatch(r"mixopt\.[a-z_]+", s)}


@cache
def declared() -> dict[str, dict[str, str]]:
    """Return the entry points of pyproject.toml by group."""
    with (HOUSE / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    return {**project["entry-points"], "console_scripts": project["scripts"]}


def is_real(dotted: str) -> bool:
    """Return whether a dotted name is that of a module, or of something in one."""
    module, rest = dotted, ""
    while module not in modules():
        module, _, rest = module.rpartition(".")
    return not rest or rest in handed_on(module).keys() | defined(module)


def unreal(found: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names in texts that nothing has."""
    known = tags() | declared().keys() | {"mixopt.executors", "mixopt.__all__", "mixopt.__file__"}
    return [
        f"{place}: {dotted}"
        for place, text in found
        for dotted in sorted(set(WRITTEN.findall(text)) - known)
        if not is_real(dotted)
    ]


def test_every_name_that_is_written_exists():
    assert unreal([("example", "python -m mixopt" + ".no_such_worker")]) != []
    assert unreal(texts()) == []


def test_every_entry_point_is_installed_and_names_what_is_there():
    for group, points in declared().items():
        installed = distribution("mixopt").entry_points.select(group=group)
        assert {point.name: point.value for point in installed} == points, "uv sync"
        for value in points.values():
            assert is_real(value.replace(":", ".")), value
