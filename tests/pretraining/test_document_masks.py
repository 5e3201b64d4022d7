"""Documents of a row that do not see each other: positions, gradients, runs, refusals."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from made_models import SMALL
from pretrain_runs import CONFIG, DECODER, metrics_of, write_config
from torch import nn
from torch.nn import functional

from mixopt import pretrain
from mixopt.errors import ConfigError, CorpusError
from mixopt.pretraining import load_pretraining, open_origin
from mixopt.pretraining.config import ModelConfig
from mixopt.pretraining.models import build_model, logits_of
from mixopt.pretraining.ranks import joined
from mixopt.pretraining.training_step import DocumentMasks, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
END, VOCAB = 0, 61
DENSE = SMALL["llama"]
OURS = {"layers": 2, "width": 32, "heads": 2, "ff": 48, "tied": False}
MODELS = {
    "decoder": ("decoder", OURS),
    "decoder with experts": ("decoder", {**OURS, "size": "moe-tiny", "ff": None, "expert_ff": 16}),
    "llama": ("llama", DENSE),
    "olmo3, sliding": ("olmo3", {**DENSE, "sliding_window": 4}),
    "mixtral": ("mixtral", {**DENSE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt2": ("gpt2", {**SMALL["gpt2"], "tie_word_embeddings": False}),
}
FREE = ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8})
LEAKING = ("recurrent_gemma", {**DENSE, "num_hidden_layers": 3, "lru_width": 32})
# Two rows of three documents; no id but END is in two documents of them.
ROWS_BT = torch.tensor(
    [
        [11, 12, 13, END, 21, 22, 23, 24, END, 31, 32, 33],
        [41, END, 45, 46, 47, 48, 49, END, 51, 52, 53, 54],
    ]
)
DOCUMENTS = [[11, 12, 13], [21, 22, 23, 24], [31, 32, 33], [41], [45, 46, 47, 48, 49], [51, 52]]


def model_of(kind: str, options: dict) -> nn.Module:
    config = ModelConfig(name=kind, options=options)
    return build_model(config, vocab_size=VOCAB, sequence_length=16, seed=0)


def ids_that_move(output, model: nn.Module, document: list[int], *, retain_graph: bool) -> set[int]:
    """Return the ids by which the losses of a document's tokens have gradients."""
    logits, targets = logits_of(output)[:, :-1].float().flatten(0, 1), ROWS_BT[:, 1:].flatten()
    losses = functional.cross_entropy(logits, targets, reduction="none")
    (losses * torch.isin(targets, torch.tensor(document))).sum().backward(retain_graph=retain_graph)
    ours = getattr(model, "embedding", None)
    table = ours if ours is not None else model.get_input_embeddings().weight
    gradient, table.grad = table.grad, None
    whole = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return set(torch.nonzero(whole.abs().sum(1)).flatten().tolist())


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in MODELS if name != "mixtral"),
        pytest.param("mixtral", marks=pytest.mark.nightly),  # of llama's shape
    ],
)
def test_gradients_do_not_cross(name):
    """The losses of a document's tokens have gradients by what is read of it, and by no other."""
    model = model_of(*MODELS[name])
    output = model(ROWS_BT, **DocumentMasks(model, [END], 16, VOCAB).inputs(ROWS_BT))
    for document in DOCUMENTS:
        begins = {END} if document[0] not in {11, 41} else set()
        moved = ids_that_move(output, model, document, retain_graph=True)
        assert moved == set(document[:-1]) | begins


# The compiler looks at it itself.
@pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize(
    "way",
    [
        pytest.param("training.compile=true", marks=pytest.mark.nightly),
        "training.activation_checkpointing=true",
        "parallel=fsdp",
        "training.precision=bfloat16",
    ],
)
def test_gradients_do_not_cross_however_the_model_is_run(way, tmp_path):
    path = write_config(tmp_path, corpus="x")
    config = load_pretraining(path, [way])
    model = model_of(*MODELS["llama"])
    with joined("cpu") as ranks:
        masks = DocumentMasks(model, [END], 16, VOCAB)
        trainer = Trainer(model, config, ranks, masks)
        output = trainer._output(trainer.model.train(), ROWS_BT)
        moved = ids_that_move(output, trainer.model, DOCUMENTS[1], retain_graph=False)
    assert moved == {END, *DOCUMENTS[1][:-1]}


def test_held_out_text_is_evaluated_document_by_document(corpus, tmp_path):
    """Its losses are those of each document alone, by a computation that knows no masks."""
    training = {**CONFIG["training"], "steps": 8, "mask_documents": True}
    config = write_config(tmp_path, corpus=str(corpus.path), model=DECODER, training=training)
    pretrain(config, tmp_path / "run", ["held_out.every=0"])
    trained = open_origin(tmp_path / "run", trust=True).module().eval()
    (said,) = [line for line in metrics_of(tmp_path / "run") if "held_out_loss" in line]
    for domain in corpus.evaluation:
        rows = domain.validation.rows(np.arange(512 // 32) * 33, 33).astype(np.int64)
        losses = [loss for row in rows for loss in alone(trained, row)]
        assert said["held_out_loss"][domain.name] == pytest.approx(np.mean(losses), abs=1e-5)


def alone(model: nn.Module, row) -> list[float]:
    """Return the loss of each token of a row, its documents put through the model one by one."""
    end, losses = 256, []
    read, targets = row[:-1], row[1:]
    cuts = [0, *[k for k in range(1, len(read)) if read[k] == end], len(read)]
    for start, stop in pairwise(cuts):
        with torch.no_grad():
            logits = model(torch.from_numpy(read[None, start:stop]))[0]
        part = torch.from_numpy(targets[start:stop])
        losses += functional.cross_entropy(logits, part, reduction="none").tolist()
    return losses


def test_a_model_without_positions_or_that_does_not_mask_by_them_is_refused():
    message = r"training\.mask_documents: .* takes no position_ids.*; leave it out$"
    with pytest.raises(ConfigError, match=message):
        DocumentMasks(model_of(*FREE), [END], 16, VOCAB)
    leaking = model_of(*LEAKING)
    with pytest.raises(ConfigError, match="does not keep documents apart by position_ids"):
        DocumentMasks(leaking, [END], 16, VOCAB)


def test_tokens_whose_end_of_document_is_not_known_are_refused(tmp_path):
    (tmp_path / "ids").mkdir()
    np.save(tmp_path / "ids" / "web.npy", np.random.default_rng(0).integers(50, size=(200, 80)))
    corpus = {
        "domains": {"web": {"path": str(tmp_path / "ids"), "format": "npy"}},
        "tokenizer": "somebody/else",
    }
    text = tmp_path / "text.yaml"
    text.write_text(yaml.safe_dump({"corpus": corpus}))
    path = write_config(
        tmp_path,
        corpus=str(text),
        model={"name": "decoder"},
        mixture={"anchor": "natural"},
        training={**CONFIG["training"], "mask_documents": True},
    )
    with pytest.raises(CorpusError, match=r"mask_documents: .* has no tokenizer, so the end-of-"):
        pretrain(path, tmp_path / "run")
    corpus["domains"]["web"]["document_end"] = 7
    text.write_text(yaml.safe_dump({"corpus": corpus}))
    assert pretrain(path, tmp_path / "run", ["training.steps=1"]).is_finished
