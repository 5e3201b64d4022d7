"""The steps of a run, in order: dependencies, outputs and records of each.

What a step does is in mixopt.pipeline.step_actions, since that needs the packages above this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixopt.errors import RunError, did_you_mean
from mixopt.trials import START_FILE, WORK, trial_paths


@dataclass(frozen=True)
class Step:
    """One step of a run; files and folders are relative to the run directory.

    Attributes:
        name: What it is called on the command line and in `steps.json`.
        sections: Sections of the configuration that it depends on, beside those of the steps
            before it; `sizes` are what `corpus` states of whole domains.
        outputs: Files and folders that it leaves.
        trials: Folder in which each of its trials has a file; None where it trains nothing.
        optional: Files and folders that it leaves where there is something to say.
        experts: Table of what the experts of its trials were given, left where they have experts
            (mixopt.trials.expert_table).
        artifacts: Patterns of the files that its parent run in MLflow has; a step without any has
            no parent run.
        rewrites: Files of an earlier step that it changes while it runs.
        editable: Outputs that a person may edit; they are then no longer the step's.
        completes_records: Whether it leaves files for the parent runs of the steps before it.
    """

    name: str
    sections: tuple[str, ...]
    outputs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    trials: str | None = None
    experts: str | None = None
    artifacts: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = ()
    editable: tuple[str, ...] = ()
    completes_records: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that it may leave."""
        experts = () if self.experts is None else (self.experts,)
        return (*self.outputs, *self.optional, *experts)

    @property
    def checked(self) -> tuple[str, ...]:
        """What is hashed whenever its output is used.

        Shards and trials are left out: there are many, each with a hash or a seal of its own that
        whoever reads it checks.
        """
        own = ("corpus", self.trials)
        return tuple(name for name in self.files if name not in (*own, *self.editable))

    @property
    def shared(self) -> tuple[str, ...]:
        """Folders where tasks on other hosts write: they may do so after the step has ended."""
        return (f"{self.trials}/{WORK}",) if self.trains else ()

    @property
    def trains(self) -> bool:
        """Whether it trains trials."""
        return self.trials is not None

    def trial_folder(self, directory: Path) -> Path:
        """Return where its trials have their files in a run directory."""
        assert self.trials is not None, f"{self.name} trains nothing"
        return directory / self.trials

    def trial_files(self, directory: Path) -> list[Path]:
        """Return the files of its trials in a run directory; none where it trains nothing."""
        return trial_paths(self.trial_folder(directory)) if self.trains else []

    def experts_file(self, directory: Path) -> Path:
        """Return where the table of its experts is in a run directory, if its trials have some."""
        assert self.experts is not None, f"{self.name} trains nothing"
        return directory / self.experts


RECOMMENDATION = "recommendation.yaml"
LATER_PROPOSALS = "later_proposals"

PREPARE = Step("prepare", ("seed", "corpus", "evaluation", "tasks"), ("corpus",))
DESIGN = Step(
    "design", ("sizes", "design", "constraints", "propose.target_tokens"), ("design.parquet",)
)
SWEEP = Step(
    "sweep",
    ("proxy",),
    ("trials", "trials.parquet"),
    trials="trials",
    optional=(START_FILE,),
    experts="experts.parquet",
    rewrites=("design.parquet",),
    artifacts=(
        "config.yaml",
        "design.parquet",
        "trials.parquet",
        "experts.parquet",
        "trials/attempts.jsonl",
        "fit/fit.json",
        "fit/report.parquet",
        "fit/held_out.parquet",
        "proposal.yaml",
        "figures/[!v]*.svg",
        "figures/[!v]*.png",
        "report.html",
        RECOMMENDATION,
    ),
)
FIT = Step("fit", ("fit", "objective", "families"), ("fit",))
PROPOSE = Step(
    "propose",
    ("propose", "experts.thresholds"),  # which say which trials a guardrail keeps away from
    ("proposal.yaml",),
    editable=("proposal.yaml",),
)
VALIDATE = Step(
    "validate",
    ("validate",),
    ("validation", "validation.parquet", RECOMMENDATION),
    optional=(LATER_PROPOSALS,),
    trials="validation",
    experts="validation_experts.parquet",
    artifacts=(
        RECOMMENDATION,
        f"{LATER_PROPOSALS}/*.yaml",
        "validation.parquet",
        "validation_experts.parquet",
        "validation/attempts.jsonl",
        "figures/v*.svg",
        "figures/v*.png",
    ),
)
REPORT = Step("report", ("name",), ("report.html", "figures"), completes_records=True)

STEPS: tuple[Step, ...] = (PREPARE, DESIGN, SWEEP, FIT, PROPOSE, VALIDATE, REPORT)


# Commands that read what is elsewhere, connect or train: a directory's own record alone does not.
ACTING = (PREPARE.name, SWEEP.name, VALIDATE.name, "run", "anneal")


def step_named(name: str) -> Step:
    """Return the step of that name.

    Raises:
        RunError: There is none.
    """
    names = [step.name for step in STEPS]
    if name not in names:
        raise RunError(f"no such step: {name!r}{did_you_mean(name, names)}")
    return STEPS[names.index(name)]


def steps_before(step: Step) -> tuple[Step, ...]:
    """Return the steps that come before one."""
    return STEPS[: STEPS.index(step)]


def steps_from(step: Step) -> tuple[Step, ...]:
    """Return a step and those that come after it."""
    return STEPS[STEPS.index(step) :]
