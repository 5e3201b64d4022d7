// Gaussian processes, one for each loss, on weights that are warped by a power.
//
//   z_d = (w_d + 1e-9)^p / l_d,  k = s Matern52(|z - z'|) (1 + sum_j c_j r_j c'_j)
//                                    + constant + amplitude sum_j m_j m'_j,  mean = k . dual
//
// The sums over j, parameters and tokens, are there where trials are of several sizes: m falls with
// a size by a power law, 1 at the least of all trials; c is 1 there and 0 at the most. The variance
// of a new trial is the law's posterior, the noise, and how far the mean moves with the kernel's
// parameters (`roots_MT`: of their covariance). What needs the trials' covariance is made once.
//
// N: trials. P = D + 3 parameters: log lengths, logit of the power, log variance, log noise; then
// four of the sizes.

LAW_KINDS.gaussian_process = gaussianLaw;

const [SHIFT, CONSTANT, JITTER, AMPLITUDE] = [1e-9, 10, 1e-8, 100];

function gaussianLaw(plain) {
  const M = plain.powers_M.length;
  const D = plain.lengths_MD.length / M;
  const logWeight = (share) => Math.log(Math.max(share, 0) + SHIFT);
  const logs = Float64Array.from(plain.weights_ND, logWeight);
  const processes = Array.from({ length: M }, (_, m) => gaussianProcess(plain, m, logs, D));
  const each = (w, find) => {
    const own = Float64Array.from(w, logWeight);
    return Float64Array.from(processes, (process) => find(process, own));
  };
  function prepare() {
    const next = processes.find((process) => !process.isPrepared());
    if (next) next.prepare();
    return next !== undefined;
  }
  return {
    means: (w) => each(w, (process, own) => process.mean(own)),
    stds: (w) => each(w, (process, own) => process.std(own)),
    prepare,
  };
}

function gaussianProcess(plain, m, logs, D) {
  const N = logs.length / D;
  const lengths = plain.lengths_MD.subarray(m * D, m * D + D);
  const duals = Float64Array.from(plain.duals_MN.subarray(m * N, m * N + N));
  const [power, variance, noise] = [plain.powers_M[m], plain.variances_M[m], plain.noises_M[m]];
  const [mean, unit] = [plain.means_M[m], plain.units_M[m]];
  const jittered = noise + JITTER * (variance + 1);
  const trials = warpedTrials(logs, power, lengths, N, D);
  const { rows, middle, squares } = trials;
  const sizes = plain.sizes ? severalSizes(plain.sizes, m, variance, duals) : oneSize(duals);
  const asked = sizes.side(-1); // of all mixtures that are asked for; trial n has side(n)
  const P = D + 3 + sizes.parameters;
  let prepared = null;

  // How alike a mixture is to each trial, and the slope of that by the squared distance.
  function near(own) {
    const scaled = Float64Array.from(own, (log, d) => Math.exp(power * log) / lengths[d] - middle[d]);
    const square = squared(scaled);
    const [alike, slope] = [timesRows(rows, scaled, N), new Float64Array(N)];
    for (let n = 0; n < N; n++) {
      const distance = Math.sqrt(5 * Math.max(squares[n] + square - 2 * alike[n], 0));
      const decay = Math.exp(-distance); // Matern 5/2
      alike[n] = (1 + distance + (distance * distance) / 3) * decay;
      slope[n] = (-5 / 6) * (1 + distance) * decay;
    }
    return { own, scaled, alike, slope };
  }

  // The derivative of k . dual by the parameters at one side's mixture and size.
  function pushForward({ own, scaled, alike, slope }, side) {
    const moved = new Float64Array(P);
    const [first, second, third] = [new Float64Array(D), new Float64Array(D), new Float64Array(D)];
    let [total, byPower] = [0, 0];
    for (let n = 0; n < N; n++) {
      const pull = variance * slope[n] * side.duals[n];
      total += pull;
      byPower += pull * trials.turnSums[n];
      for (let d = 0, i = n * D; d < D; d++, i++) {
        first[d] += pull * rows[i];
        second[d] += pull * rows[i] * rows[i];
        third[d] += pull * (rows[i] + middle[d]) * logs[i];
      }
    }
    for (let d = 0; d < D; d++) {
      const turn = (scaled[d] + middle[d]) * own[d]; // of z by the power
      moved[d] = -2 * (scaled[d] * scaled[d] * total - 2 * scaled[d] * first[d] + second[d]);
      byPower += scaled[d] * turn * total - scaled[d] * third[d] - turn * first[d];
    }
    moved[D] = 2 * power * (1 - power) * byPower;
    moved[D + 1] = variance * dot(alike, side.duals);
    sizes.pushForward(alike, side, moved.subarray(D + 3));
    return moved;
  }

  function prepare() {
    const factor = new Float64Array(triangle(N));
    const solved = new Float64Array(N * P);
    for (let n = 0; n < N; n++) {
      const at = near(logs.subarray(n * D, n * D + D));
      const side = sizes.side(n);
      for (let k = 0; k <= n; k++) factor[triangle(n) + k] = variance * at.alike[k] * side.shared(k) + side.added(k);
      factor[triangle(n) + n] += jittered;
      const moved = pushForward(at, side);
      moved[D + 1] += JITTER * variance * duals[n];
      moved[D + 2] = noise * duals[n];
      solved.set(moved, n * P);
    }
    factorise(factor, N);
    solve(factor, solved, N, P, true);
    for (let n = 0; n < N; n++) solved.set(timesRoot(solved.slice(n * P, n * P + P), plain.roots_MT, m), n * P);
    prepared = { factor, solved };
  }

  function std(own) {
    if (prepared === null) prepare();
    const at = near(own);
    const known = at.alike.map((alike, n) => variance * alike * asked.shared(n) + asked.added(n));
    const unsure = timesRoot(pushForward(at, asked), plain.roots_MT, m);
    for (let n = 0, i = 0; n < N; n++) for (let p = 0; p < P; p++) unsure[p] -= known[n] * prepared.solved[i++];
    solve(prepared.factor, known, N, 1);
    const left = Math.max(asked.height(variance) - squared(known), 0);
    return unit * Math.sqrt(left + jittered + squared(unsure));
  }

  return {
    mean: (own) => mean + unit * (variance * dot(near(own).alike, asked.duals) + asked.level),
    std,
    prepare,
    isPrepared: () => prepared !== null,
  };
}

// Trials as the kernel takes them, centred: smaller numbers cancel less.
function warpedTrials(logs, power, lengths, N, D) {
  const rows = logs.map((log, i) => Math.exp(power * log) / lengths[i % D]);
  const middle = new Float64Array(D);
  rows.forEach((value, i) => (middle[i % D] += value / N));
  const [squares, turnSums] = [new Float64Array(N), new Float64Array(N)];
  for (let i = 0; i < N * D; i++) {
    const [n, d] = [Math.floor(i / D), i % D];
    rows[i] -= middle[d];
    squares[n] += rows[i] * rows[i];
    turnSums[n] += rows[i] * (rows[i] + middle[d]) * logs[i]; // of z times its change by the power
  }
  return { rows, middle, squares, turnSums };
}

// What trials of one size add to the kernel. `side(n)` is trial n as one side of the kernel, or what
// is asked for where n is -1: `shared(k)` and `added(k)` are the parts of the kernel with trial k.
function oneSize(duals) {
  const level = CONSTANT * duals.reduce((a, b) => a + b, 0);
  const only = { duals, level, shared: () => 1, added: () => CONSTANT, height: (variance) => variance + CONSTANT };
  return { parameters: 0, side: () => only, pushForward: () => {} };
}

function severalSizes(plain, m, variance, duals) {
  const [exponents, ratios] = [plain.exponents_M2, plain.changes_M2].map((all) => all.subarray(2 * m, 2 * m + 2));
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
    const adding = (other) => CONSTANT + AMPLITUDE * both((j) => own.falls[j] * other.falls[j]);
    const shared = (k) => sharing(every[k]);
    const added = (k) => adding(every[k]);
    const level = duals.reduce((sum, dual, k) => sum + dual * added(k), 0);
    const height = () => variance * sharing(own) + adding(own); // its variance before any trial
    return { own, duals: duals.map((dual, k) => dual * shared(k)), level, shared, added, height };
  }

  // The derivative of k . dual by the logarithms of the ratios, then of the exponents.
  function pushForward(alike, { own }, moved) {
    const pulls = alike.map((value, n) => value * duals[n]);
    const [changed, changedByLog] = [weighted("changes", pulls), weighted("changesByLog", pulls)];
    for (let j = 0; j < 2; j++) {
      const effect = variance * ratios[j];
      moved[j] = effect * own.changes[j] * changed[j];
      moved[2 + j] = effect * (own.changesByLog[j] * changed[j] + own.changes[j] * changedByLog[j])
        + AMPLITUDE * (own.fallsByLog[j] * fallen[j] + own.falls[j] * fallenByLog[j]);
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
