"""Build the sdist and the wheel, and check both as their users get them.

    python experiments/checks/release.py path/to/uv [--extras cli,ray] [--python 3.12]

The wheel is built from the sdist. `twine check` reads their metadata; the wheel holds the three
packages, their types and the page's scripts, and nothing else; each extra is installed alone into
a fresh environment, in which it must do what it promises; `mypy --strict` reads a user's program
against the installed types; the tests of a few rooms pass in the unpacked sdist. The files stay in
`dist/`. Installing every extra takes some minutes and 20 GB where nothing is cached.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
DIST = HOUSE / "dist"
PACKAGES = {"mixopt", "mixopt_proxies", "mixopt_regressors"}
# What each extra promises: a line that must run with nothing else installed.
PROMISES = {
    "": "import mixopt; mixopt.Mixture({'web': 0.5, 'code': 0.5})",
    "cli": "import mixopt.cli; from mixopt import Trials; import sklearn, lightgbm, matplotlib",
    "ray": "from mixopt.sweeps import RayExecutor; import ray",
    "remote": "import fsspec, s3fs, gcsfs, huggingface_hub",
    "all": "import mixopt, torch, datasets, mlflow, ray, s3fs, transformers, anywidget",
}
TYPED = '''
from __future__ import annotations

from pathlib import Path

from mixopt import Mixture, MixtureSampler, Run, Trials, load_run


def steps(run: Run, sizes: dict[str, int]) -> int:
    """Count the batches of an epoch."""
    mixture: Mixture = run.recommendation.mixture
    sampler = MixtureSampler(sizes, mixture, batch_size=8)
    return sum(1 for _ in zip(range(3), sampler, strict=False))


def best(path: Path) -> dict[str, float]:
    """Return the shares that a table of trials leads to."""
    fit = Trials.from_csv(path / "w.csv", path / "l.csv").fit()
    return dict(fit.propose(target="web").mixture)


print(steps(load_run("runs/mine"), {"web": 100, "code": 100}))
'''
ROOMS = ["tests/test_mixture.py", "tests/constraints", "tests/config"]


def main() -> int:
    """Build and check; return 1 at the first failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uv", help="path of uv")
    parser.add_argument("--extras", default=",".join(PROMISES), help="which are installed")
    parser.add_argument("--python", default="", help="version of the environments")
    options = parser.parse_args()
    uv = str(Path(options.uv).absolute()) if "/" in options.uv else options.uv
    shutil.rmtree(DIST, ignore_errors=True)
    run(uv, "build", "--quiet", "--out-dir", str(DIST), str(HOUSE))
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    run(uv, "tool", "run", "--quiet", "twine", "check", "--strict", str(wheel), str(sdist))
    check_wheel(wheel)
    python = ["--python", options.python] if options.python else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for extra in options.extras.split(","):
            check_extra(uv, folder, wheel, extra, python)
        check_types(uv, folder, wheel, python)
        check_sdist(uv, folder, sdist)
    print(f"release: {wheel.name} and {sdist.name} hold")
    return 0


def check_wheel(wheel: Path) -> None:
    """Check the content of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(about).decode()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == PACKAGES, tops
    for package in PACKAGES:
        assert f"{package}/py.typed" in names, f"{package} has no types"
    odd = [
        name
        for name in names
        if not name.endswith((".py", ".pyi", ".typed", ".js", ".css", ".html"))
    ]
    assert all(".dist-info/" in name for name in odd), odd
    assert any(name.startswith("mixopt/reporting/assets/") for name in names), "no scripts"
    version = metadata.split("\nVersion: ")[1].split("\n")[0]
    assert f"-{version}-" in wheel.name, version
    print(f"wheel: {len(names)} files, {wheel.stat().st_size / 1e3:.0f} kB, version {version}")


def check_extra(uv: str, folder: Path, wheel: Path, extra: str, python: list[str]) -> None:
    """Install one extra into a fresh environment, and use it."""
    place = folder / f"extra-{extra or 'bare'}"
    run(uv, "venv", "--quiet", *python, str(place))
    target = f"{wheel}[{extra}]" if extra else str(wheel)
    run(uv, "pip", "install", "--quiet", "--python", str(place), target)
    run(str(place / "bin/python"), "-c", PROMISES[extra], cwd=folder)
    if extra:
        printed = run(str(place / "bin/mixopt"), "--version", cwd=folder)
        assert printed.strip().endswith(wheel.name.split("-")[1]), printed
    print(f"extra {extra or 'none'}: installed alone, does what it promises")
    shutil.rmtree(place)


def check_types(uv: str, folder: Path, wheel: Path, python: list[str]) -> None:
    """Have `mypy --strict` read a user's program against the installed types."""
    place, program = folder / "types", folder / "program.py"
    run(uv, "venv", "--quiet", *python, str(place))
    run(uv, "pip", "install", "--quiet", "--python", str(place), f"{wheel}[cli]", "mypy")
    program.write_text(TYPED)
    run(str(place / "bin/mypy"), "--strict", str(program), cwd=folder)
    print("types: a user's program passes mypy --strict")


def check_sdist(uv: str, folder: Path, sdist: Path) -> None:
    """Run the tests of a few rooms in the unpacked sdist."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    inside = folder / sdist.name.removesuffix(".tar.gz")
    run(uv, "run", "--frozen", "--quiet", "pytest", "-q", *ROOMS, cwd=inside)
    print(f"sdist: {sdist.stat().st_size / 1e6:.1f} MB; the tests of {len(ROOMS)} rooms pass in it")


def run(*command: str, cwd: Path = HOUSE) -> str:
    """Run a command; print its output if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        raise SystemExit(1)
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
