"""A schedule is stages without a gap, whole batches, and one line for what cannot be."""

import re
from pathlib import Path

import pytest
import yaml
from doc_pages import blocks_of, page_text, work_through
from hypothesis import given, strategies as st
from places import PROJECT
from refusals import refusal, refuses

from mixopt import Mixture, MixtureSampler, SamplerError
from mixopt.pretraining import load_pretraining
from mixopt.sampling import Schedule, Stage, is_schedule, simulate_schedule

WEB, CODE = Mixture({"web": 0.75, "code": 0.25}), Mixture({"web": 0.25, "code": 0.75})

FILE = """\
format: mixopt-schedule/1
batch: 8
sequence_length: 16
max_epochs: 20
inventory: {web: 1e4, code: 1000}
stages:
- name: warm-up
  tokens: 1000
  mixture: {web: 0.75, code: 0.25}
- tokens: 3000
  name: main
- tokens: 1e4
  to: {file: anneal.yaml}
"""


def written(folder, text=FILE):
    CODE.to_file(folder / "anneal.yaml")
    path = folder / "schedule.yaml"
    path.write_text(text)
    return path


def test_a_file_is_read_with_the_files_that_it_names_and_written_so_that_it_reads_back(tmp_path):
    schedule = Schedule.from_file(written(tmp_path))
    kinds = {"a: 1": False, "[1]": False, "stages: []": True, "format: mixopt-schedule/9": True}
    for text, expected in kinds.items():
        (tmp_path / "other.yaml").write_text(text)
        assert is_schedule(tmp_path / "other.yaml") is expected
    assert repr(schedule) == "Schedule(3 stages, 2 domains: 109 steps, 14k tokens)"
    assert [stage.mixture for stage in schedule.stages] == [WEB, WEB, WEB]
    assert schedule.stages[2].to == CODE
    assert schedule.entries == [(0, WEB), (8, WEB), (31, WEB, 109, CODE)]
    schedule.to_file(tmp_path / "again.yaml")
    assert Schedule.from_file(tmp_path / "again.yaml") == schedule
    assert Schedule.from_content(schedule.to_json(), "here") == schedule
    (tmp_path / "sizes.yaml").write_text("web: 1e6\ncode: 1e6\nbooks: 3\n")
    text = FILE.replace("{web: 1e4, code: 1000}", "{file: sizes.yaml}")
    assert Schedule.from_file(written(tmp_path, text)).inventory == {"web": 10**6, "code": 10**6}


@given(
    lengths=st.lists(st.tuples(st.booleans(), st.integers(1, 10**7)), min_size=1, max_size=8),
    batch=st.integers(1, 50),
)
def test_each_stage_ends_within_half_a_batch_of_what_is_asked_up_to_there(lengths, batch):
    size = batch * 16
    stages = [
        Stage(WEB, steps=amount) if steps else Stage(WEB, tokens=amount + 2 * size)
        for steps, amount in lengths
    ]
    schedule = Schedule(tuple(stages), batch=batch, sequence_length=16)
    requested = 0
    for k, stage in enumerate(stages):
        requested += stage.tokens if stage.steps is None else stage.steps * size
        ended = sum(schedule.stage_tokens(item) for item in range(k + 1))
        assert abs(ended - requested) <= size / 2
        assert schedule.starts[k + 1] * size == ended
    assert schedule.asked_tokens == requested
    assert schedule.steps == schedule.starts[-1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("code: 0.25}", "code: oops}", "0.mixture: domain 'code': weight 'oops' is not a number"),
        ("tokens: 3000", "tokens: 3000.5", ":10: stages.1.tokens: 3000.5 is not a whole number"),
        ("tokens: 3000", "steps: 3\n  tokens: 3", "stages.1.tokens: tokens and steps are both"),
        ("- tokens: 3000\n  name", "- name", ":10: stages.1.tokens: has no length; give one of"),
        ("tokens: 3000", "tokens: 3", ":10: stages.1.tokens: 3 tokens round to 0 batches of"),
        ("tokens: 3000", "tokens: 3000\n  mixture: {web: 0.5, books: 0.5}",
         ":11: stages.1.mixture: unknown domain 'books'; known: code, web"),
        ("tokens: 3000", "tokns: 3000", "1.tokns: unknown field; did you mean 'tokens'"),
        ("schedule/1", "schedule/2", ":1: format: 'mixopt-schedule/2' is not "),
        ("anneal.yaml", "none.yaml", ":13: stages.2.to.file: "),
        ("max_epochs: 20", "max_epochs: 2", ":6: stages: domain 'code': 0.4289 of 13,952 tokens"
         " over all stages are 5.984 epochs of its 1,000, and max_epochs is 2. Lower its share to"
         " 0.143 on average, or allow max_epochs: 5.984"),
        ("code: 1000}", "code: 1000, ode: 1}", ":5: inventory.ode: domain 'ode' is in no stage"),
        (", code: 1000}", "}", ":6: stages: the inventory does not have domain 'code'"),
        ("code: 1000}", "code: 0}", ":6: stages: domain 'code' has a share and no tokens; set it"),
        ("- name: warm-up", "- name: 7", ":7: stages.0.name: 7 is not text"),
        ("  mixture: {web: 0.75, code: 0.25}\n", "", "stages.0.mixture: is missing; the first st"),
        ("- tokens: 3000", "- 3: x\n  tokens: 3000", "stages.1: 3 is not a name; put it in quotes"),
        ("batch: 8\n", "", "batch: is missing"),
        ("batch: 8", "batch: 16777217", ":2: batch: 16777217 is not a whole number from 1 to 16,7"),
        ("length: 16", "length: 2147483649", ":3: sequence_length: 2147483649 is not a whole numb"),
        ("max_epochs: 20", "max_epochs: 0", ":4: max_epochs: 0 is not a number above 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_with_its_place(tmp_path, old, new, message):
    assert old in FILE
    path = written(tmp_path, FILE.replace(old, new, 1))
    line = refusal(Schedule.from_file, path)
    assert message in line
    assert line.startswith(str(path))


def test_a_python_schedule_says_what_is_wrong_too():
    stages = Stage(WEB, steps=1), Stage(Mixture({"books": 1.0}), steps=1)
    with pytest.raises(SamplerError, match=r"schedule: stages.1.mixture: unknown domain 'books'"):
        Schedule(stages, batch=1, sequence_length=1)
    with pytest.raises(SamplerError, match="schedule: stages: empty; a run"):
        Schedule((), batch=1, sequence_length=1)
    sizes, inventory = {"batch": 1, "sequence_length": 10}, {"web": 100, "code": 100}
    Schedule((Stage(WEB, steps=100),), max_epochs=8, **sizes).check_epochs(inventory)
    schedule = Schedule((Stage(WEB, steps=100),), max_epochs=2, **sizes)
    with pytest.raises(SamplerError, match="domain 'web': .* are 7.5 epochs of its 100"):
        schedule.check_epochs(inventory)


STAGES = Schedule((Stage(WEB, steps=30), Stage(CODE, steps=20)), batch=8, sequence_length=16)
ROWS = {"web": 5000, "code": 300}


def test_a_sampler_takes_a_schedule_whose_tokens_are_the_integral_of_shares():
    ramp = Stage(WEB, steps=10), Stage(WEB, to=CODE, steps=20)
    web, code = (share * 640 + 0.5 * 1280 for share in (0.75, 0.25))
    schedule = Schedule(ramp, batch=4, sequence_length=16)
    assert schedule.domain_tokens() == {"web": web, "code": code}
    sampler = MixtureSampler(ROWS, schedule=STAGES, seed=3)
    other = MixtureSampler(ROWS, WEB, batch_size=8, batches=50, schedule=[(30, CODE)], seed=3)
    assert list(sampler) == list(other)
    assert sampler.batch == len(sampler) == 50
    assert sampler.counts() == {"web": 180 + 40, "code": 60 + 120}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": WEB}, "a Schedule contains the weights"),
        ({"batch_size": 9}, "batch_size 9 differs from the schedule's 8; leave it out"),
        ({"schedule": (), "weights": WEB}, "a sampler needs batch_size, or schedule="),
    ],
)
def test_a_sampler_is_told_its_mixtures_once(given, message):
    refuses(SamplerError, message, MixtureSampler, ROWS, **{"schedule": STAGES, **given})


def test_a_forecast_counts_what_each_stage_draws_and_when_a_domain_runs_out():
    later = Stage(CODE, steps=20), Stage(CODE, steps=20, name="long")
    schedule = Schedule((Stage(WEB, steps=30, name="main"), *later), batch=8, sequence_length=16)
    forecast = simulate_schedule(schedule, {"web": 100_000, "code": 4_000, "unused": 9}).to_json()
    stages, (web, code) = forecast.pop("stages"), forecast.pop("domains")
    assert forecast == {"steps": 70, "tokens": 8960, "asked_tokens": 8960, "batch": 8}
    about = [(stage["name"], stage["start"], stage["steps"], stage["tokens"]) for stage in stages]
    assert about == [("main", 0, 30, 3840), ("1", 30, 20, 2560), ("long", 50, 20, 2560)]
    assert [stage["drawn"] for stage in stages] == [
        {"web": 2880, "code": 960},
        *[{"web": 640, "code": 1920}] * 2,
    ]
    assert [stage["share"]["code"] for stage in stages] == [0.25, 0.75, 0.75]
    assert [stage["epochs"]["code"] for stage in stages] == [0.24, 0.72, 1.2]
    assert (web["runs_out"], web["tokens"], web["epochs"]) == (None, 4160, 0.0416)
    runs_out = {"step": 61, "tokens": 7936, "stage": 2}  # 250 rows: 180 at 50, then 6 a step
    assert code == {
        "domain": "code", "tokens": 4800, "inventory": 4000, "epochs": 1.2, "runs_out": runs_out,
    }  # fmt: skip


# --- The files, commands and code of docs/schedules.md, and the example ---------------------------


@pytest.mark.nightly
def test_the_page_works_from_its_first_block_to_its_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Mixture({"web": 0.7, "code": 0.2, "books": 0.1}).to_file("mixture.yaml")
    Path("inventory.yaml").write_text("{web: 80e9, code: 6e9, books: 1e9}")
    work_through("schedules")
    assert load_pretraining("pretrain.yaml").training.steps == 77057
    assert {"blend.0-warm-up.json", "blend.1-main.json"} <= {p.name for p in tmp_path.iterdir()}


def test_the_error_of_the_page_is_what_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = blocks_of("schedules", "yaml")[0].replace("max_epochs: 4", "max_epochs: 1")
    Path("schedule.yaml").write_text(text)
    said = re.search(r"    mixopt: (schedule.yaml:.*?)\n\n", page_text("schedules"), re.S)
    assert " ".join(said[1].split()) == refusal(Schedule.from_file, "schedule.yaml")


def test_the_example_is_a_schedule_of_its_run(monkeypatch):
    monkeypatch.chdir(PROJECT)
    config = load_pretraining("examples/pretrain_schedule.yaml")
    assert config.training.steps == 300
    text = yaml.safe_load(Path(config.corpus).read_text(encoding="utf-8"))
    assert set(config.plan.domains) <= set(text["corpus"]["domains"])
