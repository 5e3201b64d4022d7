"""A fit takes what it needs of trials once; nothing in its folder is executed or believed."""

import json
import pickle
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_fit import fitted, make_trials, table
from refusals import refuses

from mixopt.config import ObjectiveConfig
from mixopt.errors import ConfigError, MixoptError, PluginError, RunError
from mixopt.fitting import Fit, FitData
from mixopt.fitting.fit_files import FILES
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.system import folder_records, write_sealed
from mixopt.trials import Trial, TrialResult, Trials


def forged(folder: Path, **fields) -> None:
    """Write fields into fit.json, and hashes and a seal that go with what is there."""
    content = json.loads((folder / "fit.json").read_text())
    records = {name: vars(entry) for name, entry in folder_records(folder, FILES).items()}
    write_sealed(folder / "fit.json", {**content, "files": records, **fields})


def test_code_that_a_folder_names_is_not_imported(tmp_path, monkeypatch):
    fitted("linear").save(tmp_path / "fit")
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nR = object"
    (tmp_path / "evil_regressor.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    forged(tmp_path / "fit", regressor="evil_regressor:R", saved=False)
    with pytest.raises(PluginError, match=r"fit\.json: .* import 'evil_regressor' .*--trust"):
        Fit.load(tmp_path / "fit")
    assert not (tmp_path / "ran").exists()
    refuses(PluginError, "has no 'fit'", Fit.load, tmp_path / "fit", trust=True)
    assert (tmp_path / "ran").exists()


def test_a_pickle_in_a_folder_is_not_read(tmp_path):
    class Bad:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    fitted("linear").save(tmp_path / "fit")
    shutil.rmtree(tmp_path / "fit" / "regressor")
    (tmp_path / "fit" / "regressor").write_bytes(pickle.dumps(Bad()))
    forged(tmp_path / "fit", regressor="sklearn.utils.parallel:joblib", saved=True)
    refuses(PluginError, "--trust", Fit.load, tmp_path / "fit")
    refuses(PluginError, "is it a regressor", Fit.load, tmp_path / "fit", trust=True)
    assert not (tmp_path / "ran").exists()


def test_members_of_a_saved_combination_are_no_paths_to_code(tmp_path):
    fitted("auto", folds=3).save(tmp_path)
    candidates = ["linear", "evil_regressor:R"]
    set_parameter(tmp_path / "regressor" / "regressor.json", candidates=candidates)
    forged(tmp_path)
    refuses(PluginError, r"names the regressor 'evil_regressor:R'", Fit.load, tmp_path, trust=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folds": 2**63}, "folds: should be less than or equal to 10000"),
        ({"objective": {"kind": "mean"}}, "objective.evaluation: is missing"),
        ({"files": {"../secret": {"bytes": 1, "sha256": "0"}}}, "outside"),
        ({"files": {}}, "is not part of this fit"),
    ],
)
def test_a_field_of_fit_json_that_cannot_be_is_named(tmp_path, fields, message):
    fitted("linear").save(tmp_path)
    forged(tmp_path, **fields)
    refuses(MixoptError, message, Fit.load, tmp_path)


def set_parameter(file, **parameters):
    content = json.loads(file.read_text())
    content["parameters"] |= parameters
    file.write_text(json.dumps(content))


HEAD = '{"format": "mixopt-regressor/1", "class": "LogLinearRegressor"}'


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("regressor/regressor.json", lambda file: file.write_text(HEAD), "regressor.json"),
        ("regressor/arrays.npz", lambda file: file.write_text("PK"), "arrays.npz"),
    ],
)
def test_a_file_that_is_not_of_the_fit_is_one_line(tmp_path, file, change, message):
    fitted("log_linear").save(tmp_path)
    change(tmp_path / file)
    forged(tmp_path)
    refuses((PluginError, RunError), message, Fit.load, tmp_path)


def test_every_flip_in_a_file_of_a_fit_is_found_or_harmless(tmp_path):
    fit = fitted("linear")
    fit.save(tmp_path)
    new_ND = make_trials(seed=1).weights()[:1]
    rng = np.random.default_rng(0)
    for file in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for bit in rng.integers(len(whole) * 8, size=25).tolist():
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << (bit % 8)
            file.write_bytes(flipped)
            with suppress(MixoptError):
                read = Fit.load(tmp_path)
                assert np.array_equal(read.predict(new_ND).losses_NM, fit.predict(new_ND).losses_NM)
                assert read.report.equals(fit.report)
        file.write_bytes(whole)


DOMAINS = ("web", "code")


@pytest.fixture
def trials() -> Trials:
    """Twelve trials of ten mixtures; the last two are replicates, and one more failed."""
    n_N = np.arange(12.0)
    shares_N, losses_NM = 0.05 + 0.09 * (n_N % 10), np.column_stack([2.0 + n_N, 3.0 - 0.1 * n_N])
    sizes = [(100 * (n + 1), 10) for n in range(12)]
    done = table(np.column_stack([shares_N, 1 - shares_N]), losses_NM, DOMAINS, DOMAINS, sizes)
    bad, lost = Trial("bad", Mixture.uniform(DOMAINS), 0), TrialResult("bad", "failed", 1, 1, 0.0)
    failed = Trials.from_results([bad], [lost], proxy="synthetic", targets=DOMAINS)
    half = done.table.with_columns(pl.col("bpb/web") / 2)
    return Trials(pl.concat([failed.table, half]), done.domains, done.targets)


def data_of(trials, unit="nats_per_token", scale="none", **options):
    objective = Objective(trials.targets, "target", {"code": 1.0}, unit, (), scale)
    return FitData(trials, objective, **{"folds": 5, "seed": 0} | options)


def test_it_has_the_finished_rows_in_the_objective_s_unit_with_sizes_where_a_regressor_takes_them(
    trials,
):
    data, column = data_of(trials, scale="spread"), trials.targets.index("web")
    assert len(trials) == 13
    assert len(data.trials) == len(data.weights_ND) == len(data.mixtures) == 12
    assert data.losses_NM[0, column] == 2.0
    assert data_of(trials, "bits_per_byte").losses_NM[0, column] == 1.0
    assert data.objective.spreads == {"code": pytest.approx(0.1 * np.arange(12).std())}
    data = data_of(trials)
    plain, sized = (data.rows(name, data.make(name)) for name in ("linear", "scaling"))
    assert np.array_equal(plain, data.weights_ND)
    assert np.array_equal(sized, np.hstack([data.weights_ND, data.sizes.sizes_N2]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"regressors": 3}, "regressors: expected a name, several names, or package.module:Class"),
        ({"size": {"layers": 3}}, "size: expected parameters, tokens or both, by name; got"),
        ({"direction": {"code": "up"}}, "direction.code: should be 'lower' or 'higher', got 'up'"),
        (
            {"direction": "higher"},
            "expected lower or higher by name, such as {.accuracy.: .higher.}",
        ),
        ({"objective": 3}, "objective: expected the name of a loss, several names, .*; got 3"),
        ({"objective": "code", "scale": "spread"}, "scale: spread: .*, but 'code' is alone"),
        ({"objective": []}, "objective: names no loss; leave it out for the mean of all"),
        (
            {"objective": Objective(DOMAINS, "target", {"code": 1.0}), "scale": "spread"},
            "objective: an Objective has its own unit, direction and scale; leave those out",
        ),
        (
            {"objective": ObjectiveConfig(target="code"), "scale": "spread"},
            "objective: a file or a section has its own direction and scale; leave those out",
        ),
    ],
)
def test_an_argument_of_a_fit_that_cannot_be_is_one_line(trials, given, message):
    with pytest.raises(ConfigError, match=message):
        trials.fit(**given)
