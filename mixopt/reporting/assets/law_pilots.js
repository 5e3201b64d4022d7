// A law carried to another size by a few runs there: a line for each loss, and what lines leave.
//
//   y = slope (f - middle) + middle + spread level + spread r(w)
//
// f is what the inner law predicts, r a Gaussian process of the mixture on w^0.35. An objective has
// a residual of its own, so its pieces are columns behind the losses (`aimedLaw`).
//
// K: runs. M: losses. P: pieces.

Object.assign(LAW_KINDS, { corrected: (plain) => correctedLaw(plain, lawOf(plain.model)), aimed: aimedLaw });

const [PILOT_WARP, PILOT_SHIFT] = [0.35, 1e-6];
const PILOT_LEAST = 0.25; // of what is typical: a deviation is not believed to be less

const carried = ({ slopes_M: slopes, middle_M: middle, levels_M: levels }, means) =>
  means.map((mean, m) => slopes[m] * (mean - middle[m]) + middle[m] + levels[m]);

function correctedLaw(plain, inner) {
  const { spread_M: spread, sigma_M: sigma, typical_M: typical, lines } = plain;
  const M = sigma.length;
  const kernel = plain.kernel && pilotKernel(plain.kernel);

  function means(w) {
    const found = carried(lines, inner.means(w));
    if (!kernel) return found;
    const residual = kernel.residual(w);
    return found.map((mean, m) => mean + spread[m] * residual[m]);
  }

  function stds(w) {
    const own = inner.stds(w);
    const columns = inner.means(w).map((value, m) => (value - lines.middle_M[m]) / spread[m]);
    const { left, solved } = kernel ? kernel.left(w) : { left: 0, solved: [] };
    return sigma.map((std, m) => {
      const relative = Math.max(typical[m] > 0 ? own[m] / typical[m] : 1, PILOT_LEAST);
      return std * Math.sqrt(relative ** 2 + left + unsureLine(m, columns[m], solved));
    });
  }

  // How unsure level and slope of a line are, at a place on it.
  function unsureLine(m, column, solved) {
    let [one, two] = [1, column];
    solved.forEach((value, k) => {
      one -= value;
      two -= value * plain.columns_KM[k * M + m];
    });
    const [a, b, , d] = plain.unsure_M4.subarray(4 * m, 4 * m + 4);
    return one * one * a + 2 * one * two * b + two * two * d;
  }

  return { means, stds, prepare: inner.prepare };
}

// How alike residuals are at a mixture and at the runs; `dual` has as many columns as values.
function pilotKernel({ weights_KD: weights, length, ratio, inverse_KK: inverse, dual }) {
  const K = Math.sqrt(inverse.length);
  const D = weights.length / K;
  const width = dual.length / K;
  const warp = (share) => (Math.max(share, 0) + PILOT_SHIFT) ** PILOT_WARP;
  const rows = Float64Array.from(weights, warp);

  function alike(w) {
    const own = Float64Array.from(w, warp);
    return Float64Array.from({ length: K }, (_, k) => {
      let square = 0;
      for (let d = 0; d < D; d++) square += (own[d] - rows[k * D + d]) ** 2;
      const r = Math.sqrt(5 * square) / length;
      return ratio * (1 + r + (r * r) / 3) * Math.exp(-r);
    });
  }

  function residual(w) {
    const values = alike(w);
    return Float64Array.from({ length: width }, (_, m) =>
      values.reduce((sum, value, k) => sum + value * dual[k * width + m], 0));
  }

  // The residual's variance that the runs leave, over the noise's, and K^-1 k.
  function left(w) {
    const values = alike(w);
    const solved = Float64Array.from(values, (_, k) => dotRow(inverse, k, values));
    return { left: Math.max(ratio - dot(values, solved), 0), solved, values };
  }

  return { residual, left, ratio };
}

function aimedLaw(plain) {
  const inner = lawOf(plain.corrected.model);
  const corrected = correctedLaw(plain.corrected, inner);
  const kernel = pilotKernel(plain.kernel);
  const { pieces_PM: pieces, spread, level, sigma, typical, lines } = plain;
  const M = lines.slopes_M.length;
  const places = Array.from({ length: pieces.length / M }, (_, p) => p);

  function means(w) {
    const values = carried(lines, inner.means(w));
    const shift = spread * (level + kernel.residual(w)[0]);
    return Float64Array.from([...corrected.means(w), ...places.map((p) => dotRow(pieces, p, values) + shift)]);
  }

  // Wider where the law is less sure than is typical of it.
  function stds(w) {
    const { values, left } = kernel.left(w);
    const open = 1 - dot(values, plain.totals_K);
    const variance = 1 + left + open ** 2 / plain.total;
    const own = inner.stds(w);
    const spreads = places.map((p) =>
      own.reduce((sum, std, m) => sum + Math.abs(pieces[p * M + m] * lines.slopes_M[m]) * std, 0));
    const beyond = typical > 0 ? Math.max(Math.max(...spreads) ** 2 - typical ** 2, 0) : 0;
    const whole = Math.sqrt((sigma ** 2 * variance) / (1 + kernel.ratio) + beyond);
    return Float64Array.from([...corrected.stds(w), ...places.map(() => whole)]);
  }

  return { means, stds, prepare: inner.prepare };
}
