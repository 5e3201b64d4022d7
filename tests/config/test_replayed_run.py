"""What a base has trained on is over its tokens, up to the checkpoint that is meant."""

from __future__ import annotations

import json

import pytest

from mixopt.config.replayed_run import _last_step, drawn_mixture
from mixopt.errors import MixoptError

NAMES = ["web", "code"]


def share_of_web(folder, *lines, until=None):
    """The share of web after lines of a step, the tokens so far and the share since the last."""
    content = [
        {"step": step, "tokens": tokens, "realised": {"web": web, "code": 1 - web}}
        for step, tokens, web in lines
    ]
    content.insert(1, {"step": 2, "held_out_loss": {"web": 2.5}})
    text = "".join(json.dumps(one) + "\n" for one in content)
    (folder / "metrics.jsonl").write_text(text)
    return drawn_mixture(folder, NAMES, until)["web"]


def test_each_line_counts_by_its_tokens(tmp_path):
    assert share_of_web(tmp_path, (2, 100, 1.0), (10, 500, 0.25)) == pytest.approx(0.4)


def test_steps_after_the_checkpoint_do_not_count(tmp_path):
    lines = (4, 100, 1.0), (8, 200, 0.5), (12, 300, 0.0)
    assert share_of_web(tmp_path, *lines, until=8) == pytest.approx(0.75)
    assert share_of_web(tmp_path, *lines, until=11) == pytest.approx(0.75)
    assert share_of_web(tmp_path, *lines, until=1) == 1.0  # no line is as early


def test_the_checkpoint_that_is_meant_is_the_newest_or_the_one_that_is_named(tmp_path):
    for one in (4, 8):
        (tmp_path / f"checkpoints/step-{one:08d}").mkdir(parents=True)
    (tmp_path / "checkpoints/.step-00000009.tmp").mkdir()
    assert _last_step(tmp_path) == 8
    assert _last_step(tmp_path / "checkpoints/step-00000004") == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "metrics.jsonl: has no step that was trained"),
        ('{"step": "a", "tokens": 1, "realised": {"web": 1}}\n', r"metrics.jsonl:1: step: .*'a'"),
    ],
)
def test_a_log_that_tells_nothing_is_one_line(tmp_path, text, message):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(MixoptError, match=message) as caught:
        drawn_mixture(tmp_path, NAMES, None)
    assert "\n" not in str(caught.value)
