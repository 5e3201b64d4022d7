// Mixtures as the page holds them: moves on the simplex, distances, the nearest trial.
//
// A mixture is a Float64Array of D weights that add up to 1; nothing here changes its arguments.
// Shapes: D domains, N trials.

/** The share of the tokens that change domain: half the sum of absolute differences. */
function totalVariation(one, other) {
  let sum = 0;
  for (let d = 0; d < one.length; d++) sum += Math.abs(one[d] - other[d]);
  return sum / 2;
}

/** What some domains have together. */
function shareOf(weights, members) {
  return members.reduce((sum, d) => sum + weights[d], 0);
}

/**
 * Scale some weights in place to a total, in proportion. Where all of them are 0 they take the
 * proportions of `fallback`, and equal parts where that has none either.
 */
function rescale(weights, members, total, fallback) {
  const before = shareOf(weights, members);
  const natural = shareOf(fallback, members);
  for (const d of members) {
    if (before > 0) weights[d] *= total / before;
    else weights[d] = natural > 0 ? (fallback[d] / natural) * total : total / members.length;
  }
}

/**
 * Give some domains a share together; the others make room in proportion, and locked ones stay.
 * @param {Float64Array} weights The mixture before.
 * @param {number[]} moved The domains that move: one, or those of a group. Locked ones stay.
 * @param {number} share What they are to have together; kept within what locked ones leave.
 * @param {Uint8Array} locked 1 for each domain that stays.
 * @param {Float64Array} natural Proportions for domains that all have 0.
 * @returns {Float64Array} A mixture; the same one where nothing can move or make room.
 */
function moveShare(weights, moved, share, locked, natural) {
  const places = Array.from(weights.keys());
  const movers = moved.filter((d) => !locked[d]);
  const others = places.filter((d) => !locked[d] && !moved.includes(d));
  if (!movers.length || !others.length) return weights;
  const free = 1 - shareOf(weights, places.filter((d) => locked[d]));
  const stays = shareOf(weights, moved.filter((d) => locked[d]));
  const asked = Math.min(Math.max(share - stays, 0), Math.max(free, 0));
  const next = Float64Array.from(weights);
  rescale(next, movers, asked, natural);
  rescale(next, others, Math.max(free - asked, 0), natural);
  return next;
}

/**
 * Divide what three corners have together among them; other domains stay.
 * @param {number[][]} corners The domains of each corner; within one they keep their proportions.
 * @param {number[]} parts What each corner is to have, >= 0; scaled to what they have together.
 */
function divideAmong(weights, corners, parts, locked, natural) {
  const next = Float64Array.from(weights);
  const free = corners.map((members) => members.filter((d) => !locked[d]));
  const moving = [0, 1, 2].filter((c) => free[c].length);
  const total = moving.reduce((sum, c) => sum + shareOf(weights, free[c]), 0);
  // A corner's locked domains stay, so its other domains are asked for the rest of its part.
  const asked = moving.map((c) => {
    const stays = shareOf(weights, corners[c]) - shareOf(weights, free[c]);
    return Math.max(parts[c] - stays, 0);
  });
  const sum = asked.reduce((a, b) => a + b, 0);
  if (moving.length < 2 || !(sum > 0)) return next;
  moving.forEach((c, i) => rescale(next, free[c], (total * asked[i]) / sum, natural));
  return next;
}

/** The trial that is nearest by total variation: its row and its distance; null without trials. */
function nearestTrial(weights, rows) {
  let best = null;
  rows.forEach((row, n) => {
    const distance = totalVariation(weights, row);
    if (best === null || distance < best.distance) best = { row: n, distance };
  });
  return best;
}

/** Order of the domains by how much a mixture differs from another, largest first. */
function byChange(weights, from) {
  const places = Array.from(weights.keys());
  return places.sort((a, b) => Math.abs(weights[b] - from[b]) - Math.abs(weights[a] - from[a]));
}
