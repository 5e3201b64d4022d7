"""Draw how each system's experts divide its labels after training on its small task.

PYTHONPATH=tests/support python -m systems.picture docs/experts/systems.svg
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from systems.home import HOME
from systems.parts import System
from systems.sample_systems import SAMPLE_SYSTEMS
from systems.text_systems import TEXT_SYSTEMS

from mixopt.routing import LayerAssignments, RouterStats, expert_profiles, layer_table

STEPS, COUNTED = 300, 60
SYSTEMS = (*TEXT_SYSTEMS, *SAMPLE_SYSTEMS, HOME)


def counted(system: System) -> tuple[LayerAssignments, float]:
    """Return what the first router gives at the end, and how much that tells of labels."""
    torch.manual_seed(0)
    model, drawn = system.build().train(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    stats = RouterStats.attach(model, system.labels)
    for step in range(STEPS):
        batch = system.draw(drawn)
        optimizer.zero_grad()
        with stats.domains(batch.labels, batch.mask):
            loss = system.loss(model, batch)
        loss.backward()
        optimizer.step()
        if system.after_step is not None:
            system.after_step(model)
        if step == STEPS - COUNTED:
            stats.window()
    last = stats.window().by_weight()
    specialisation = layer_table(last)["specialisation"][0]
    return last.layers[0], float(np.nan if specialisation is None else specialisation)


def main(path: Path) -> None:
    """Write the picture."""
    torch.set_num_threads(1)
    matplotlib.rcParams |= {"svg.hashsalt": "systems", "svg.fonttype": "none"}
    figure = Figure(figsize=(13, 6), layout="constrained")
    for axes, system in zip(figure.subplots(2, 5).flat, SYSTEMS, strict=True):
        layer, specialisation = counted(system)
        shares_DE = expert_profiles(layer.counts_DE)
        drawn = axes.pcolormesh(
            shares_DE, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1
        )
        axes.invert_yaxis()
        for (d, e), share in np.ndenumerate(shares_DE):
            if share >= 0.005:
                colour = "white" if share > 0.55 else "black"
                text = f"{100 * share:.0f}"
                axes.text(e + 0.5, d + 0.5, text, ha="center", va="center", color=colour, size=8)
        axes.set_yticks(np.arange(len(system.labels)) + 0.5, system.labels, size=9)
        axes.set_xticks(np.arange(layer.experts) + 0.5, np.arange(layer.experts), size=8)
        axes.tick_params(length=0)
        axes.set_title(
            f"{system.name}\nby {system.label}\nspecialisation {specialisation:.2f}", size=10
        )
    figure.supxlabel("expert of the first router", size=10)
    figure.colorbar(drawn, ax=figure.axes, label="share of a label's tokens, by weight", aspect=40)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
