"""docs/tutorial.md works from its first block to its last, in an empty folder."""

from pathlib import Path

import pytest
from doc_pages import work_through

from mixopt import load_run


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_goes_from_text_to_a_loop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = work_through("tutorial")
    found = load_run("runs/first")
    assert found.proposal.epochs["manual"] == pytest.approx(4, abs=0.01)  # as section 3 says
    assert "constraints.max_epochs" in str(found.proposal.to_json()["binding"])
    assert Path("runs/first/report.html").exists()
    assert Path("blend.json").exists()
    assert abs(sum(names["loader"].realised().shares.values()) - 1) < 1e-6
