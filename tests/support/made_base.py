"""A base to continue: a small decoder that is pretrained for a few hundred steps on real text."""

import yaml

from mixopt.pretraining import pretrain

LENGTH, BATCH = 32, 8
SMALL = {"layers": 1, "width": 32, "heads": 2, "ff": 64}


def make_base(folder, texts, steps=120, **training):
    """Pretrain a base on these files, its rate constant, and return its run directory."""
    domains = {name: {"path": str(path)} for name, path in texts.items()}
    given = {"steps": steps, "batch": BATCH, "sequence_length": LENGTH, "lr": 0.01}
    given |= {"schedule": "constant", "precision": "float32"}
    config = {
        "name": "base",
        "corpus": str(folder / "text_of_the_base.yaml"),
        "model": {"name": "decoder", "options": SMALL},
        "training": given | training,
        "held_out": {"tokens": 1024},
        "tracking": {"enabled": False},
    }
    text = {"corpus": {"domains": domains}}
    for name, content in (("base", config), ("text_of_the_base", text)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    pretrain(folder / "base.yaml", folder / "base")
    return folder / "base"
