// What a Gaussian process adds to its kernel where trials are of several sizes.
//
//   k = s Matern52 (1 + sum_j c_j r_j c'_j) + constant + amplitude sum_j m_j m'_j
//
// j: parameters and tokens. m falls with a size by a power law, 1 at the least of all trials; c is
// 1 there and 0 at the most. `side(n)` is trial n as one side of the kernel, or what is asked for
// where n is -1: `shared(k)` and `added(k)` are the parts of the kernel with trial k, `duals` the
// duals times what is shared.

const SCALE_AMPLITUDE = 100;

function oneSize(duals, sum) {
  const only = {
    duals,
    level: GAUSSIAN_CONSTANT * sum,
    shared: () => 1,
    added: () => GAUSSIAN_CONSTANT,
    height: (variance) => variance + GAUSSIAN_CONSTANT,
  };
  return { parameters: 0, side: () => only, pushForward: () => {} };
}

function scaledTerms(plain, m, variance, duals) {
  const exponents = plain.exponents_M2.subarray(2 * m, 2 * m + 2);
  const ratios = plain.changes_M2.subarray(2 * m, 2 * m + 2);
  const terms = (scales, at) => sizeTerms(exponents, scales.subarray(at, at + 2), plain.reach_2);
  const every = Array.from(duals, (_, n) => terms(plain.scales_N2, 2 * n));
  const asked = terms(plain.asked_2, 0);
  const both = (f) => f(0) + f(1); // parameters and tokens
  const weighted = (name, values) =>
    [0, 1].map((j) => values.reduce((sum, value, n) => sum + value * every[n][name][j], 0));
  const [fallen, fallenByLog] = [weighted("falls", duals), weighted("fallsByLog", duals)];

  function side(n) {
    const own = n < 0 ? asked : every[n];
    const sharing = (other) => 1 + both((j) => own.changes[j] * ratios[j] * other.changes[j]);
    const adding = (other) =>
      GAUSSIAN_CONSTANT + SCALE_AMPLITUDE * both((j) => own.falls[j] * other.falls[j]);
    const shared = (k) => sharing(every[k]);
    const added = (k) => adding(every[k]);
    const height = () => variance * sharing(own) + adding(own); // its variance before any trial
    const sharedDuals = duals.map((dual, k) => dual * shared(k));
    const level = duals.reduce((sum, dual, k) => sum + dual * added(k), 0);
    return { own, duals: sharedDuals, level, shared, added, height };
  }

  // The derivative of k . dual by the logarithms of the ratios, then of the exponents.
  function pushForward(alike, { own }, moved) {
    const pulls = alike.map((value, n) => value * duals[n]);
    const [changed, changedByLog] = [weighted("changes", pulls), weighted("changesByLog", pulls)];
    for (let j = 0; j < 2; j++) {
      const effect = variance * ratios[j];
      moved[j] = effect * own.changes[j] * changed[j];
      moved[2 + j] =
        effect * (own.changesByLog[j] * changed[j] + own.changes[j] * changedByLog[j]) +
        SCALE_AMPLITUDE * (own.fallsByLog[j] * fallen[j] + own.falls[j] * fallenByLog[j]);
    }
  }

  return { parameters: 4, side, pushForward };
}

// m and c at one size, and their derivatives by the logarithms of the exponents.
function sizeTerms(exponents, scales, reach) {
  const found = { falls: [], changes: [], fallsByLog: [], changesByLog: [] };
  for (let j = 0; j < 2; j++) {
    const [up, most] = [-exponents[j] * scales[j], -exponents[j] * reach[j]];
    const whole = most > 0 ? Math.expm1(most) : Infinity;
    const [fall, change] = [Math.exp(up - most), Math.expm1(up) / whole];
    found.falls.push(fall);
    found.changes.push(change);
    found.fallsByLog.push((up - most) * fall);
    found.changesByLog.push((up * Math.exp(up) - change * most * Math.exp(most)) / whole);
  }
  return found;
}
