"""Trials that continue a checkpoint: stacked ones against a plain loop, and what is refused."""

import copy

import pytest
import torch
from made_base import LENGTH, make_base
from made_models import SMALL, made_model
from mixopt_proxies.continued import ContinuedProxy
from mixopt_proxies.continued.continued_proxy import Annealing, PlainTraining
from torch.nn import functional

from mixopt.corpus import Corpus, FastTokenizer
from mixopt.errors import ConfigError, MixoptError
from mixopt.mixture import Mixture
from mixopt.pretraining import make_optimizer
from mixopt.sweeps import Training, make_proxy
from mixopt.testing import check_proxy
from mixopt.trials import Trial

TRAINING = Training(tokens=5_000, eval_tokens=1_024, device="cpu")
MIXTURES = [Mixture({"code": share, "prose": 1 - share}) for share in (0.2, 0.8)]
TRIALS = [Trial(f"t{k}", mixture, seed=k) for k, mixture in enumerate(MIXTURES)]


@pytest.fixture(scope="module")
def texts(text_files):
    return {name: text_files[name] for name in ("code", "prose")}


@pytest.fixture(scope="module")
def base(texts, tmp_path_factory, one_thread):
    return make_base(tmp_path_factory.mktemp("base"), texts)


@pytest.fixture(scope="module")
def corpus(base):
    return Corpus.open(base / "corpus")


def proxy_of(start, **options):
    return ContinuedProxy(start=str(start), precision="float32", compile=False, **options)


def losses_of(proxy, corpus, trials=TRIALS):
    results = proxy.train(trials, corpus, TRAINING, lambda progress: None)
    return [result.losses.nats_per_token for result in results]


def held_out_loss(model, domain):
    """The mean loss of a module on the first windows of a domain's held-out text."""
    count = min(TRAINING.eval_tokens, domain.validation.tokens - 1) // LENGTH
    rows = domain.validation.rows([k * LENGTH for k in range(count)], LENGTH + 1)
    rows = torch.as_tensor(rows.astype("int64"))
    with torch.no_grad():
        logits = model(rows[:, :-1])
    return float(functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()))


@pytest.mark.parametrize(("optimizer", "masked"), [(False, False), (True, True)])
def test_a_stack_from_a_checkpoint_is_a_plain_loop_from_it(base, corpus, optimizer, masked):
    proxy, start = proxy_of(base, optimizer=optimizer, mask_documents=masked), proxy_of(base)
    plain = PlainTraining(start._module, start._moments if optimizer else {}, proxy._annealing)
    for found, wanted in zip(losses_of(proxy, corpus), losses_of(plain, corpus), strict=True):
        assert found == pytest.approx(wanted, abs=2e-4)


def test_eps_and_the_rate_are_those_of_the_base_whose_rate_may_have_ended(texts, tmp_path):
    base = make_base(tmp_path, texts, steps=4, eps=1e-5, schedule="linear", min_lr=0.0)
    assert proxy_of(base, lr=0.01)._annealing.eps == 1e-5
    assert proxy_of(base, lr=0.01, eps=1e-7)._annealing.eps == 1e-7
    with pytest.raises(ConfigError, match=r"lr: is missing: the learning rate of .* step 4 is 0"):
        _ = proxy_of(base)._annealing


def test_losses_of_the_base_are_those_of_the_checkpoint(base, corpus):
    model = proxy_of(base)._module
    found = proxy_of(base, warmup=5.0).base_losses(corpus, TRAINING).nats_per_token
    wanted = {domain.name: held_out_loss(model, domain) for domain in corpus.evaluation}
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("optimizer", [True, False])
def test_the_contract_of_a_proxy_is_kept(base, optimizer):
    options = {"start": str(base), "precision": "float32", "compile": False, "optimizer": optimizer}
    check_proxy(lambda: make_proxy("continued", options), tokens=2_048)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    made_model("llama", {}).save_pretrained(folder)
    return folder


def test_a_model_of_transformers_is_trained_one_trial_at_a_time(llama, corpus):
    proxy = proxy_of(llama, lr=0.01, batch=8, sequence_length=32)
    assert proxy.group_size(corpus, TRAINING) == 1
    assert not proxy.resumes
    steps = {"lr": 0.01, "sequence_length": 32, "batch": 8, "precision": "float32"}
    assert proxy._annealing == Annealing(**steps, compile=proxy._annealing.compile)
    assert proxy.tokens_per_second(257, TRAINING) > 0
    before = proxy.base_losses(corpus, TRAINING).nats_per_token
    first, second = losses_of(proxy, corpus)
    assert first["code"] < before["code"] - 0.5
    (alone,) = losses_of(proxy, corpus, TRIALS[1:])
    assert second == pytest.approx(alone, abs=1e-4)


def test_the_rate_rises_in_the_warm_up_and_falls_to_its_floor_after_it():
    annealing = Annealing(lr=1.0, sequence_length=1, batch=1, warmup=0.5, min_lr=0.2)
    assert annealing.rates(4) == pytest.approx([1 / 3, 2 / 3, 1, 0.6])


def test_the_tokenizer_of_a_corpus_is_compared_before_it_is_prepared(base, tmp_path):
    proxy = proxy_of(base)
    proxy.check_tokenizer("bytes")
    proxy.check_tokenizer(str(base / "corpus"))
    proxy.check_tokenizer("bpe:300")  # what its ids stand for is known once it is trained
    FastTokenizer.train(["in another order"], 257).save(tmp_path)
    with pytest.raises(ConfigError, match=r"its tokenizer 'bytes' .* is not the corpus's"):
        proxy.check_tokenizer(str(tmp_path))


MOMENTS = {"lr": 0.01, "batch": 8, "sequence_length": 32, "optimizer": True}


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        ("base", {"start_hash": "0" * 64}, "has changed since the sweep began.*mixopt run --from"),
        ("base", {"min_lr": 1.0}, "proxy.options.min_lr: 1.0 must be from 0 to lr"),
        ("base", {"warmup": 20}, "options.warmup: .* fewer than a trial's 20 steps"),
        ("llama", MOMENTS, "has no moments of Adam; leave it out"),
        ("llama", {"batch": 8}, "lr: is missing: .* does not state how it was trained"),
        (None, {}, r"^proxy.from: .* no such folder"),
    ],
)
def test_a_checkpoint_or_an_option_that_cannot_be_is_refused(
    start, options, message, corpus, tmp_path, request
):
    place = request.getfixturevalue(start) if start else tmp_path / "nothing"
    with pytest.raises(MixoptError, match=message):
        losses_of(proxy_of(place, **options), corpus)


@pytest.mark.filterwarnings("ignore")
def test_the_loss_of_the_family_is_added_times_its_coefficient(corpus, tmp_path):
    model = made_model("olmoe", SMALL["olmoe"] | {"router_aux_loss_coef": 0.5})
    model.save_pretrained(tmp_path / "olmoe")
    options = {"lr": 0.01, "batch": 4, "sequence_length": LENGTH}
    plain = proxy_of(tmp_path / "olmoe", **options)._ready(corpus)
    trainer = plain._new_trainer(Training(tokens=4 * LENGTH, device="cpu"))
    annealing = plain._annealing
    by_hand = copy.deepcopy(trainer.model)
    rows_BW = torch.randint(257, (4, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    trainer.step(rows_BW[None])

    optimizer = make_optimizer(by_hand.train(), annealing)
    output = by_hand(rows_BW[:, :-1])
    loss = functional.cross_entropy(output.logits.flatten(0, 1), rows_BW[:, 1:].flatten())
    (loss + 0.5 * output.aux_loss).backward()
    torch.nn.utils.clip_grad_norm_(by_hand.parameters(), annealing.clip)
    optimizer.step()
    for name, weight in by_hand.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], weight, msg=name)
