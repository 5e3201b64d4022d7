"""The report of a real, very small run: complete, self-contained, honest and portable."""

import re
from dataclasses import replace
from html import unescape

import polars as pl
import pytest
import yaml

import mixopt
from mixopt.errors import RunError
from mixopt.fitting import OBJECTIVE, readiness
from mixopt.proposals import named
from mixopt.reporting import proposal_text, write_report
from mixopt.reporting.answer import answer_of
from mixopt.reporting.report import _corpus, _fit
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


def rows_of(html):
    """Return the cells of each row of a table."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html.replace("<wbr>", ""))
    return [
        [unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows
    ]


def test_the_corpus_has_each_domains_text_and_the_targets_held_out_text(done):
    body = _corpus(done).body
    _, *rows = rows_of(body)
    assert [row[0] for row in rows] == ["code", "prose", "help"]
    for domain, row in zip(done.corpus.evaluation, rows, strict=True):
        assert row[4] == f"{domain.validation.tokens:,}"
        assert row[5] == f"\N{HORIZONTAL ELLIPSIS}/{domain.name}.jsonl"
        if domain.train is not None:
            assert row[1:4] == ["20B", f"{domain.train.documents:,}", f"{domain.train.tokens:,}"]
    assert rows[2][1:4] == ["target", "", ""]
    assert body.count('class="weak"') == 1


def test_each_regressor_has_its_error_the_chosen_one_first_and_controls_below(done):
    table = done.fit.report.filter(pl.col("target") == OBJECTIVE)
    _, first, *rest = rows_of(_fit(done).body)[: table.height + 1]
    chosen = table.row(by_predicate=pl.col("predictor") == done.fit.name, named=True)
    assert first[:2] == [done.fit.name, f"{chosen['kind']}, chosen"]
    assert first[3] == f"{chosen['rmse']:.4f}"
    kinds = [row[1] for row in rest]
    assert kinds == sorted(kinds, key=["regressor", "member", "control", "ceiling"].index)
    assert rest[-1][0] == "noise ceiling"


def test_the_page_has_every_section_fetches_nothing_and_names_no_absolute_path(done, page):
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    expected = ["What if", "Validation", "What the fit knows", "Trials", "Corpus", "Provenance"]
    assert [title for title in titles if title in expected] == expected
    fetched = r"(?:src|href)\s*=\s*[\"']([^\"'#][^\"']*)|@import|url\(\s*[\"']?(?!#)"
    assert re.findall(fetched, page) == []
    assert "default-src &#39;none&#39;" in page
    assert str(done.path.parent.parent) not in page
    assert "\N{HORIZONTAL ELLIPSIS}/code.jsonl" in text_of(page)


def test_a_page_is_the_same_each_time_and_names_are_escaped(run, page):
    assert write_report(mixopt.load_run(run.path, trust=True)).read_text() == page
    name = "c++ <b>&</script><img src=x onerror=alert(1)>"
    odd = replace(run, config=run.config.model_copy(update={"name": name}))
    page = write_report(odd).read_text()
    assert "not asked for without --trust" in text_of(page)  # the commit, by git
    assert "c++ <b>" not in page
    assert "<img" not in page
    assert unescape(re.findall("<title>(.*?)</title>", page)[0]) == f"{name}: data mixture"


def test_the_page_begins_with_the_recommendation_and_what_to_check(done, page):
    found = done.recommendation
    shown = text_of(page)
    assert shown.index(found.why) < shown.index("Share of training tokens")
    for name, gain in found.gains.items():
        assert named(name) in shown
        assert gain.verdict in shown
    for share in found.mixture.values():
        assert share_text(share) in shown
    line = "Baseline hand breaks limits of this run: domain 'code': a weight of 0.9 is above 0.8"
    assert shown.index("What to check") < shown.index(line) < shown.index("Sliders need")


def test_the_page_says_of_each_loss_what_is_noise_and_what_follows_the_mixture(done, page):
    words, found = text_of(page), readiness(done.fit)
    for item in (found.objective, *found.losses):
        noise = "" if item.noise_share is None else f"{share_text(item.noise_share)} "
        assert f"{item.name} {noise}{share_text(item.followed)}" in words
    assert "More: mixopt status --readiness." in words
    assert words.count("Predicted as good") <= 1  # the first screen has it


def test_a_run_without_validation_shows_what_is_predicted(run):
    run.log.discard("validate")
    shown = text_of(write_report(run).read_text())
    gain = run.proposal.gains["natural"]
    answer = answer_of(run)
    assert answer.gains["natural"] == answer.predicted_gains["natural"] == gain
    interval = f"90% {interval_text(gain.low, gain.high)}"
    for said in ("Proposed, not validated: more", "Not validated yet", interval, "Corpus"):
        assert said in shown
    assert "validated predicted" not in shown
    run.log.discard("propose")
    with pytest.raises(RunError, match="'propose' is not done yet: mixopt run .* --until propose"):
        write_report(run)


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
    assert proposal_text(edited.proposal).startswith("Your mixture for ")


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
