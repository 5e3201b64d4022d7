"""The promises of an estimator, which changes the mixture during training.

Shapes: D domains, M evaluation domains.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, get_args

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.online import HeldOut, Need, Observation, Plan, Setting
from mixopt.system import Array
from mixopt.testing._promises import Promises

Factory = Callable[[], Any]
Change = Callable[[Observation], Observation]
HALF_WAY = 41  # steps
DOMAINS = ("web", "code", "books")
TARGET = "exam"  # an evaluation-only domain
STEPS, TOKENS = 120, 600
FLOORS = {"web": 2.0, "code": 1.0, "books": 2.5, TARGET: 2.2}
RATES = {"web": 0.35, "code": 0.2, "books": 0.5, TARGET: 0.3}

promise = Promises("an estimator")


def check_estimator(factory: Factory) -> None:
    """Check that an estimator keeps its promises, in simulated runs of 120 steps.

    Args:
        factory: Returns a new estimator, not started.

    Raises:
        AssertionError: A promise is broken; the message names it and the observed behaviour.
    """
    needs = factory().needs
    is_valid = isinstance(needs, frozenset) and needs <= set(get_args(Need))
    promise(is_valid, f"needs is a frozenset of {', '.join(get_args(Need))}", f"it is {needs!r}")
    claim = "two runs with the same observations make the same plans"
    _check_same(_plans(factory), _plans(factory), claim)
    for bounded in (False, True):
        _check_relay(factory, simulated_setting(bounded=bounded))
    for check in (_check_missing_domain, _check_other_domains, _check_refusals):
        check(factory)
    foreign = _run(factory).estimator
    claim = "an invalid state raises an EstimatorError"
    promise.refuses(lambda: foreign.load_state_dict({}), EstimatorError, claim)


def _run(factory: Factory, setting: Setting | None = None) -> SimulatedRun:
    setting, estimator = setting or simulated_setting(), factory()
    estimator.start(setting)
    return SimulatedRun(estimator, setting)


def _plans(
    factory: Factory, setting: Setting | None = None, change: Change | None = None
) -> list[Plan]:
    """Simulate a whole run, and return the plans."""
    run = _run(factory, setting)
    return list(_checked_plans(run if change is None else replace(run, change=change)))


def _checked_plans(
    run: SimulatedRun,
    until: int = STEPS,
    before: Callable[[Observation | None], None] = lambda observation: None,
) -> Iterator[Plan]:
    """Yield and check each plan, then observe its steps; call `before` before each call."""
    setting, steps_before = copy.deepcopy(run.setting), 1
    while run.step < until:
        before(None)
        plan, remaining = _checked_plan(run), STEPS - run.step
        claim = "a plan has no more steps than the run has left"
        promise(plan.steps <= remaining, claim, f"{plan.steps} of {remaining} ({plan.tag})")
        weights_D, low_D, high_D = plan.weights_D, setting.lower_D - 1e-9, setting.upper_D + 1e-9
        has_all = len(weights_D) == len(setting.domains)
        within = has_all and ((weights_D >= low_D) & (weights_D <= high_D)).all()
        claim = "a plan is a mixture of the domains within their bounds"
        promise(within, claim, f"{weights_D.tolist()} ({plan.tag})")
        asks = not plan.held_out or "held_out" in run.estimator.needs
        claim = "a plan requests held-out losses only if `needs` has held_out"
        promise(asks, claim, f"plan {plan.tag!r} requests them")
        claim = "after its held-out losses, a plan of 0 steps is followed by a plan with steps"
        promise(steps_before or plan.steps, claim, f"{plan.tag!r} is repeated")
        steps_before = plan.steps
        steps = min(plan.steps, until - run.step)
        yield plan
        due = plan.held_out and steps == plan.steps
        for observation in run.follow(replace(plan, steps=steps, held_out=due)):
            before(observation)
            copied = copy.deepcopy(observation)
            run.estimator.observe(observation)
            promise(
                _equal(copied, observation), "observe does not change its argument", observation
            )
    promise(_equal(setting, run.setting), "the setting is not changed", run.setting)


def _checked_plan(run: SimulatedRun) -> Plan:
    """Return the plan; check that calls and writes to a returned plan do not change it."""
    plan: Plan = copy.deepcopy(run.estimator.plan())
    second = run.estimator.plan()
    _check_same([plan], [second], "a call of plan changes nothing")
    if second.weights_D.flags.writeable:
        second.weights_D[:] = np.eye(len(second.weights_D))[0]
    claim = "writing to a returned plan does not change the estimator"
    _check_same([plan], [run.estimator.plan()], claim)
    return plan


def _check_same(first: list[Plan], second: list[Plan], claim: str) -> None:
    promise(len(first) == len(second), claim, f"{len(first)} plans and {len(second)}")
    for number, (left, right) in enumerate(zip(first, second, strict=True)):
        same = _equal(replace(left, tag=""), replace(right, tag=""))
        promise(same, claim, f"plan {number}: {left} and {right}")


def _check_relay(factory: Factory, setting: Setting) -> None:
    """Save, load and resume with a fresh estimator before each plan and each observation."""
    run = _run(factory, setting)

    def relay(observation: Observation | None) -> None:
        run.estimator = _load(factory, _save(run.estimator), setting)

    claim = "after loading a state, at any step, the plans are the same, bit for bit"
    _check_same(_plans(factory, setting), list(_checked_plans(run, before=relay)), claim)


def _save(estimator: Any) -> Any:
    state = estimator.state_dict()
    with promise.works("a state consists of JSON values"):
        decoded = json.loads(json.dumps(state, allow_nan=False))
    promise(decoded == state, "a state is unchanged by JSON", "it differs")
    return decoded


def _load(factory: Factory, state: Any, setting: Setting) -> Any:
    estimator, argument = _run(factory, setting).estimator, copy.deepcopy(state)
    estimator.load_state_dict(argument)
    promise(argument == state, "load_state_dict does not change its argument", "it did")
    same = _save(estimator) == state
    promise(same, "state_dict returns a loaded state unchanged", "it differs")
    return estimator


def _check_missing_domain(factory: Factory) -> None:
    """Remove the first domain from every second observation."""

    def without(loss: float, count: float) -> Change:
        def change(observation: Observation) -> Observation:
            if observation.step % 2 or "training_loss" not in factory().needs:
                return observation
            sums_D, counts_D = observation.loss_sum_D.copy(), observation.loss_count_D.copy()
            sums_D[0], counts_D[0] = loss, count * counts_D[0]
            return replace(observation, loss_sum_D=sums_D, loss_count_D=counts_D)

        return change

    missing = _plans(factory, change=without(0.0, 0.0))
    claim = "the loss of a domain with count 0 is not read"
    _check_same(missing, _plans(factory, change=without(50.0, 0.0)), claim)
    zero = _plans(factory, change=without(1e-9, 1.0))
    reads = not _close(zero, _plans(factory))
    claim = "a domain without observations differs from a domain with loss 0"
    promise(not (reads and _close(missing, zero)), claim, "the plans are the same")


def _check_other_domains(factory: Factory) -> None:
    """Load a state into runs with an added, a removed or a replaced domain."""
    run = _run(factory)
    list(_checked_plans(run, HALF_WAY))
    state = _save(run.estimator)
    for domains in ((*DOMAINS, "maths"), DOMAINS[1:], (*DOMAINS[1:], "maths")):
        fresh = _run(factory, simulated_setting(domains)).estimator
        claim = "a state of other domains raises an EstimatorError"
        promise.refuses(partial(fresh.load_state_dict, state), EstimatorError, claim)


def _check_refusals(factory: Factory) -> None:
    """Check that invalid observations are refused and change nothing."""
    run = _run(factory)

    def refuse(observation: Observation | None) -> None:
        estimator = run.estimator
        for name, bad in _invalid(observation, estimator.needs):
            state = _save(estimator)
            claim = f"{name} raises an EstimatorError"
            promise.refuses(partial(estimator.observe, bad), EstimatorError, claim)
            claim = "a refused observation changes nothing"
            promise(_save(estimator) == state, claim, f"the state differs after {name}")

    list(_checked_plans(run, STEPS // 2, refuse))


def _invalid(
    observation: Observation | None, needs: frozenset[Need]
) -> Iterator[tuple[str, Observation]]:
    """Yield invalid observations, with a description of the error of each."""
    if observation is None:
        return
    yield "a step that goes back", replace(observation, step=-1)
    yield "tokens of other domains", replace(observation, tokens_D=observation.tokens_D[1:])
    if "training_loss" in needs and observation.loss_count_D.any():
        sums_D = observation.loss_sum_D * np.nan
        yield "a training loss that is not a number", replace(observation, loss_sum_D=sums_D)
    if observation.held_out is not None:
        losses_M = observation.held_out.losses_M
        spoiled = {
            "is not a number": np.where(np.arange(len(losses_M)) == 1, np.nan, losses_M),
            "misses a domain": losses_M[:-1],
        }
        for fault, bad_M in spoiled.items():
            held_out = HeldOut(bad_M, observation.held_out.tokens)
            yield f"an evaluation that {fault}", replace(observation, held_out=held_out)


def _close(first: list[Plan], second: list[Plan]) -> bool:
    return len(first) == len(second) and all(
        np.allclose(left.weights_D, right.weights_D, rtol=1e-6, atol=1e-9)
        for left, right in zip(first, second, strict=True)
    )


def _equal(first: Any, second: Any) -> bool:
    """Compare values that contain arrays."""
    with suppress(AssertionError):
        np.testing.assert_equal(asdict(first), asdict(second))
        return True
    return False


def simulated_setting(domains: tuple[str, ...] = DOMAINS, *, bounded: bool = False) -> Setting:
    """Return the setting of a run of 120 steps; with bounds the objective leaves out the target."""
    size = len(domains)
    target = 0.0 if bounded else 0.4
    natural_D = np.array([0.5 if name == DOMAINS[0] else 0.25 for name in domains])
    return Setting(
        domains=domains,
        steps=STEPS,
        tokens_per_step=TOKENS,
        reference_D=np.full(size, 1.0 / size),
        natural_D=natural_D / natural_D.sum(),
        evaluations=(*domains, TARGET),
        objective_M=np.array([(1.0 - target) / size] * size + [target]),
        lower_D=np.full(size, 0.3 if bounded else 0.0),
        upper_D=np.full(size, 0.36 if bounded else 1.0),
    )


@dataclass
class SimulatedRun:
    """A simulated run whose mixture an estimator controls."""

    estimator: Any  # started on the setting
    setting: Setting  # the run
    # Applied to each observation before the estimator gets it.
    change: Change = lambda observation: observation
    step: int = 0  # steps done

    def __post_init__(self) -> None:
        self.tokens = dict.fromkeys(self.setting.domains, 0.0)

    def follow(self, plan: Plan) -> list[Observation]:
        """Train on a plan and return its observations: two for a long plan, else one."""
        parts = [plan.steps // 2, plan.steps - plan.steps // 2] if plan.steps > 1 else [plan.steps]
        observations = [self._train(plan.weights_D, steps) for steps in parts]
        if plan.held_out:
            observations[-1] = replace(observations[-1], held_out=self._evaluate())
        return [self.change(observation) for observation in observations]

    def _train(self, weights_D: Array, steps: int) -> Observation:
        names = self.setting.domains
        tokens_D = np.round(weights_D * TOKENS * steps)
        for name, tokens in zip(names, tokens_D, strict=True):
            self.tokens[name] += tokens
        self.step += steps
        loss_D = self._losses(names)
        needs = self.estimator.needs
        count_D = tokens_D if "training_loss" in needs else np.zeros(len(names))
        return Observation(
            self.step,
            tokens_D,
            loss_sum_D=loss_D * count_D,
            loss_count_D=count_D.copy(),
            learning_rate=1e-3 * (1.0 - self.step / STEPS),
        )

    def _evaluate(self) -> HeldOut:
        losses_M = self._losses(self.setting.evaluations)
        return HeldOut(losses_M, tokens=1000)

    def _losses(self, names: tuple[str, ...]) -> Array:
        """Return the losses; the target's loss falls with the tokens of all domains."""
        tokens = self.tokens | {TARGET: 0.2 * sum(self.tokens.values())}
        noise = {name: 0.01 * np.sin(self.step * (7 + len(name))) for name in names}
        falls = [(1.0 + tokens[name] / TOKENS) ** -RATES.get(name, 0.3) for name in names]
        floors = [FLOORS.get(name, 2.0) + noise[name] for name in names]
        return np.array(floors) + 4.0 * np.array(falls)
