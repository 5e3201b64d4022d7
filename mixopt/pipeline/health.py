"""What this machine and environment have, and what is missing: `mixopt doctor`.

Every line is a fact with its state: fine, worth knowing, or missing, with the command that fixes
it. Only what the command line itself needs is a fault; an extra that is not installed is not.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from mixopt.system import bytes_text, terminal_width, without_secrets, wrapped

State = Literal["ok", "note", "missing"]
LEAST_PYTHON = (3, 11)
LEAST_DISK = 5e9  # bytes, for a corpus and the trials of a small sweep
NEEDED = "cli"  # the extra of the command line
ALL = "all"  # the extra of all others
ORDER = (NEEDED, "regressors", "proxies", "pretraining", "mlflow", "ray", "remote", "notebooks")
ANSWER = 5.0  # seconds for the driver's tool
SERVER = "MLFLOW_TRACKING_URI"
_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(\[[^]]*\])?\s*([^;]*)(?:;(.*))?")
_MARK = {"ok": "ok", "note": "note", "missing": "missing"}


@dataclass(frozen=True)
class HealthLine:
    """One fact of the machine or of the environment.

    Attributes:
        name: What it is about.
        state: `ok`; `note`, where something optional is absent; `missing`, where a command fails.
        text: The fact.
        fix: The command or the setting that fixes it; empty where nothing is wrong.
    """

    name: str
    state: State
    text: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as plain values."""
        return asdict(self)


def machine_health() -> list[HealthLine]:
    """Look at Python, the machine, each extra, the MLflow server and the disk."""
    lines = [_python(), _machine(), _memory(), _gpu()]
    lines += [extra_line(name, of) for name, of in extras(requires("mixopt") or ()).items()]
    return [*lines, _server(os.environ.get(SERVER)), _disk(Path.cwd())]


def health_lines(found: Iterable[HealthLine]) -> Iterator[str]:
    """Return the answer for a terminal; what fixes a fact is on a line of its own."""
    found = list(found)
    width = max(len(line.name) for line in found)
    indent = " " * (width + 11)
    for line in found:
        text = f"{line.name:<{width}}  {_MARK[line.state]:<7}  {line.text}"
        yield wrapped(text, indent, terminal_width())
        if line.fix:
            yield f"{indent}{line.fix}"


def extras(requirements: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Return the packages that each extra adds, with the versions that it asks for.

    A package is of the first extra that has it, in the order of ORDER.

    Args:
        requirements: Of the distribution, as its metadata has them.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for text in requirements:
        matched = _REQUIREMENT.fullmatch(text.strip())
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", text)
        if matched is None or extra is None:
            continue
        packages = found.setdefault(extra.group(1), [])
        if matched.group(1) != "mixopt":
            packages.append((matched.group(1), matched.group(3).strip()))
    known = [name for name in ORDER if name in found]
    taken: set[str] = set()
    added = {}
    for name in (*known, *(other for other in found if other not in (*ORDER, ALL))):
        added[name] = [pair for pair in found[name] if pair[0] not in taken]
        taken |= {package for package, _ in found[name]}
    return {name: packages for name, packages in added.items() if packages}


def extra_line(extra: str, packages: Iterable[tuple[str, str]]) -> HealthLine:
    """Compare an extra with what is installed.

    Args:
        extra: Its name.
        packages: Names, and the versions that it asks for.
    """
    here, absent = [], []
    for name, wanted in packages:
        installed = _version(name)
        if installed is None:
            absent.append(name)
        elif not _is_within(installed, wanted):
            absent.append(f"{name} {wanted} (installed: {installed})")
        else:
            here.append(f"{name} {installed}")
    if not absent:
        return HealthLine(extra, "ok", ", ".join(here))
    state: State = "missing" if extra == NEEDED else "note"
    lacks = f"not installed: {', '.join(absent)}"
    return HealthLine(extra, state, lacks, f"pip install 'mixopt[{extra}]'")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _is_within(installed: str, wanted: str) -> bool:
    """Tell whether a version is one of those asked for; where that cannot be told, it is."""
    with suppress(ImportError, ValueError):
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(wanted).contains(installed, prereleases=True)
    return True


def _python() -> HealthLine:
    text = f"Python {platform.python_version()}, mixopt {_version('mixopt') or 'not installed'}"
    if sys.version_info < LEAST_PYTHON:
        return HealthLine("python", "missing", text, "install Python 3.11 or newer")
    return HealthLine("python", "ok", text)


def _machine() -> HealthLine:
    from mixopt.system import usable_cores

    cores = usable_cores()
    words = "1 core" if cores == 1 else f"{cores} cores"
    return HealthLine("machine", "ok", f"{platform.system()} {platform.machine()}, {words}")


def _memory() -> HealthLine:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return HealthLine("memory", "note", "cannot be read on this system")
    return HealthLine("memory", "ok", f"{bytes_text(total)}, of which {bytes_text(free)} are free")


def _gpu() -> HealthLine:
    """Return the GPUs that torch sees, with the driver."""
    from mixopt.sweeps import find_gpus

    found, driver = find_gpus(), _driver()
    if found.gpus:
        kinds = [gpu.kind for gpu in found.gpus]
        named = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
        return HealthLine("GPU", "ok", f"{named}{f', driver {driver}' if driver else ''}")
    if driver:
        text = f"driver {driver}, but torch sees no GPU{f': {found.fault}' if found.fault else ''}"
        return HealthLine(
            "GPU", "note", text, "pip install torch   (a build for your CUDA version)"
        )
    return HealthLine("GPU", "note", "none: proxies train on the CPU")


def _driver() -> str:
    """Return the version of NVIDIA's driver; empty without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(asked, capture_output=True, text=True, timeout=ANSWER, check=True)
        return done.stdout.strip().split("\n")[0][:40]
    return ""


def _server(uri: str | None) -> HealthLine:
    """Return whether the MLflow server answers that the environment names."""
    from mixopt.tracking import check_reachable

    if uri is None:
        return HealthLine(
            "tracking", "ok", f"a SQLite file in each run directory ({SERVER} is not set)"
        )
    shown = without_secrets(uri)
    try:
        check_reachable(uri)
    except (OSError, ValueError) as error:
        text = f"{shown} does not answer: {' '.join(str(error).split()) or type(error).__name__}"
        return HealthLine("tracking", "note", text, f"start the server, or unset {SERVER}")
    return HealthLine("tracking", "ok", f"{shown} answers" if "://" in shown else shown)


def _disk(folder: Path) -> HealthLine:
    free = shutil.disk_usage(folder).free
    text = f"{bytes_text(free)} free in {folder}"
    if free < LEAST_DISK:
        return HealthLine("disk", "note", text, "free some space, or use --out on another disk")
    return HealthLine("disk", "ok", text)


def is_fit(found: Iterable[HealthLine]) -> bool:
    """Tell whether the command line has all that it needs."""
    return all(line.state != "missing" for line in found)


def health_json(found: Iterable[HealthLine]) -> dict[str, Any]:
    """Return the answer as plain values."""
    found = list(found)
    return {"ok": is_fit(found), "checks": [line.to_json() for line in found]}
