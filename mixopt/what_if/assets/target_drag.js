// Searches of one drag of a target's slider: each continues from where the last one came to.
//
// Between two positions of the slider the answer moves little, so that one or two rounds find it.
// Where the law has several near mixtures a search that continues may stay with one that was the
// nearest at first. `afresh` therefore searches again from where the drag began, once the hand
// rests, and the better of the two answers counts.

/**
 * @param {object} model What does not change: data, law.
 * @param {Float64Array} start The mixture from which the drag began, to be changed least.
 * @param {Uint8Array} locked 1 for each domain that stays.
 * @param {number} target The target's place; -1 is the objective.
 * @returns {{toward: function(number), afresh: function()}} Two searches, as generators that yield
 *     {weights} and return {weights, reached, continues}: for a loss, and again for the last loss.
 */
function targetDrag(model, start, locked, target) {
  const { law } = model;
  const allowed = allowedMixtures(model.data, law, start, locked);
  const quantity = quantityOf(model, target);
  const valueAt = (weights) => largest(quantity.values(weights));
  const before = valueAt(start);
  let last = null; // {goal, lower, weights, curvature, continues, reached}; null until it is known

  function* toward(goal) {
    const lower = goal <= before;
    const continues = last !== null && last.lower === lower;
    // Beyond a goal out of reach nothing more can be reached.
    const isBeyond = continues && last.reached === false && (lower ? goal <= last.goal : goal >= last.goal);
    if (isBeyond) return (last = { ...last, goal, continues });
    const steps = reachTarget(law, allowed, start, quantity, goal, continues ? last : { lower });
    for (;;) {
      const { value, done } = steps.next();
      last = { reached: null, ...value, goal, lower, continues };
      if (done) return last;
      yield last;
    }
  }

  /** Nearer to the goal, or both reach it and the change is smaller. */
  function isBetter(one, other) {
    const misses = [one, other].map(({ weights, reached }) => (reached ? 0 : Math.abs(valueAt(weights) - last.goal)));
    if (Math.abs(misses[0] - misses[1]) > MET) return misses[0] < misses[1];
    const [own, others] = [one, other].map(({ weights }) => squaredDistance(start)(weights).value);
    return own < others * (1 - 1e-6);
  }

  function* afresh() {
    const kept = last;
    const found = yield* reachTarget(law, allowed, start, quantity, kept.goal, { lower: kept.lower });
    if (isBetter(found, kept)) last = { ...kept, ...found };
    return last;
  }

  return { toward, afresh };
}
