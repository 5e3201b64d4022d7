"""Bad input is one line with the field, the value and what to do, and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from command_line import mixopt
from places import SUPPORT

from mixopt import Mixture
from mixopt.errors import EditedWarning

# The words of a command, and what its message must have; {0} is a folder with the files below.
COMMANDS = [
    ("status nowhere", ["nowhere", "has no config.yaml", "mixopt run CONFIG --out nowhere"]),
    ("status {0}/tiny.yaml", ["tiny.yaml", "has no config.yaml"]),
    ("statsu nowhere", ["no such command 'statsu'"]),
    ("status", ["missing argument 'RUN'", "see mixopt status --help"]),
    ("run nowhere.yaml", ["nowhere.yaml: no such file"]),
    ("run {0}/tiny.yaml --out {0}/q?mode=memory", ["cannot have '?'", "use another --out"]),
    ("run {0}/tiny.yaml --out {0}/a%20b", ["cannot have '%'", "use another --out"]),
    ("run {0}/tiny.yaml --out {0}/a#b", ["cannot have '#'", "use another --out"]),
    ("run {0}/tiny.yaml --out {0}", ["is not empty and not a run directory", "another --out"]),
    ("run {0}/tiny.yaml --from swep", ["no such step: 'swep'", "did you mean 'sweep'?"]),
    ("run {0}/tiny.yaml --set design.trails=3", ["design.trails", "did you mean 'trials'?"]),
    ("run {0}/tiny.yaml --set design.trials=many", ["design.trials", "integer", "'many'"]),
    ("run {0}/tiny.yaml --set design.trials=-1", ["design.trials", "-1"]),
    ("run {0}/tiny.yaml --set design", ["--set design", "expected"]),
    ("run {0}/tiny.yaml --set proxy.name=ngarm", ["proxy.name", "did you mean 'ngram'?"]),
    ("run {0}/tiny.yaml --executor slrum", ["sweep.executor", "did you mean 'slurm'?"]),
    ("run {0}/tiny.yaml --set corpus.domains.code.path=/none", ["code", "/none"]),
    ("predict {0} --weights a=1e308,b=1e308", ["--weights a=1e308", "DOMAIN=SHARE"]),
    ("predict {0} --weights a=.5,b=.6", ["the sum is 1.1, not 1"]),
    ("predict {0} --weights a=.5,a=.5", ["'a' is given twice"]),
    ("predict {0} --weights a", ["--weights a: expected DOMAIN=SHARE"]),
    ("predict {0}", ["--mixture FILE or --weights"]),
    ("export {0}/large.yaml --to nemo", ["domain 'a': weight 1e+308 is too large"]),
    ("export {0}/mixture.yaml --to nobody", ["nobody"]),
    ("fit --mixtures {0}/large.csv --losses {0}/losses.csv", ["--out FOLDER"]),
    ("fit --mixtures {0}/large.csv --losses {0}/losses.csv --out f", ["large.csv", "1e+308"]),
    ("logs nowhere --trial t0001", ["nowhere"]),
    ("cancel nowhere", ["nowhere", "has no config.yaml"]),
    ("verify nowhere", ["nowhere"]),
    ("sync nowhere", ["nowhere"]),
    ("experts nowhere", ["nowhere"]),
    ("report nowhere.yaml", ["nowhere.yaml: no such file"]),
]


@pytest.fixture(scope="module")
def folder(experiment, tmp_path_factory):
    path = tmp_path_factory.mktemp("input")
    (path / "tiny.yaml").write_text(experiment, encoding="utf-8")
    (path / "large.yaml").write_text("weights: {a: 1.0e+308, b: 1.0e+308}\n")
    (path / "mixture.yaml").write_text("weights: {a: 0.5, b: 0.5}\n")
    (path / "large.csv").write_text("index,a,b\n" + "".join(f"{n},1e308,1e308\n" for n in range(9)))
    (path / "losses.csv").write_text("index,x\n" + "".join(f"{n},{n}\n" for n in range(9)))
    return path


@pytest.mark.parametrize(("words", "expected"), COMMANDS, ids=lambda one: str(one)[:60])
def test_bad_input_is_one_line_and_exit_code_2(folder, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    before = sorted(folder.iterdir())
    ended = mixopt(*words.format(folder).split())
    assert (ended.code, ended.out) == (2, "")
    assert ended.error.startswith("mixopt: ")
    assert ended.error.count("\n") == 1
    for one in expected:
        assert one in ended.error
    assert sorted(folder.iterdir()) == before


def test_a_path_or_a_terminal_that_is_not_utf_8_is_one_line(folder):
    command = [sys.executable, "-m", "mixopt", "run", folder / "tiny.yaml", "--out"]
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for out, environment in ((b"a\xff", {}), ("ä".encode(), ascii_only)):
        ended = subprocess.run(
            [*map(os.fsencode, command), os.fsencode(folder) + b"/" + out],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(SUPPORT), **environment},
        )
        assert ended.returncode == 2, ended.stderr
        assert ended.stderr.count(b"\n") == 1


def test_an_edited_mixture_is_used_and_said_to_be_edited(tmp_path):
    from made_proposal import made_proposal

    path = tmp_path / "proposal.yaml"
    made_proposal().to_file(path)
    whole = Mixture.from_file(path)
    text = path.read_text()
    first = next(line for line in text.splitlines() if line.startswith("  ") and ": 0" in line)
    other = f"{first.partition(':')[0]}: {whole[first.partition(':')[0].strip()] + 1e-7}"
    path.write_text(text.replace(first, other, 1))
    with pytest.warns(EditedWarning, match="was changed since mixopt wrote it"):
        assert Mixture.from_file(path) != whole
