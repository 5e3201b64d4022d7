"""The command proxy with real processes: the command's inputs, and its failures."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mixopt_proxies.command import CommandProxy, supervisor
from own_trainers import GOOD, TRIAL, WRITE_GOOD, script, trained
from read_fragments import read_shares

from mixopt.errors import ConfigError
from mixopt.integrations import export_mixture
from mixopt.mixture import Mixture
from mixopt.testing import check_proxy


@pytest.fixture
def files(tmp_path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def attempt(files) -> Path:
    return files / "t0001" / "attempt-1"


@pytest.fixture
def quick(monkeypatch):
    """Give a command that was told to end little time."""
    monkeypatch.setattr(supervisor, "GRACE", 0.3)


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def await_end(*pids):
    until = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def test_a_command_is_given_its_trial_in_words_files_and_variables(
    corpus, files, attempt, tmp_path, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,-1, 5,")
    code = f"""
        names = [n for n in os.environ if n.startswith("MIXOPT_")]
        seen = {{"words": sys.argv[1:], "cwd": os.getcwd(), "files": sorted(os.listdir("."))}}
        seen["ignored"] = [n for n in (1, 2, 15) if signal.getsignal(n) == signal.SIG_IGN]
        json.dump(seen | {{n: os.environ[n] for n in names}}, open("seen.json", "w"))
        {WRITE_GOOD}
    """
    words = ["{mixture}", "{trial}", "{seed}", "{tokens}", "{out}", "{gpus}", "{corpus}"]
    result = trained(corpus, files, [*script(tmp_path, code), *words])
    assert (result.status, result.losses.nats_per_token) == ("finished", GOOD)
    out, place = str(attempt), str(corpus.path)
    seen = json.loads((attempt / "seen.json").read_text())
    wanted = [str(attempt / "mixture.yaml"), "t0001", "5", "1000", out, "2", place]
    assert seen["words"] == [seen[f"MIXOPT_{word[1:-1].upper()}"] for word in words] == wanted
    assert (seen["cwd"], seen["ignored"]) == (out, [])
    assert seen["files"] == ["log.txt", "mixture.yaml", "trial.json"]
    assert json.loads((attempt / "trial.json").read_text()) == {
        "trial": "t0001",
        "seed": 5,
        "tokens": 1000,
        "eval_every": 0,
        "mixture": TRIAL.mixture.fingerprint,
        "weights": dict(TRIAL.mixture),
        "evaluation": ["code", "manual", "other_code"],
        "corpus": place,
    }
    assert Mixture.from_file(attempt / "mixture.yaml") == TRIAL.mixture


def test_a_mixture_is_written_in_the_trainers_form_too(corpus, files, attempt, tmp_path):
    code = f"print(sys.argv[1], open(sys.argv[1]).read()); {WRITE_GOOD}"
    paths = {"code": "/data/code_text_document", "manual": "/data/manual_text_document"}
    run = [*script(tmp_path, code), "{mixture}"]
    trained(corpus, files, run, mixture_format="megatron", paths=paths)
    name, _, text = (attempt / "log.txt").read_text().partition(" ")
    assert name == str(attempt / "mixture_megatron.json")
    assert read_shares(text, "megatron", paths=paths) == dict(TRIAL.mixture)
    assert Mixture.from_file(attempt / "mixture.yaml") == TRIAL.mixture


def test_a_form_that_counts_samples_takes_them_from_the_corpus(corpus, files, attempt, tmp_path):
    run = [*script(tmp_path, WRITE_GOOD), "{mixture}"]
    trained(corpus, files, run, mixture_format="swift")
    text = (attempt / "mixture_swift.yaml").read_text()
    known = {"tokens": 1000, "inventory": corpus.inventory, "sample_tokens": corpus.sample_tokens}
    assert text == export_mixture(TRIAL.mixture, "swift", **known)


def test_a_command_may_run_in_a_folder_of_its_own(corpus, files, attempt, tmp_path):
    code = f"assert os.getcwd() == {str(tmp_path)!r}; os.chdir(sys.argv[1]); {WRITE_GOOD}"
    run = [*script(tmp_path, code), "{out}"]
    assert trained(corpus, files, run, folder=str(tmp_path)).status == "finished"
    assert (attempt / "metrics.json").exists()


def test_a_command_that_fails_is_run_again_and_each_attempt_is_kept(
    corpus, files, attempt, tmp_path
):
    code = f"""
        if os.getcwd().endswith("attempt-1"):
            raise RuntimeError("no luck")
        {WRITE_GOOD}
    """
    assert trained(corpus, files, script(tmp_path, code), retries=2).status == "finished"
    assert "no luck" in (attempt / "log.txt").read_text()
    assert (files / "t0001" / "attempt-2" / "metrics.json").exists()


def test_a_command_that_always_fails_says_how_often_and_why(corpus, files, tmp_path):
    result = trained(corpus, files, script(tmp_path, "sys.exit('bad luck')"), retries=1)
    wanted = "tried 2 times: the command ended with exit code 1 (last line: bad luck); see t0001/"
    assert (result.status, result.losses) == ("failed", None)
    assert (result.tokens, result.parameters) == (0, 0)
    assert result.reason == f"{wanted}attempt-2/log.txt"


HANGING = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    own = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
    orphan = subprocess.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"],
                            capture_output=True, text=True)
    pids = [os.getpid(), own.pid, int(orphan.stdout)]
    json.dump(pids, open("part", "w")); os.rename("part", "pids.json")
    print("hanging", flush=True)
    time.sleep(600)
"""


def test_a_timeout_ends_all_processes_of_a_command(corpus, files, attempt, tmp_path, quick):
    result = trained(corpus, files, script(tmp_path, HANGING), timeout=2.5)
    wanted = "the command took longer than proxy.timeout: 2.5 s, and was stopped (last line: hangi"
    assert result.reason.startswith(wanted)
    pids = json.loads((attempt / "pids.json").read_text())
    assert [alive(pid) for pid in pids] == [False] * 3
    assert result.seconds < 8


def test_what_a_command_leaves_behind_is_ended_with_it(corpus, files, attempt, tmp_path, quick):
    code = f"""
        left = subprocess.Popen(["sleep", "600"], start_new_session=True)
        open("pid", "w").write(str(left.pid))
        {WRITE_GOOD}
    """
    assert trained(corpus, files, script(tmp_path, code)).status == "finished"
    assert not alive(int((attempt / "pid").read_text()))


WORKER = """
import sys
from pathlib import Path
from own_trainers import trained
from mixopt.corpus import Corpus
trained(Corpus.open(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
"""


def test_a_supervisor_needs_no_package():
    words = [sys.executable, "-I", "-S", supervisor.__file__, "1", "/bin/sh", "-c", "exit 3"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.read().splitlines()[1:] == [b'{"code": 3}']


@pytest.mark.nightly
@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_a_command_dies_with_its_worker(corpus, files, attempt, tmp_path, victim):
    words = [sys.executable, "-c", WORKER, str(corpus.path), str(files)]
    worker = subprocess.Popen([*words, *script(tmp_path, HANGING)])
    until = time.monotonic() + 60
    while not (attempt / "pids.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    pids = json.loads((attempt / "pids.json").read_text())
    supervisor = psutil.Process(pids[0]).ppid()
    os.kill(worker.pid if victim == "worker" else supervisor, signal.SIGKILL)
    try:
        await_end(*([*pids, supervisor] if victim == "worker" else pids[:1]))
    finally:
        worker.kill()
        worker.wait()
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


WROTE = "the command wrote no 'metrics.json'; "


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("print('done')", "failed", f"{WROTE}it wrote no file there (last line: done)"),
        ("open('metric.json', 'w').write('{}')", "failed", f"{WROTE}did you mean 'metric.json'?"),
        (
            WRITE_GOOD.replace("2.0", "float('nan')"),
            "diverged",
            "metrics.json: the loss of 'code' is nan",
        ),
        (
            WRITE_GOOD.replace("2.0", "float('inf')") + "; sys.exit(3)",
            "diverged",
            "exit code 3; see t0001/attempt-1/log.txt; losses are not finite",
        ),
        (
            WRITE_GOOD.replace("{", "{'seed': 1337, "),
            "failed",
            "metrics.json: has seed 1337, but the trial has 5; pass {seed} to the trainer",
        ),
        (
            f"{WRITE_GOOD}; os.utime('metrics.json', (1e9, 1e9))",
            "failed",
            "s older than the attempt that should have written it; is it a copy of another run?",
        ),
        (
            f"os.symlink('../../m.json', 'metrics.json'); {WRITE_GOOD}",
            "failed",
            "'metrics.json' is outside this folder; it is not read",
        ),
    ],
)
def test_a_result_that_is_none_is_told(corpus, files, tmp_path, code, status, reason):
    result = trained(corpus, files, script(tmp_path, code), retries=0)
    assert (result.status, result.losses) == (status, None)
    assert reason in result.reason
    assert "\n" not in result.reason


def test_a_trial_is_run_again_where_length_command_or_result_have_changed_alone(
    corpus, files, attempt, tmp_path
):
    count = tmp_path / "count"
    run = script(tmp_path, f"open({str(count)!r}, 'a').write('x'); {WRITE_GOOD}")
    first = trained(corpus, files, run)
    text = shlex.join(run)  # the same words
    repeated = trained(corpus, files, text, losses={"code": "code"}, timeout=60, retries=3)
    assert count.read_text() == "x"
    assert repeated.losses == first.losses
    assert repeated.seconds == pytest.approx(first.seconds, abs=0.01)
    (attempt / "metrics.json").write_text('{"code": 0.1}')
    assert trained(corpus, files, run).losses.nats_per_token == GOOD
    done = files / "t0001" / "done.json"
    done.write_text(done.read_text().replace('"attempt-2"', '"../../.."'))
    assert trained(corpus, files, run).losses.nats_per_token == GOOD
    trained(corpus, files, run, tokens=2_000)
    trained(corpus, files, [*run, "--other"], tokens=2_000)
    assert count.read_text() == "xxxxx"
    assert (files / "t0001" / "attempt-5" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"result": "../m.json"}, r"proxy.result: '../m.json'; must"),
        ({"result": "m.json", "unit": "bits"}, "proxy.unit: 'bits'; must be nats_per_token or"),
        (
            {"result": "m.json", "mixture_format": "megatrn"},
            "proxy.mixture_format: unknown tool 'megatrn'; did you mean 'megatron'",
        ),
        ({"result": "m.json", "paths": {"a": "b"}}, "proxy.paths: needs proxy.mixture_format"),
    ],
)
def test_options_that_cannot_be_right_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        CommandProxy(["train"], **options)


def test_a_command_that_keeps_the_promises_of_a_proxy_is_one(tmp_path):
    code = """
        told = json.load(open("trial.json"))
        loss = 2 + told["weights"]["code"] + told["seed"] / 100
        losses = dict.fromkeys(told["evaluation"], loss)
        json.dump(losses | {"parameters": 257}, open("metrics.json", "w"))
    """
    run = script(tmp_path, code)
    check_proxy(lambda: CommandProxy(run, "metrics.json"))
