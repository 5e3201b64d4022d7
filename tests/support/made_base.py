"""A base to continue: a small decoder that is pretrained for a few hundred steps on real text."""

from __future__ import annotations

from pathlib import Path

import yaml

from mixopt.pretraining import pretrain

LENGTH, BATCH = 32, 8
SMALL = {"layers": 1, "width": 32, "heads": 2, "ff": 64}


def base_config(texts: dict[str, Path], steps: int = 120, **training) -> dict:
    """Return the configuration of a pretraining on these files, its rate constant."""
    domains = {name: {"path": str(path)} for name, path in texts.items()}
    text = next(iter(texts.values())).parent / "text_of_the_base.yaml"
    text.write_text(yaml.safe_dump({"corpus": {"domains": domains}}), encoding="utf-8")
    return {
        "name": "base",
        "corpus": str(text),
        "model": {"name": "decoder", "options": SMALL},
        "training": {
            "steps": steps,
            "batch": BATCH,
            "sequence_length": LENGTH,
            "lr": 0.01,
            "schedule": "constant",
            "precision": "float32",
        }
        | training,
        "held_out": {"tokens": 1024},
        "tracking": {"enabled": False},
    }


def make_base(folder: Path, texts: dict[str, Path], name: str = "base", **training) -> Path:
    """Pretrain a base in a folder and return its run directory."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(base_config(texts, **training)), encoding="utf-8")
    pretrain(file, folder / name)
    return folder / name
