"""A mixture for each phase of a training: designs, limits, tables, and files."""

import numpy as np
import polars as pl
import pytest

from mixopt import Mixture, Phases, Trials
from mixopt.config import DesignConfig, read_constraints
from mixopt.constraints import Constraints
from mixopt.errors import MixtureError, TrialsError
from mixopt.pipeline import schedule_of
from mixopt.trials import make_design

PHASES = Phases({"1": 0.8, "2": 0.2})
NATURAL = Mixture({"web": 0.75, "code": 0.25})
UNTIED = PHASES.joined({"1": {"web": 0.5, "code": 0.5}, "2": {"web": 0.1, "code": 0.9}})


def test_a_mixture_by_phase_is_one_of_cells_and_back():
    assert dict(UNTIED) == pytest.approx(
        {"1/web": 0.4, "1/code": 0.4, "2/web": 0.02, "2/code": 0.18}
    )
    assert dict(PHASES.split(UNTIED)["2"]) == pytest.approx({"web": 0.1, "code": 0.9})
    assert dict(PHASES.whole(UNTIED)) == pytest.approx({"web": 0.42, "code": 0.58})
    assert dict(PHASES.whole(PHASES.tied(NATURAL))) == pytest.approx(dict(NATURAL))
    with pytest.raises(MixtureError, match="add up to"):
        PHASES.split(Mixture({"1/web": 0.5, "1/code": 0.4, "2/web": 0.05, "2/code": 0.05}))


def test_phases_are_found_in_a_table_that_has_one_total_for_each():
    cells_NC = np.array([UNTIED.array, PHASES.tied(NATURAL).array])
    assert dict(Phases.detect(UNTIED.domains, cells_NC)) == pytest.approx(dict(PHASES))
    assert Phases.detect(("a/x", "a/y", "b/x", "b/y"), np.eye(4)) is None
    assert Phases.detect(("web", "code"), np.full((2, 2), 0.5)) is None
    never = np.array([[0.5, 0.5, 0.0, 0.0], [0.2, 0.8, 0.0, 0.0]])
    assert Phases.detect(("a/x", "a/y", "b/x", "b/y"), never) is None, "no phase is without tokens"


def test_caps_and_epochs_count_over_all_phases_whose_lengths_are_held():
    config = read_constraints({"max_epochs": {"code": 2}, "bounds": {"web": [0.3, 1]}})
    limits = Constraints.from_config(config, {"web": 900, "code": 100}, 1_000, phases=PHASES)
    (line,) = limits.violations(UNTIED)
    assert "group 'code': a share of 0.58 of 1k tokens needs 5.8 epochs" in line
    lean = PHASES.joined({"1": {"web": 1, "code": 0}, "2": {"web": 0.0, "code": 1.0}})
    assert limits.violations(lean) == []
    limits = Constraints.from_config(read_constraints({}), {"web": 1, "code": 1}, phases=PHASES)
    other = Phases({"1": 0.5, "2": 0.5}).tied(NATURAL)
    assert "phase 1" in limits.violations(other)[0]


def test_a_design_by_phase_has_tied_and_untied_mixtures_of_the_right_lengths():
    config = DesignConfig(trials=12, phases={"1": 0.8, "2": 0.2}, rounds=[], max_usage=None)
    limits = Constraints.from_config(read_constraints({}), {"web": 3, "code": 1}, phases=PHASES)
    trials = make_design(config, PHASES.tied(NATURAL), limits, 0)
    parts = [PHASES.split(trial.mixture) for trial in trials]
    apart = [part["1"].total_variation(part["2"]) for part in parts]
    assert sum(item < 1e-6 for item in apart) == 4 + 5  # every third, anchors and replicates
    assert max(apart) > 0.1


def table(tmp_path, *, lengths):
    head = ",".join(f"weight/{cell}" for cell in UNTIED.domains)
    more, end = (",phase/1,phase/2", ",0.8,0.2") if lengths else ("", "")
    rows = "".join(f"r{k},0.5,0.5,0.{k},0.{10 - k}{end}\n" for k in range(1, 10))
    losses = "".join(f"r{k},{1 + k / 100}\n" for k in range(1, 10))
    (tmp_path / "w.csv").write_text(f"run,{head}{more}\n{rows}")
    (tmp_path / "l.csv").write_text(f"run,loss/a\n{losses}")
    return tmp_path / "w.csv", tmp_path / "l.csv"


TOPICS = (("art", "law"), ("1", "2"), ("Phase-1", "stage_2"))


@pytest.mark.parametrize("names", TOPICS)
def test_branches_with_one_total_are_phases_only_if_their_names_or_columns_say_so(tmp_path, names):
    mixtures, losses = table(tmp_path, lengths=True)
    shares = Trials.from_csv(mixtures, losses).table.select("trial", "^weight/.*$")
    renamed = [
        name.replace("1/", f"{names[0]}/").replace("2/", f"{names[1]}/") for name in shares.columns
    ]
    shares = shares.rename(dict(zip(shares.columns, renamed, strict=True)))
    shares.rename({"trial": "run"}).write_csv(mixtures)
    trials = Trials.from_csv(mixtures, losses)
    if names != ("art", "law"):
        assert list(trials.phases) == list(names)
        assert (
            "if they are branches of a tree, rename them, such as 1 to topic1" in trials.notes[-1]
        )
        return
    assert trials.phases is None
    assert "read as branches of a tree" in trials.notes[-1]
    assert trials.notes[-1].endswith("add columns: phase/art (0.8), phase/law (0.2)")
    shares = shares.rename({"trial": "run"})
    shares.with_columns(**{"phase/art": 0.8, "phase/law": 0.2}).write_csv(mixtures)
    Trials.from_csv(mixtures, losses).write(tmp_path / "trials.parquet")
    read = Trials.read(tmp_path / "trials.parquet")
    assert dict(read.phases) == pytest.approx({"art": 0.8, "law": 0.2})
    shares.with_columns(**{"phase/arts": 0.8}).write_csv(mixtures)
    with pytest.raises(TrialsError, match="phase/arts: expected columns PHASE/DOMAIN with the s"):
        Trials.from_csv(mixtures, losses)
    shares.with_columns(**{"phase/art": 0.5, "phase/law": 0.5}).write_csv(mixtures)
    message = "phase/art is 0.5, but the weights of 'art' add up to 0.8; correct it"
    with pytest.raises(TrialsError, match=message):
        Trials.from_csv(mixtures, losses)


def test_shares_in_each_phase_become_shares_of_all_tokens_and_totals_that_hold_are_noted(tmp_path):
    mixtures, losses = table(tmp_path, lengths=True)
    trials = Trials.from_csv(mixtures, losses)
    assert trials.domains == UNTIED.domains
    assert trials.weights()[0].tolist() == pytest.approx([0.4, 0.4, 0.02, 0.18])
    assert dict(trials.phases) == pytest.approx(dict(PHASES))
    assert "phases" not in str(trials.notes)
    percent = pl.read_csv(mixtures).with_columns(pl.col("^weight/.*$") * 100)
    percent.write_csv(tmp_path / "percent.csv")
    same = Trials.from_csv(tmp_path / "percent.csv", losses)
    assert same.weights() == pytest.approx(trials.weights())
    assert "in percent" in same.notes[0]
    rounded = mixtures.read_text().replace("0.1,0.9,", "0.101,0.902,")
    mixtures.write_text(rounded)
    assert dict(Trials.from_csv(mixtures, losses).phases) == pytest.approx(dict(PHASES))
    mixtures.write_text(rounded.replace("r2,0.5,0.5,0.2", "r2,0.5,0.4,0.3"))
    with pytest.raises(TrialsError, match=r"row r2: weights of phase '1' add up to 0\.9, not 1"):
        Trials.from_csv(mixtures, losses)
    mixtures.write_text(rounded)
    trials.table.select("trial", "^weight/.*$").write_csv(mixtures)
    losses.write_text(losses.read_text().replace("run", "trial"))
    notes = Trials.from_csv(mixtures, losses).notes
    assert "w.csv: '1', '2' are read as phases of the training; if" in str(notes)


def test_a_table_by_phase_without_their_lengths_is_one_line(tmp_path):
    message = "w.csv: weights add up to 2 in every row.* add columns phase/PHASE with each"
    with pytest.raises(TrialsError, match=message) as error:
        Trials.from_csv(*table(tmp_path, lengths=False))
    assert "tolerance" not in str(error.value)
    mixtures, losses = table(tmp_path, lengths=True)
    mixtures.write_text(mixtures.read_text().replace("0.8,0.2\n", "0.7,0.3\n", 1))
    message = "w.csv: phase/1, phase/2: should be the same in all rows and add up to 1"
    with pytest.raises(TrialsError, match=message):
        Trials.from_csv(mixtures, losses)


def test_phases_of_a_file_become_stages_of_a_schedule(tmp_path):
    sizes, ours = tmp_path / "sizes.yaml", tmp_path / "ours.yaml"
    sizes.write_text("web: 1e6\ncode: 1e6\n")
    ours.write_text(str({"weights": dict(UNTIED), "phases": PHASES.content(UNTIED)}))
    found = schedule_of(ours, tokens=10_000, batch="10x10", inventory=sizes)
    assert [stage.tokens for stage in found.stages] == [8_000, 2_000]
    assert dict(found.stages[1].mixture) == pytest.approx({"web": 0.1, "code": 0.9})
    assert found.domain_tokens() == pytest.approx({"web": 4_200, "code": 5_800})
