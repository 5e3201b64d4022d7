// The smallest change of mixture that reaches a loss, and the best mixture within the limits.
//
// Smallest is meant in squared distance between weights: it has one answer where total variation
// has many, and spreads a change over the domains that help. Losses, guardrails and a divergence
// are curved, so each round takes their tangents where the search stands and finds the best
// mixture within those exactly (sequential quadratic programming). Instead of the matrix of second
// derivatives there is one number, the curvature over the last step (Barzilai and Borwein's), so
// that each round is a nearest mixture. A step that brings the whole problem no nearer to its
// answer is halved. Total variation has kinks, and is met exactly (near_reference.js); where it is
// not known on which side of its reference a mixture within it may be, by tangents, which stay true
// since it is convex. A search may continue from where another came to, with the curvature there.
//
// Searches are generators: the page runs them in slices between frames and shows how far they are.
//
// What may be chosen (`allowed`): {bounds: {low, high}, rows: [{a, most}], kinked: [...],
// smooth: [...], guards: [{target, sign, most}]}; entries of kinked and smooth are
// {value(w), slope(w), most}, the former also with {weights, size} of a total variation, and a guard says sign * loss <= most. What is asked about
// (`quantity`): {values(w), slopes(w)}, the largest of P smooth values, such as one loss or the
// pieces of an objective.

const SEARCH_ROUNDS = 150;
const KEPT_TANGENTS = 80; // of total variation
const SETTLED = 1e-8; // a step in weight below which a search has ended
const MET = 1e-7; // by which a loss or a limit may be missed
const MEMORY = 5; // rounds; a step must be better than the worst of them

/**
 * Search for the nearest mixture at which a quantity reaches a goal.
 * @param {object} law Predictions, as `makeLaw` gives them.
 * @param {object} allowed The limits.
 * @param {Float64Array} start The mixture to change least.
 * @param {object} quantity What is to reach the goal.
 * @param {number} goal The value asked for: at most where it is below the present one, else at
 *     least.
 * @param {object} from Where to continue from: {weights, curvature} as another search within these
 *     limits yielded or returned them, and `lower`, whether the goal is below the present value.
 * @returns {Generator} Yields {weights, curvature} on the way and returns {weights, curvature,
 *     reached}. Where the goal cannot be reached, the weights are the best that was found.
 */
function* reachTarget(law, allowed, start, quantity, goal, from = {}) {
  const lower = from.lower ?? goal <= largest(quantity.values(start));
  const conditions = [lower ? below(quantity, goal) : above(quantity, goal)];
  const search = { allowed, conditions: [...conditions, ...ownConditions(law, allowed)] };
  const cost = squaredDistance(start);
  const direct = yield* minimise(search, cost, start, -Infinity, from);
  if (direct.met) return { ...direct, reached: true };
  // No way from here: go as far as possible, and come back from there.
  const wanted = lower ? quantity : turned(quantity);
  const enough = lower ? goal : -goal;
  const far = yield* bestMixture(law, allowed, direct.weights, wanted, enough - MET);
  if (!far.met || far.value > enough + MET) return { weights: far.weights, reached: false };
  const back = yield* minimise(search, cost, far.weights);
  return { ...(back.met ? back : far), reached: true };
}

/**
 * Search for the best mixture within the limits.
 * @param {number} stop A value that is enough; -Infinity for the least.
 * @returns {Generator} Yields {weights} on the way and returns {weights, value, met}.
 */
function* bestMixture(law, allowed, start, quantity, stop = -Infinity) {
  const search = { allowed, conditions: ownConditions(law, allowed) };
  const cost = (weights) => smoothed(quantity, weights);
  const steps = minimise(search, cost, start, stop);
  let step = steps.next();
  for (; !step.done; step = steps.next()) yield { weights: step.value.weights };
  const { weights, met } = step.value;
  return { weights, met, value: largest(quantity.values(weights)) };
}

/** Search for the least cost within the limits and conditions, from `start` or where `from` is. */
function* minimise(search, cost, start, stop = -Infinity, from = {}) {
  search.tangents = [];
  const first = from.weights ? from : yield* nearestWithin(search, start, start, []);
  if (first === null) return { weights: start, met: false };
  let here = first.weights;
  let { value, slope } = cost(here);
  let curvature = from.curvature ?? Math.max(widest(centred(slope)) / 0.1, 1);
  let [price, past] = [0, []];
  for (let round = 0; round < SEARCH_ROUNDS; round++) {
    const missed = missedBy(search, here);
    if (missed <= MET && value <= stop) break;
    const tangents = search.conditions.flatMap((one) => one.tangents(here));
    const ahead = yield* bestAhead(search, here, slope, curvature, tangents);
    if (ahead === null) break;
    price = Math.max(price, 2 * curvature * largest([0, ...ahead.forces]));
    past = [...past, { value, missed }].slice(-MEMORY);
    const step = ahead.weights.map((v, d) => v - here[d]);
    if (widest(step) < SETTLED) break;
    const promised = dot(slope, step) - price * (missed - ahead.missed);
    const ceiling = largest(past.map((one) => one.value + price * one.missed));
    const next = halved(here, step, (w, part) => {
      const total = cost(w).value + price * missedBy(search, w);
      return total <= ceiling + 1e-4 * part * Math.min(promised, 0);
    });
    if (next === null) break;
    const after = cost(next);
    const turn = lagrangianTurn(search, slope, after.slope, tangents, ahead.forces, curvature, next);
    curvature = newCurvature(here, next, turn, curvature);
    here = next;
    ({ value, slope } = after);
    yield { weights: here, curvature };
  }
  return { weights: here, curvature, met: missedBy(search, here) <= MET };
}

/**
 * The best mixture of the model at `here`: slope and curvature of the cost, tangents of the
 * conditions. Where no mixture meets all tangents, a part of what is missed is asked for.
 */
function* bestAhead(search, here, slope, curvature, tangents) {
  const point = here.map((v, d) => v - slope[d] / curvature);
  for (const part of [1, 0.5, 0.2, 0.05, 0]) {
    const rows = tangents.map(({ a, over }) => ({
      a,
      most: dot(a, here) - (over > 0 ? part * over : over),
    }));
    const found = yield* nearestWithin(search, here, point, rows);
    if (found === null) continue;
    const left = tangents.reduce((sum, { over }) => sum + Math.max((1 - part) * over, 0), 0);
    return { ...found, missed: left };
  }
  return null;
}

/**
 * The nearest mixture to a point within bounds, rows, total variation and tangents of conditions.
 * @returns {Generator} Yields {weights: here} between its rounds.
 */
function* nearestWithin(search, here, point, tangents) {
  const { bounds, rows, kinked } = search.allowed;
  const every = [...tangents, ...rows];
  const ours = (found) => ({ weights: found.weights, forces: found.forces.subarray(0, tangents.length) });
  const plain = nearestMixture(point, bounds, every);
  const isWithin = (w) => kinked.every((one) => one.value(w) <= one.most + MET / 10);
  if (plain === null || isWithin(plain.weights)) return plain && ours(plain);
  yield { weights: here };
  if (kinked.length === 1) {
    for (const sides of [plain.weights, here]) {
      const steps = nearestOnSides(point, bounds, every, sides, kinked[0]);
      let step = steps.next();
      for (; !step.done; step = steps.next()) yield { weights: here };
      if (step.value) return ours(step.value);
    }
  }
  return yield* nearestByTangents(search, here, point, every, ours);
}

function* nearestByTangents(search, here, point, every, ours) {
  for (let round = 0; ; round++) {
    const found = nearestMixture(point, search.allowed.bounds, [...every, ...search.tangents]);
    if (found === null) return null;
    const broken = search.allowed.kinked.filter((one) => one.value(found.weights) > one.most + MET / 10);
    if (!broken.length || round === 40) return ours(found);
    for (const one of broken) {
      const a = one.slope(found.weights);
      search.tangents.push({ a, most: dot(a, found.weights) + one.most - one.value(found.weights) });
    }
    search.tangents = search.tangents.slice(-KEPT_TANGENTS);
    yield { weights: here };
  }
}

/** How much the slope of cost and conditions together has turned over a step. */
function lagrangianTurn(search, slope, after, tangents, forces, curvature, next) {
  const turn = after.map((v, d) => v - slope[d]);
  if (!tangents.length) return turn;
  search.conditions.flatMap((one) => one.tangents(next)).forEach(({ a }, i) => {
    if (!forces[i]) return;
    for (let d = 0; d < turn.length; d++) turn[d] += curvature * forces[i] * (a[d] - tangents[i].a[d]);
  });
  return turn;
}

function newCurvature(here, next, turn, curvature) {
  const moved = next.map((v, d) => v - here[d]);
  const found = dot(moved, turn) / dot(moved, moved);
  return found > 0 ? Math.min(Math.max(found, curvature / 50, 1e-6), 1e9) : curvature / 4;
}

/** Halve a step until it is accepted; null where it never is. */
function halved(here, step, accepted) {
  for (let part = 1; part > 1e-7; part /= 2) {
    const next = here.map((v, d) => v + part * step[d]);
    if (accepted(next, part)) return next;
  }
  return null;
}

function missedBy(search, weights) {
  return search.conditions.reduce((sum, one) => sum + one.missed(weights), 0);
}

/** Guardrails and a divergence as conditions; guardrails are one, so that losses are computed once. */
function ownConditions(law, allowed) {
  const found = allowed.smooth.map((one) => ({
    missed: (w) => Math.max(one.value(w) - one.most, 0),
    tangents: (w) => [{ a: one.slope(w), over: one.value(w) - one.most }],
  }));
  if (allowed.guards.length) found.push(guardCondition(law, allowed.guards));
  return found;
}

function guardCondition(law, guards) {
  const over = (losses) => guards.map((g) => g.sign * losses[g.target] - g.most);
  return {
    missed: (w) => over(law.predict(w)).reduce((sum, value) => sum + Math.max(value, 0), 0),
    tangents(w) {
      const slopes = law.gradient(w);
      return over(law.predict(w)).map((value, g) => {
        const at = guards[g].target * w.length;
        return { a: slopes.slice(at, at + w.length).map((v) => guards[g].sign * v), over: value };
      });
    },
  };
}

/** The condition that every value is at most a goal. */
function below(quantity, goal) {
  return {
    missed: (w) => quantity.values(w).reduce((sum, value) => sum + Math.max(value - goal, 0), 0),
    tangents(w) {
      const values = quantity.values(w);
      return quantity.slopes(w).map((a, p) => ({ a, over: values[p] - goal }));
    },
  };
}

/** The condition that the largest value is at least a goal, by the value that is largest now. */
function above(quantity, goal) {
  return below(turned(quantity), -goal);
}

/** The largest value of a quantity, negated: for going up. */
function turned(quantity) {
  return {
    values: (w) => [-largest(quantity.values(w))],
    slopes(w) {
      const values = quantity.values(w);
      return [quantity.slopes(w)[values.indexOf(largest(values))].map((v) => -v)];
    },
  };
}

function squaredDistance(start) {
  return (weights) => {
    const slope = weights.map((v, d) => v - start[d]);
    return { value: dot(slope, slope) / 2, slope };
  };
}

/** Value and slope of a quantity; of several values their softened maximum, which has no kinks. */
function smoothed(quantity, weights) {
  const values = quantity.values(weights);
  const slopes = quantity.slopes(weights);
  if (values.length === 1) return { value: values[0], slope: slopes[0] };
  const top = largest(values);
  const heat = 1e-3 * Math.max(Math.abs(top), 1e-3);
  const parts = values.map((value) => Math.exp((value - top) / heat));
  const sum = parts.reduce((a, b) => a + b, 0);
  const slope = new Float64Array(weights.length);
  slopes.forEach((one, p) => {
    for (let d = 0; d < slope.length; d++) slope[d] += (parts[p] / sum) * one[d];
  });
  return { value: top + heat * Math.log(sum), slope };
}

function centred(vector) {
  const mean = vector.reduce((sum, v) => sum + v, 0) / vector.length;
  return vector.map((v) => v - mean);
}

const largest = (values) => values.reduce((top, value) => Math.max(top, value), -Infinity);
const widest = (vector) => vector.reduce((top, value) => Math.max(top, Math.abs(value)), 0);
