"""The promises of an estimator, which changes the mixture during training.

Shapes: D domains, M evaluation domains.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, get_args

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.online import HeldOut, Need, Observation, Plan, Setting
from mixopt.system import Array
from mixopt.testing._promises import Promises

Factory = Callable[[], Any]
Change = Callable[[Observation], Observation]
DOMAINS = ("web", "code", "books")
TARGET = "exam"  # an evaluation-only domain
STEPS = 120
TOKENS = 600  # in a step
ROUNDING = 1e-9  # of weights at their bounds
FLOORS = {"web": 2.0, "code": 1.0, "books": 2.5, TARGET: 2.2}
RATES = {"web": 0.35, "code": 0.2, "books": 0.5, TARGET: 0.3}
EXCHANGED_RATES = RATES | {"code": RATES["books"], "books": RATES["code"]}

promise = Promises("an estimator")


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


class SimulatedRun:
    """A run of 120 steps whose mixture an estimator controls.

    Args:
        factory: Returns a new estimator.
        setting: The run.
        change: Applied to each observation before the estimator gets it.
        rates: How fast the loss of each domain falls with its tokens.
    """

    def __init__(
        self,
        factory: Factory,
        setting: Setting | None = None,
        change: Change = lambda observation: observation,
        rates: Mapping[str, float] = RATES,
    ) -> None:
        self.setting = setting or simulated_setting()
        self._factory = factory
        self._change = change
        self._rates = rates
        self.estimator = self.started()
        self.plans: list[Plan] = []
        self.step = 0
        self._tokens = dict.fromkeys(self.setting.domains, 0.0)

    def started(self) -> Any:
        """Return a new estimator at the start of the run."""
        estimator = self._factory()
        estimator.start(self.setting)
        return estimator

    def calls(self) -> Iterator[Observation | None]:
        """Train and check; yield before each call of `plan` (None) and `observe` (its argument)."""
        setting = copy.deepcopy(self.setting)
        idle = False
        while self.step < STEPS:
            yield None
            plan = self._checked_plan()
            claim = "after its held-out losses, a plan of 0 steps is followed by a plan with steps"
            promise(plan.steps or not idle, claim, f"{plan.tag!r} is repeated")
            idle = not plan.steps
            for observation in map(self._change, self.follow(plan)):
                yield observation
                copied = copy.deepcopy(observation)
                self.estimator.observe(observation)
                _same([observation], [copied], "observe does not change its argument")
        _same([self.setting], [setting], "the setting is not changed")

    def finished(self) -> list[Plan]:
        """Train to the end, and return the plans."""
        for _ in self.calls():
            pass
        return self.plans

    def _checked_plan(self) -> Plan:
        """Return the next plan; calls, and writes to a returned plan, must not change it."""
        plan: Plan = copy.deepcopy(self.estimator.plan())
        setting = self.setting
        second = self.estimator.plan()
        _same([second], [plan], "a call of plan changes nothing")
        if second.weights_D.flags.writeable:
            second.weights_D[:] = np.eye(len(second.weights_D))[0]
        claim = "writing to a returned plan does not change the estimator"
        _same([self.estimator.plan()], [plan], claim)
        remaining = STEPS - self.step
        claim = "a plan has no more steps than the run has left"
        promise(plan.steps <= remaining, claim, f"{plan.steps} of {remaining} ({plan.tag})")
        claim = "a plan is a mixture of the domains within their bounds"
        promise(_is_within(plan, setting), claim, f"{plan.weights_D.tolist()} ({plan.tag})")
        allowed = not plan.held_out or "held_out" in self.estimator.needs
        claim = "a plan requests held-out losses only if `needs` has held_out"
        promise(allowed, claim, f"plan {plan.tag!r} requests them")
        self.plans.append(plan)
        return plan

    def follow(self, plan: Plan) -> list[Observation]:
        """Train on a plan and return its observations: two for a long plan, else one."""
        half = plan.steps // 2
        parts = [plan.steps]
        if half:
            parts = [half, plan.steps - half]
        observations = [self._train(plan.weights_D, steps) for steps in parts]
        if plan.held_out:
            held_out = HeldOut(self._losses(self.setting.evaluations), tokens=1000)
            observations[-1] = replace(observations[-1], held_out=held_out)
        return observations

    def _train(self, weights_D: Array, steps: int) -> Observation:
        names = self.setting.domains
        tokens_D = np.round(weights_D * TOKENS * steps)
        for name, tokens in zip(names, tokens_D, strict=True):
            self._tokens[name] += tokens
        self.step += steps
        count_D = np.zeros_like(tokens_D)
        if "training_loss" in self.estimator.needs:
            count_D = tokens_D
        loss_sum_D = self._losses(names) * count_D
        rate = 1e-3 * (1.0 - self.step / STEPS)
        return Observation(self.step, tokens_D, loss_sum_D, count_D, learning_rate=rate)

    def _losses(self, names: Sequence[str]) -> Array:
        """Return the losses; the target's loss falls with the tokens of all domains."""
        tokens = self._tokens | {TARGET: 0.2 * sum(self._tokens.values())}
        floors = [FLOORS.get(name, 2.0) for name in names]
        rates = [self._rates.get(name, 0.3) for name in names]
        seen = np.array([tokens[name] / TOKENS for name in names])
        falls = (1.0 + seen) ** -np.array(rates)
        noise = 0.01 * np.sin(self.step * np.array([7 + len(name) for name in names]))
        losses: Array = np.array(floors) + noise + 4.0 * falls
        return losses


def _is_within(plan: Plan, setting: Setting) -> bool:
    """Return whether a plan has a weight for each domain, within its bounds."""
    if len(plan.weights_D) != len(setting.domains):
        return False
    is_above = (plan.weights_D >= setting.lower_D - ROUNDING).all()
    is_below = (plan.weights_D <= setting.upper_D + ROUNDING).all()
    return bool(is_above and is_below)


def _same(values: Sequence[Any], expected: Sequence[Any], claim: str) -> None:
    """Check that plans (except for their tags), observations or settings are equal."""
    with promise.works(claim):
        np.testing.assert_equal(_plain(values), _plain(expected))


def _plain(values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return plans, observations or settings as mappings, plans without their tags."""
    return [asdict(value) | {"tag": ""} for value in values]


def check_estimator(factory: Factory, *, moves: bool = True) -> None:
    """Check that an estimator keeps its promises, in simulated runs of 120 steps.

    Args:
        factory: Returns a new estimator, not started.
        moves: Whether its mixture depends on what it observes; False for one that holds a mixture.

    Raises:
        AssertionError: A promise is broken; the message names it and the observed behaviour.
    """
    needs = factory().needs
    is_valid = isinstance(needs, frozenset) and needs <= set(get_args(Need))
    promise(is_valid, f"needs is a frozenset of {', '.join(get_args(Need))}", f"it is {needs!r}")
    plans = SimulatedRun(factory).finished()
    claim = "two runs with the same observations make the same plans"
    _same(SimulatedRun(factory).finished(), plans, claim)
    for bounded in (False, True):
        _check_states(factory, simulated_setting(bounded=bounded))
    if "training_loss" in needs:
        _check_missing_domain(factory, plans)
    _check_refusals(factory)
    if moves:
        _check_moves(factory, plans)


def _check_moves(factory: Factory, plans: list[Plan]) -> None:
    """Compare with a run in which the losses of the fastest and the slowest domain change roles."""
    other_plans = SimulatedRun(factory, rates=EXCHANGED_RATES).finished()
    claim = "other losses lead to another mixture (moves=False for one that holds its mixture)"
    broken = f"all {len(plans)} plans are the same"
    promise(not _are_close(plans, other_plans), claim, broken)


def _check_states(factory: Factory, setting: Setting) -> None:
    """Save, load and resume with a new estimator before each plan and each observation."""
    run = SimulatedRun(factory, setting)
    for _ in run.calls():
        state = _saved(run.estimator)
        loaded = run.started()
        argument = copy.deepcopy(state)
        loaded.load_state_dict(argument)
        promise(argument == state, "load_state_dict does not change its argument", "it did")
        same = _saved(loaded) == state
        promise(same, "state_dict returns a loaded state unchanged", "it differs")
        run.estimator = loaded
    claim = "after loading a state, at any step, the plans are the same, bit for bit"
    _same(run.plans, SimulatedRun(factory, setting).finished(), claim)


def _saved(estimator: Any) -> Any:
    state = estimator.state_dict()
    with promise.works("a state consists of JSON values"):
        decoded = json.loads(json.dumps(state, allow_nan=False))
    promise(decoded == state, "a state is unchanged by JSON", "it differs")
    return decoded


def _check_missing_domain(factory: Factory, complete: list[Plan]) -> None:
    """Compare runs in which every second observation lacks the first domain."""

    def plans_with(loss: float, share: float) -> list[Plan]:
        def change(observation: Observation) -> Observation:
            if observation.step % 2:
                return observation
            sums_D = observation.loss_sum_D.copy()
            sums_D[0] = loss
            counts_D = observation.loss_count_D.copy()
            counts_D[0] *= share
            return replace(observation, loss_sum_D=sums_D, loss_count_D=counts_D)

        return SimulatedRun(factory, change=change).finished()

    missing = plans_with(0.0, 0.0)
    zero = plans_with(1e-9, 1.0)
    _same(plans_with(50.0, 0.0), missing, "the loss of a domain with count 0 is not read")
    claim = "a domain without observations differs from a domain with loss 0"
    holds = _are_close(zero, complete) or not _are_close(missing, zero)
    promise(holds, claim, "the plans are the same")


def _are_close(first: list[Plan], second: list[Plan]) -> bool:
    if len(first) != len(second):
        return False
    first_PD = [plan.weights_D for plan in first]
    second_PD = [plan.weights_D for plan in second]
    return np.allclose(first_PD, second_PD, rtol=1e-6, atol=1e-9)


def _check_refusals(factory: Factory) -> None:
    """Check that invalid observations and states are refused."""
    run = SimulatedRun(factory)
    for observation in run.calls():
        state = _saved(run.estimator)
        observe = run.estimator.observe
        for fault, invalid in _invalid(observation, run.estimator.needs):
            promise.refuses(
                partial(observe, invalid), EstimatorError, f"{fault} raises an EstimatorError"
            )
            same = _saved(run.estimator) == state
            promise(same, "a refused observation changes nothing", f"the state differs: {fault}")
    for domains in ((*DOMAINS, "maths"), DOMAINS[1:], (*DOMAINS[1:], "maths")):
        load = SimulatedRun(factory, simulated_setting(domains)).estimator.load_state_dict
        claim = "a state of other domains raises an EstimatorError"
        promise.refuses(partial(load, _saved(run.estimator)), EstimatorError, claim)
    load = run.started().load_state_dict
    promise.refuses(partial(load, {}), EstimatorError, "an invalid state raises an EstimatorError")


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
        unknown_M = np.where(np.arange(len(losses_M)) == 1, np.nan, losses_M)
        invalid = replace(observation, held_out=HeldOut(unknown_M))
        yield "an evaluation that is not a number", invalid
        short = replace(observation, held_out=HeldOut(losses_M[1:]))
        yield "an evaluation that misses a domain", short
