"""Trials that continue a checkpoint: stacked ones against a plain loop, and what is refused."""

import shutil

import pytest
import torch
import yaml
from made_base import LENGTH, base_config, make_base
from mixopt_proxies.continued import ContinuedProxy
from mixopt_proxies.continued.plain_training import PlainTraining
from mixopt_proxies.decoder import make_size
from mixopt_proxies.decoder.decoder_stack import StackedWeights
from torch.nn import functional

from mixopt.config import CorpusConfig, load_config
from mixopt.corpus import Corpus, FastTokenizer, prepare_corpus
from mixopt.errors import ConfigError, MixoptError
from mixopt.mixture import Mixture
from mixopt.pipeline import check
from mixopt.pretraining import pretrain
from mixopt.testing import check_proxy
from mixopt.trials import Training, Trial, make_proxy

CPU = torch.device("cpu")
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


def trained(proxy, corpus, trials=TRIALS, training=TRAINING):
    return proxy.train(trials, corpus, training, lambda progress: None)


def losses_of(results):
    return [result.losses.nats_per_token for result in results]


def held_out_loss(model, domain, tokens=1_024):
    """The mean loss of a module on the first windows of a domain's held-out text."""
    count = min(tokens, domain.validation.tokens - 1) // LENGTH
    rows = domain.validation.rows([k * LENGTH for k in range(count)], LENGTH + 1)
    rows = torch.as_tensor(rows.astype("int64"))
    with torch.no_grad():
        logits = model(rows[:, :-1])
    return float(functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()))


def test_documents_of_a_row_may_be_kept_apart(base, corpus):
    apart, together = (
        proxy_of(base, mask_documents=masked).base_losses(corpus, TRAINING).nats_per_token
        for masked in (True, False)
    )
    assert apart != together
    start = proxy_of(base)
    annealing = proxy_of(base, mask_documents=True)._annealing
    plain = PlainTraining(start._module, {}, annealing).origin_losses(corpus, TRAINING)
    assert apart == pytest.approx(plain.nats_per_token, abs=1e-4)


@pytest.mark.parametrize(("optimizer", "masked"), [(True, False), (False, False), (True, True)])
def test_a_stack_from_a_checkpoint_is_a_plain_loop_from_it(base, corpus, optimizer, masked):
    proxy = proxy_of(base, optimizer=optimizer, mask_documents=masked)
    start = proxy_of(base)
    moments = start._moments if optimizer else {}
    plain = PlainTraining(start._module, moments, proxy._annealing)
    together = losses_of(trained(proxy, corpus))
    for found, wanted in zip(together, losses_of(trained(plain, corpus)), strict=True):
        assert found == pytest.approx(wanted, abs=2e-4)


def test_a_stack_has_the_eps_of_a_plain_loop(base, corpus):
    options = {"eps": 1e-2, "weight_decay": 20.0}
    start = proxy_of(base)
    found = losses_of(trained(proxy_of(base, **options), corpus, TRIALS[:1]))
    plain = PlainTraining(start._module, start._moments, proxy_of(base, **options)._annealing)
    assert found[0] == pytest.approx(losses_of(trained(plain, corpus, TRIALS[:1]))[0], abs=2e-4)
    changed = proxy_of(base, **(options | {"eps": 1e-8}))
    other = losses_of(trained(changed, corpus, TRIALS[:1]))
    assert abs(other[0]["code"] - found[0]["code"]) > 2e-3


def test_what_decays_in_a_stack_is_all_but_norms():
    size = make_size("moe-tiny", layers=1)
    weights = StackedWeights(size, 64, [0, 1], device=CPU, dtype=torch.float32)
    weights.master.zero_()
    weights.master[: weights.decayed] = 1
    for weight in weights.weights:
        values = weights.view(weights.master, weight)
        assert values.unique().tolist() == [float(weight.kind != "norm")], weight.name


def test_eps_is_that_of_the_base(texts, tmp_path):
    base = make_base(tmp_path, texts, steps=2, eps=1e-5)
    assert proxy_of(base)._annealing.eps == 1e-5
    assert proxy_of(base, eps=1e-7)._annealing.eps == 1e-7


def test_moments_of_adam_change_the_first_steps(base, corpus):
    few = Training(tokens=512, eval_tokens=1_024, device="cpu")
    with_them, without = (
        losses_of(trained(proxy_of(base, optimizer=taken), corpus, training=few))
        for taken in (True, False)
    )
    assert abs(with_them[0]["code"] - without[0]["code"]) > 1e-3


def test_losses_of_the_base_are_those_of_the_checkpoint(base, corpus):
    model = proxy_of(base)._module
    found = proxy_of(base).base_losses(corpus, TRAINING).nats_per_token
    wanted = {domain.name: held_out_loss(model, domain) for domain in corpus.evaluation}
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_trial_learns_from_where_the_checkpoint_is(base, corpus):
    proxy = proxy_of(base)
    before = proxy.base_losses(corpus, TRAINING).nats_per_token
    code = losses_of(trained(proxy, corpus))[1]["code"]
    assert code < before["code"]


def test_members_do_not_depend_on_each_other(base, corpus):
    together = losses_of(trained(proxy_of(base), corpus))
    (alone,) = losses_of(trained(proxy_of(base), corpus, TRIALS[1:]))
    assert together[1] == pytest.approx(alone, abs=1e-4)


def test_seeds_change_the_order_of_the_data_alone(base, corpus):
    one = [Trial("a", MIXTURES[0], seed=1), Trial("b", MIXTURES[0], seed=2)]
    first, second = losses_of(trained(proxy_of(base), corpus, one))
    assert 0 < abs(first["code"] - second["code"]) < 0.1


def test_the_rate_decays_from_that_of_the_run_to_nothing(base):
    rates = proxy_of(base, decay="linear")._annealing.rates(10)
    assert rates == pytest.approx([0.01 * (1 - step / 10) for step in range(10)])


def test_a_warm_up_comes_before_the_decay(base):
    rates = proxy_of(base, warmup=2, lr=0.006, min_lr=0.001)._annealing.rates(12)
    assert rates[:3] == pytest.approx([0.002, 0.004, 0.006])
    assert rates[-1] == pytest.approx(0.001 + 0.005 * 0.1)


def test_the_contract_of_a_proxy_is_kept(base, tmp_path):
    options = {"start": str(base), "precision": "float32", "compile": False}
    check_proxy(lambda: make_proxy("continued", options), tokens=2_048)


def test_another_checkpoint_than_the_recorded_one_is_refused(base, corpus):
    with pytest.raises(ConfigError, match=r"has changed since the sweep began.*mixopt run --from"):
        proxy_of(base, start_hash="0" * 64).group_size(corpus, TRAINING)


def test_more_steps_give_another_hash(base, texts, tmp_path):
    further = shutil.copytree(base, tmp_path / "further")
    before = proxy_of(further).start_hash()
    assert before == proxy_of(base).start_hash()
    file = tmp_path / "further.yaml"
    file.write_text(yaml.safe_dump(base_config(texts, steps=125)), encoding="utf-8")
    shutil.rmtree(further)
    pretrain(file, further)
    assert proxy_of(further).start_hash() != before


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A model of transformers for raw bytes, with random weights and no tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=257, max_position_embeddings=64, **shape, **heads)
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_model_of_transformers_is_trained_one_trial_at_a_time(llama, corpus):
    proxy = proxy_of(llama, lr=0.01, batch=8, sequence_length=32)
    assert proxy.group_size(corpus, TRAINING) == 1
    before = proxy.base_losses(corpus, TRAINING).nats_per_token
    first, second = losses_of(trained(proxy, corpus))
    assert first["code"] < before["code"] - 0.5
    (alone,) = losses_of(trained(proxy, corpus, TRIALS[1:]))
    assert second == pytest.approx(alone, abs=1e-4)


@pytest.fixture(scope="module")
def decayed(texts, tmp_path_factory, one_thread):
    """A base whose rate is 0 at its end, with a checkpoint before that."""
    folder = tmp_path_factory.mktemp("decayed")
    content = base_config(texts, steps=4, schedule="linear", min_lr=0.0)
    file = folder / "decayed.yaml"
    file.write_text(yaml.safe_dump(content | {"checkpoint": {"every": 2}}), encoding="utf-8")
    pretrain(file, folder / "run")
    return folder / "run"


def test_a_base_that_ended_at_no_rate_is_said_to_need_one(decayed, corpus):
    with pytest.raises(ConfigError, match=r"options.lr: is missing: the rate of .* at step 4 is 0"):
        proxy_of(decayed).group_size(corpus, TRAINING)
    assert proxy_of(decayed, lr=0.01)._annealing.lr == 0.01
    assert proxy_of(decayed / "checkpoints/step-00000002")._annealing.lr > 0


def test_a_model_from_elsewhere_does_not_say_how_it_was_trained(llama, corpus):
    with pytest.raises(ConfigError, match=r"proxy.options.lr: is missing: .*llama.* how it was"):
        proxy_of(llama).group_size(corpus, TRAINING)


def test_moments_that_there_are_none_of_are_refused(llama, corpus):
    proxy = proxy_of(llama, lr=0.01, batch=8, sequence_length=32, optimizer=True)
    with pytest.raises(ConfigError, match="has no moments of Adam; leave it out"):
        proxy.group_size(corpus, TRAINING)


def test_the_tokenizer_of_the_corpus_must_be_the_models(base, texts, tmp_path):
    domains = {name: {"path": str(path)} for name, path in texts.items()}
    config = CorpusConfig.model_validate({"domains": domains, "tokenizer": "bpe:300"})
    other = prepare_corpus(config, {}, tmp_path / "corpus", fingerprint="f")
    with pytest.raises(ConfigError, match=r"trained with the tokenizer 'bytes' .* 'bpe:300'"):
        proxy_of(base).group_size(other, TRAINING)


@pytest.fixture
def elsewhere(tmp_path):
    """The folder of a tokenizer of other ids."""
    FastTokenizer.train(["in another order"], 257).save(tmp_path)
    return str(tmp_path)


def test_the_tokenizer_of_a_corpus_is_compared_before_it_is_prepared(base, elsewhere):
    proxy = proxy_of(base)
    proxy.check_tokenizer("bytes")
    proxy.check_tokenizer(str(base / "corpus"))
    proxy.check_tokenizer("bpe:300")  # what its ids stand for is known once it is trained
    with pytest.raises(ConfigError, match=r"trained with the tokenizer 'bytes' .* the corpus has"):
        proxy.check_tokenizer(elsewhere)


def test_more_ids_than_a_model_without_a_tokenizer_has_are_refused_before_it_is_prepared(
    llama, tmp_path
):
    FastTokenizer.train(["in another order"], 258).save(tmp_path)
    with pytest.raises(ConfigError, match=r"knows 257 ids, and the corpus's tokenizer .* has 258"):
        proxy_of(llama).check_tokenizer(str(tmp_path))


def test_a_check_of_an_experiment_finds_another_tokenizer(base, texts, elsewhere, tmp_path):
    domains = {name: {"path": str(path)} for name, path in texts.items()}
    content = {
        "corpus": {"domains": domains, "tokenizer": elsewhere},
        "objective": {"target": "code"},
        "proxy": {"name": "continued", "from": str(base), "tokens": 4096},
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content))
    found = check(load_config(tmp_path / "experiment.yaml"))
    assert any("was trained with the tokenizer 'bytes'" in str(one) for one in found.problems)


def test_a_truncated_checkpoint_is_refused(base, corpus, tmp_path):
    broken = shutil.copytree(base, tmp_path / "broken")
    shard = next((broken / "checkpoints").glob("step-*/*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(MixoptError, match="safetensors"):
        proxy_of(broken).group_size(corpus, TRAINING)


def test_what_is_no_checkpoint_is_named_by_the_field_of_the_experiment(tmp_path, corpus):
    with pytest.raises(MixoptError, match=r"^proxy.from: .* no such folder"):
        proxy_of(tmp_path / "nothing").group_size(corpus, TRAINING)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "proxy.options.lr: -1.0 must be above 0"),
        ({"min_lr": 1.0}, "proxy.options.min_lr: 1.0 must be from 0 to lr"),
        ({"decay": "steps"}, "proxy.options.decay: 'steps' must be linear, cosine or sqrt"),
        ({"warmup": 1e9}, "proxy.options.warmup: .* fewer than a trial's 20 steps"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(base, corpus, options, message):
    with pytest.raises(ConfigError, match=message):
        trained(proxy_of(base, **options), corpus)
