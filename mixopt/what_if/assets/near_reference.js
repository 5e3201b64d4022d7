// The mixture nearest to a point within a total variation of a reference, and other limits.
//
// Total variation is a straight sum on each side of the reference: where every weight is told on
// which side it is to be, the limit is one row and the side a bound, and the nearest mixture within
// those is exact. A weight that is held at the reference by its side, and is pulled over it with
// more than the limit's own force (which is then twice what one token's change of side costs),
// changes side, and the rest is found again: the distance falls each time, so that it ends.
//
// Shapes: D domains.

const MOST_SIDES = 40; // rounds; two or three are usual

/**
 * Search with sides to begin with; a generator, so that the page is free between rounds.
 * @param {Float64Array} sides Any mixture that is on the sides to begin with.
 * @param {{weights: Float64Array, size: number}} near The reference and the largest variation.
 * @returns {Generator} Returns what `nearestMixture` does, without the force of the limit itself;
 *     null where no mixture on these sides is within all limits.
 */
function* nearestOnSides(point, bounds, rows, sides, near) {
  const middle = near.weights;
  const side = Float64Array.from(sides, (v, d) => (v >= middle[d] ? 1 : -1));
  let best = null;
  for (let round = 0; round < MOST_SIDES; round++) {
    const found = nearestMixture(point, boundsOnSides(bounds, side, middle), [...rows, sideRow(side, near)]);
    if (found === null) return best;
    best = { ...found, forces: found.forces.subarray(0, rows.length) };
    const force = found.forces[rows.length];
    let changed = false;
    found.pulls.forEach((pull, d) => {
      const crossed = bounds.low[d] < middle[d] && middle[d] < bounds.high[d];
      if (!crossed || Math.abs(found.weights[d] - middle[d]) > 1e-12 || pull <= force + 1e-12) return;
      side[d] = -side[d];
      changed = true;
    });
    if (!changed) return best;
    yield;
  }
  return best;
}

/** Bounds that keep each weight on its side of the reference, as far as the old ones let it. */
function boundsOnSides({ low, high }, side, middle) {
  const inside = (d) => Math.min(Math.max(middle[d], low[d]), high[d]);
  return {
    low: low.map((least, d) => (side[d] > 0 ? inside(d) : least)),
    high: high.map((most, d) => (side[d] > 0 ? most : inside(d))),
  };
}

/** The limit as a row, true on these sides. */
function sideRow(side, { weights, size }) {
  const a = side.map((one) => one / 2);
  return { a, most: size + dot(a, weights) };
}
