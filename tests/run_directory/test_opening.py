"""A directory of unknown origin is looked at: nothing of it runs, and no link in it is followed."""

import os
from dataclasses import replace

import pytest
import yaml
from refusals import refuses

import mixopt
from mixopt.errors import PluginError, RunError
from mixopt.pipeline import load_fit, propose
from mixopt.run_directory import is_sent, load_run, request_of, working_in
from mixopt.run_directory.opening import HEADER
from mixopt.system import sealed_text


def forge(run, change) -> None:
    """Change the record of the configuration as somebody would who can seal it."""
    content = yaml.safe_load((run / "config.yaml").read_text())
    change(content)
    text = yaml.safe_dump(content, sort_keys=False)
    (run / "config.yaml").write_text(sealed_text(text, HEADER))


def evil(tmp_path, monkeypatch):
    """Put a module on the path; return the mark that it leaves when it is imported."""
    mark = tmp_path / "ran"
    (tmp_path / "evil_parts.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass R:\n    gradient = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return mark


def test_a_record_that_was_edited_is_refused_and_a_run_of_the_file_makes_it_again(copied):
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace("workers: 2", "workers: 3"))
    refuses(RunError, r"config\.yaml: has changed .* mixopt run CONFIG --out", load_run, copied)
    mixopt.run(copied.parent / "tiny.yaml", copied)
    assert load_run(copied).config.sweep.workers == 2


def test_a_command_names_the_run_alone_where_the_configuration_is_its_record(copied):
    run = load_run(copied)
    assert run.command(until="fit") == f"mixopt run {copied} --until fit"
    assert run.command(until="sweep") == f"mixopt run {copied} --until sweep --trust"
    other = replace(run, source="tiny.yaml")
    assert other.command("--from", "fit") == f"mixopt run tiny.yaml --out {copied} --from fit"


def test_nothing_that_a_record_names_is_imported(copied, tmp_path, monkeypatch):
    mark = evil(tmp_path, monkeypatch)
    names = {"fit": {"regressors": ["linear", "evil_parts:R"]}, "proxy": {"name": "evil_parts:R"}}
    forge(copied, lambda content: [content[name].update(names[name]) for name in names])
    run = load_run(copied)
    assert run.config.proxy.name == "evil_parts:R"
    assert repr(run)
    for step in ("sweep", "report"):
        with pytest.raises(PluginError, match=r"config\.yaml: names the .*evil_parts:R'.*--trust"):
            mixopt.run(copied / "config.yaml", copied, until=step)
    assert not mark.exists()


def test_a_limit_that_a_record_names_by_its_path_is_not_imported(copied, tmp_path, monkeypatch):
    mark = evil(tmp_path, monkeypatch)
    forge(copied, lambda content: content.update(constraints={"convex": {"evil_parts:R": {}}}))
    for look in (lambda run: run.constraints, lambda run: request_of(run, None)):
        with pytest.raises(PluginError, match=r"config\.yaml: names the constraint 'evil_parts:R'"):
            look(load_run(copied))
    assert not mark.exists()


def test_what_a_step_from_the_record_tracks_stays_in_the_directory(copied):
    assert is_sent(load_run(copied))
    forge(copied, lambda content: content["tracking"].update(uri="http://127.0.0.1:9"))
    assert not is_sent(load_run(copied))
    assert is_sent(load_run(copied, trust=True))
    forge(copied, lambda content: content["tracking"].update(enabled=True))
    said = []
    mixopt.run(copied / "config.yaml", copied, until="fit", say=said.append)
    assert said == [
        "tracking: nothing is sent, because only the run directory names the server"
        " http://127.0.0.1:9; add --trust to send"
    ]
    assert not (copied / "tracking.jsonl").exists()


@pytest.mark.parametrize("name", ["corpus", "trials/t0001.json"])
def test_a_link_that_leads_out_is_followed_only_in_a_trusted_run(copied, tmp_path, name):
    outside = tmp_path / "outside"
    (copied / name).rename(outside)
    os.symlink(outside, copied / name)
    for look in (load_run, load_fit, propose):
        refuses(RunError, rf"{name}: is a link to .*outside.*--trust", look, copied)
    assert len(load_run(copied, trust=True).trials) == 12
    assert propose(copied, trust=True).mixture


def test_a_run_begins_where_an_mlflow_server_was_started_and_not_beside_other_files(tmp_path):
    theirs = [tmp_path / name for name in ("mlflow.db", "mlflow.db-journal", "mlartifacts/1/a.txt")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    with working_in(tmp_path):
        pass
    assert {path.read_text() for path in theirs} == {"theirs"}
    (tmp_path / "mlflow.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and not a run dir"), working_in(tmp_path):
        pass
