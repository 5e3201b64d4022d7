"""The report of a real, very small run: complete, self-contained, honest and portable."""

import re
from dataclasses import replace
from html import unescape

import polars as pl
import pytest
import yaml

import mixopt
from mixopt.errors import RunError
from mixopt.fitting import readiness
from mixopt.proposals import named
from mixopt.reporting import proposal_text, write_report
from mixopt.system import interval_text, share_text
from mixopt.trials import Trials


@pytest.fixture(scope="module")
def done(finished):
    """A run that took all steps."""
    return mixopt.load_run(finished)


@pytest.fixture
def run(copied):
    """A copy that a test may change."""
    return mixopt.load_run(copied)


@pytest.fixture(scope="module")
def page(done):
    return (done.path / "report.html").read_text()


def text_of(page):
    shown = re.sub(r"<script.*?</script>", "", page.split("</style>", 1)[1], flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", shown.replace("<wbr>", ""))).split())


def test_the_page_has_every_section(page):
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    expected = ["What if", "Validation", "What the fit knows", "Trials", "Corpus", "Provenance"]
    assert [title for title in titles if title in expected] == expected


def test_the_page_fetches_nothing(page):
    fetched = re.findall(
        r"(?:src|href)\s*=\s*[\"']([^\"'#][^\"']*)|@import|url\(\s*[\"']?(?!#)", page
    )
    assert fetched == []
    assert "default-src &#39;none&#39;" in page


def test_names_are_escaped(run):
    odd = replace(run, config=run.config.model_copy(update={"name": "c++ <b>&"}))
    page = write_report(odd).read_text()
    assert "c++ <b>" not in page
    assert "c++ &lt;b&gt;&amp;" in page


def test_no_absolute_path_is_named(done, page):
    assert str(done.path.parent) not in page
    assert str(done.path.parent.parent) not in page
    assert "\N{HORIZONTAL ELLIPSIS}/code.jsonl" in text_of(page)


def test_writing_it_again_gives_the_same_page(run, page):
    trusted = mixopt.load_run(run.path, trust=True)
    assert write_report(trusted).read_text() == page


def test_git_is_not_asked_for_the_page_of_a_run_that_nobody_trusts(run):
    assert "not asked for without --trust" in text_of(write_report(run).read_text())


def test_the_page_begins_with_the_recommendation_and_what_it_costs(done, page):
    found = done.recommendation
    shown = text_of(page)
    assert found.why in shown
    assert shown.index(found.why) < shown.index("Share of training tokens")
    for name, gain in found.gains.items():
        assert named(name) in shown
        assert gain.verdict in shown
    for share in found.mixture.values():
        assert share_text(share) in shown


def test_a_baseline_beyond_the_limits_is_among_what_to_check(page):
    shown = text_of(page)
    line = "Baseline hand breaks limits of this run: domain 'code': a weight of 0.9 is above 0.8"
    assert shown.index("What to check") < shown.index(line) < shown.index("Sliders need")


def test_the_page_says_of_each_loss_what_is_noise_and_what_follows_the_mixture(done, page):
    words, found = text_of(page), readiness(done.fit)
    for one in (found.objective, *found.losses):
        noise = "" if one.noise_share is None else f"{share_text(one.noise_share)} "
        assert f"{one.name} {noise}{share_text(one.followed)}" in words
    assert "More: mixopt status --readiness." in words
    assert words.count("Predicted as good") <= 1  # the first screen has it


def test_a_run_without_validation_shows_what_is_predicted(run):
    run.log.discard("validate")
    shown = text_of(write_report(run).read_text())
    assert "Proposed, not validated: more" in shown
    assert "Not validated yet" in shown
    gain = run.proposal.gains["natural"]
    assert f"90% {interval_text(gain.low, gain.high)}" in shown
    assert "validated predicted" not in shown
    assert "Corpus" in shown


@pytest.mark.filterwarnings("ignore:.*was changed since mixopt wrote it")
def test_a_mixture_that_was_edited_is_shown_as_ones_own_beside_no_others_evidence(run):
    path = run.path / "proposal.yaml"
    content = yaml.safe_load(path.read_text())
    first, second = list(content["weights"])[:2]
    rest = sum(weight for name, weight in content["weights"].items() if name not in (first, second))
    content["weights"] |= {first: (1 - rest) / 2, second: (1 - rest) / 2}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(RunError, match=r"is for another mixture than proposal.yaml.*: mixopt "):
        write_report(mixopt.load_run(run.path))
    run.log.discard("validate")
    edited = mixopt.load_run(run.path)
    page = text_of(write_report(edited).read_text())
    assert "Your own mixture, not validated" in page
    assert "proposal.yaml was edited, and the mixture in it is not validated" in page
    assert "Not validated yet" in page
    assert "95%" not in page[: page.index("What the fit knows", page.index("Your own"))]
    said = proposal_text(edited.proposal)
    assert said.startswith("Your mixture for ")
    assert "Not found by a search" in said


def test_a_run_without_a_proposal_has_no_report(run):
    run.log.discard("propose")
    with pytest.raises(RunError, match="'propose' is not done yet: mixopt run .* --until propose"):
        write_report(run)


def test_trials_that_did_not_finish_are_listed_with_their_reason(run):
    table = run.trials.table
    first = pl.int_range(pl.len()) == 0
    losses = [name for name in table.columns if name.startswith(("loss/", "bpb/"))]
    table = table.with_columns(
        pl.when(first).then(pl.lit("diverged")).otherwise("status").alias("status"),
        pl.when(first).then(pl.lit("loss is nan in /elsewhere/me/x/y.py")).alias("reason"),
        *(pl.when(~first).then(name).alias(name) for name in losses),
    )
    Trials(table, run.trials.domains, run.trials.targets).write(run.path / "trials.parquet")
    run.log.end("sweep", run.log.seconds["sweep"])
    page = text_of(write_report(mixopt.load_run(run.path)).read_text())
    assert "loss is nan in \N{HORIZONTAL ELLIPSIS}/y.py" in page
