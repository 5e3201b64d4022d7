// A law corrected to another size by a few runs there: a line for each loss, and its residuals.
//
//   y = middle + spread (level + slope (f - middle) / spread + r(w))
//
// f is what the inner law predicts, r a Gaussian process of the mixture on w^0.35 with one kernel.
//
// K: runs. M: losses.

Object.assign(LAW_KINDS, { corrected: correctedLaw });

const PILOT_WARP = 0.35;
const PILOT_SHIFT = 1e-6;
const PILOT_LEAST = 0.25; // smallest deviation, over the typical one

function correctedLaw(plain) {
  const inner = lawOf(plain.model);
  const { levels_M: levels, slopes_M: slopes, middle_M: middle, spread_M: spread, sigma_M: sigma } = plain;
  const { weights_KD: weights, inverse_KK: inverse, dual_KM: dual, share, length } = plain;
  const M = sigma.length;
  const K = Math.sqrt(inverse.length);
  const D = weights.length / K;
  const warp = (part) => (Math.max(part, 0) + PILOT_SHIFT) ** PILOT_WARP;
  const rows = Float64Array.from(weights, warp);
  const column = (own, m) => (own[m] - middle[m]) / spread[m];

  // Correlation of the residuals at a mixture with those at the runs.
  function alike(w) {
    const own = Float64Array.from(w, warp);
    return Float64Array.from({ length: K }, (_, k) => {
      let square = 0;
      for (let d = 0; d < D; d++) square += (own[d] - rows[k * D + d]) ** 2;
      const r = Math.sqrt(5 * square) / length;
      return share * (1 + r + (r * r) / 3) * Math.exp(-r);
    });
  }

  function means(w) {
    const own = inner.means(w);
    const values = alike(w);
    return own.map((_, m) => {
      const residual = values.reduce((sum, value, k) => sum + value * dual[k * M + m], 0);
      return middle[m] + spread[m] * (levels[m] + slopes[m] * column(own, m) + residual);
    });
  }

  function stds(w) {
    const own = inner.means(w);
    const claimed = inner.stds(w);
    const values = alike(w);
    const solved = Float64Array.from(values, (_, k) => dotRow(inverse, k, values));
    const left = Math.max(1 - dot(values, solved), 1 - share);
    return sigma.map((std, m) => {
      const relative = Math.max(plain.typical_M[m] > 0 ? claimed[m] / plain.typical_M[m] : 1, PILOT_LEAST);
      return spread[m] * std * Math.sqrt(relative ** 2 * left + unsureLine(m, column(own, m), solved));
    });
  }

  // Variance of a line at a place, from its level and slope.
  function unsureLine(m, place, solved) {
    let one = 1;
    let two = place;
    solved.forEach((value, k) => {
      one -= value;
      two -= value * plain.columns_KM[k * M + m];
    });
    const [a, b, , d] = plain.unsure_M4.subarray(4 * m, 4 * m + 4);
    return one * one * a + 2 * one * two * b + two * two * d;
  }

  return { means, stds, prepare: inner.prepare };
}
