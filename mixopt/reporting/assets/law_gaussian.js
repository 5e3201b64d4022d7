// Gaussian processes, one for each loss, on weights that are warped by a power.
//
//   z_d = (w_d + 1e-9)^p / l_d,  k = s Matern52(|z - z'|) + constant,  mean = k . dual
//
// The variance of a new trial is the law's posterior, the noise, and how far the mean moves with the
// kernel's parameters (`roots_MT`: of their covariance). What needs the trials' covariance is made
// once.
//
// N: trials. P = D + 3 parameters: log lengths, logit of the power, log variance, log noise.

LAW_KINDS.gaussian_process = gaussianLaw;

const SHIFT = 1e-9;
const CONSTANT = 10;
const JITTER = 1e-8;

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
  const power = plain.powers_M[m];
  const variance = plain.variances_M[m];
  const noise = plain.noises_M[m];
  const mean = plain.means_M[m];
  const unit = plain.units_M[m];
  const jittered = noise + JITTER * (variance + 1);
  const trials = warpedTrials(logs, power, lengths, N, D);
  const { rows, middle, squares } = trials;
  const level = CONSTANT * duals.reduce((a, b) => a + b, 0);
  const P = D + 3;
  let prepared = null;

  // Similarity of a mixture to each trial, and its derivative by the squared distance.
  function near(own) {
    const scaled = Float64Array.from(own, (log, d) => Math.exp(power * log) / lengths[d] - middle[d]);
    const square = squared(scaled);
    const alike = timesRows(rows, scaled, N);
    const slope = new Float64Array(N);
    for (let n = 0; n < N; n++) {
      const distance = Math.sqrt(5 * Math.max(squares[n] + square - 2 * alike[n], 0));
      const decay = Math.exp(-distance); // Matern 5/2
      alike[n] = (1 + distance + (distance * distance) / 3) * decay;
      slope[n] = (-5 / 6) * (1 + distance) * decay;
    }
    return { own, scaled, alike, slope };
  }

  // The derivative of k . dual by the parameters at one mixture.
  function pushForward({ own, scaled, alike, slope }) {
    const moved = new Float64Array(P);
    const first = new Float64Array(D);
    const second = new Float64Array(D);
    const third = new Float64Array(D);
    let total = 0;
    let byPower = 0;
    for (let n = 0; n < N; n++) {
      const pull = variance * slope[n] * duals[n];
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
    moved[D + 1] = variance * dot(alike, duals);
    return moved;
  }

  function prepare() {
    const factor = new Float64Array(triangle(N));
    const solved = new Float64Array(N * P);
    for (let n = 0; n < N; n++) {
      const at = near(logs.subarray(n * D, n * D + D));
      for (let k = 0; k <= n; k++) factor[triangle(n) + k] = variance * at.alike[k] + CONSTANT;
      factor[triangle(n) + n] += jittered;
      const moved = pushForward(at);
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
    const known = at.alike.map((alike) => variance * alike + CONSTANT);
    const unsure = timesRoot(pushForward(at), plain.roots_MT, m);
    for (let n = 0, i = 0; n < N; n++) for (let p = 0; p < P; p++) unsure[p] -= known[n] * prepared.solved[i++];
    solve(prepared.factor, known, N, 1);
    const left = Math.max(variance + CONSTANT - squared(known), 0);
    return unit * Math.sqrt(left + jittered + squared(unsure));
  }

  return {
    mean: (own) => mean + unit * (variance * dot(near(own).alike, duals) + level),
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
  const squares = new Float64Array(N);
  const turnSums = new Float64Array(N);
  for (let i = 0; i < N * D; i++) {
    const n = Math.floor(i / D);
    const d = i % D;
    rows[i] -= middle[d];
    squares[n] += rows[i] * rows[i];
    turnSums[n] += rows[i] * (rows[i] + middle[d]) * logs[i]; // of z times its change by the power
  }
  return { rows, middle, squares, turnSums };
}
