// Gaussian processes, one for each loss, on weights that are warped by a power.
//
//   z_d = (w_d + 1e-9)^p / l_d,  k = s Matern52(|z - z'|) + constant,  mean = k . dual
//
// The variance of a new trial is the law's posterior, the noise, and how far the mean moves with
// the kernel's parameters (`root`: of their covariance). What needs the trials' covariance is made
// once for each loss, when a deviation is asked for: a Cholesky factor, packed row by row.
//
// N: trials. P = D + 3 parameters: log lengths, logit of the power, log variance, log noise.

const GAUSSIAN_SHIFT = 1e-9;
const GAUSSIAN_CONSTANT = 10;
const GAUSSIAN_JITTER = 1e-8;
const GAUSSIAN_STEEPEST = 1e-4; // below this weight the warp's slope counts as it is here

function gaussianModel(plain) {
  const M = plain.powers_M.length;
  const D = plain.lengths_MD.length / M;
  const N = plain.weights_ND.length / D;
  const logs = Float64Array.from(plain.weights_ND, logWeight);
  const targets = Array.from({ length: M }, (_, m) => gaussianTarget(plain, m, logs, N, D));
  let last = { w: null, found: null };

  // Means, slopes and deviations are asked for the same mixture, and share the most of the work.
  function at(w) {
    if (last.w === null || w.some((share, d) => share !== last.w[d])) {
      const own = Float64Array.from(w, logWeight);
      last = { w: Float64Array.from(w), found: targets.map((target) => target.at(own)) };
    }
    return last.found;
  }

  function slopes(w) {
    const steep = Float64Array.from(w, (share) => logWeight(Math.max(share, GAUSSIAN_STEEPEST)));
    const found = new Float64Array(M * D);
    at(w).forEach((near, m) => targets[m].slopes(near, steep, found.subarray(m * D, m * D + D)));
    return found;
  }

  return {
    means: (w) => Float64Array.from(at(w), (near, m) => targets[m].mean(near)),
    slopes,
    stds: (w, wanted) =>
      Float64Array.from(at(w), (near, m) => (wanted[m] ? targets[m].std(near) : 0)),
    prepare: (wanted) => {
      const next = targets.find((target, m) => wanted[m] && !target.isPrepared());
      if (next) next.prepare();
      return next !== undefined;
    },
  };
}

const logWeight = (share) => Math.log(Math.max(share, 0) + GAUSSIAN_SHIFT);

function gaussianTarget(plain, m, logs, N, D) {
  const lengths = plain.lengths_MD.subarray(m * D, m * D + D);
  const duals = plain.duals_MN.subarray(m * N, m * N + N);
  const [power, variance, noise] = [plain.powers_M[m], plain.variances_M[m], plain.noises_M[m]];
  const [mean, unit] = [plain.means_M[m], plain.units_M[m]];
  const level = GAUSSIAN_CONSTANT * duals.reduce((sum, dual) => sum + dual, 0);
  const { rows, middle, squares } = centredRows(logs, power, lengths, N, D);
  let prepared = null;

  // How alike a mixture is to each trial, and the slope of that by the squared distance.
  function at(own) {
    const scaled = new Float64Array(D);
    let square = 0;
    for (let d = 0; d < D; d++) {
      scaled[d] = Math.exp(power * own[d]) / lengths[d] - middle[d];
      square += scaled[d] * scaled[d];
    }
    const near = { own, scaled, alike: new Float64Array(N), slope: new Float64Array(N) };
    for (let n = 0, i = 0; n < N; n++) {
      let product = 0;
      for (let d = 0; d < D; d++, i++) product += rows[i] * scaled[d];
      matern(Math.max(squares[n] + square - 2 * product, 0), near, n);
    }
    return near;
  }

  function meanAt({ alike }) {
    let sum = 0;
    for (let n = 0; n < N; n++) sum += alike[n] * duals[n];
    return mean + unit * (variance * sum + level);
  }

  function slopes({ scaled, slope }, steep, found) {
    let total = 0;
    for (let n = 0, i = 0; n < N; n++) {
      const pull = 2 * variance * slope[n] * duals[n];
      total += pull;
      for (let d = 0; d < D; d++, i++) found[d] -= pull * rows[i];
    }
    for (let d = 0; d < D; d++) {
      const steepness = (power * Math.exp((power - 1) * steep[d])) / lengths[d];
      found[d] = unit * (found[d] + total * scaled[d]) * steepness;
    }
  }

  // The derivative of k . dual by the parameters at one mixture, written to `moved`.
  function pushForward({ own, scaled, alike, slope }, moved) {
    const { rowTurns, sums } = turns();
    const [first, second, third] = [new Float64Array(D), new Float64Array(D), new Float64Array(D)];
    let [total, fourth, heights] = [0, 0, 0];
    for (let n = 0, i = 0; n < N; n++) {
      const pull = variance * slope[n] * duals[n];
      total += pull;
      fourth += pull * sums[n];
      heights += alike[n] * duals[n];
      for (let d = 0; d < D; d++, i++) {
        const part = pull * rows[i];
        first[d] += part;
        second[d] += part * rows[i];
        third[d] += pull * rowTurns[i];
      }
    }
    let byPower = fourth;
    for (let d = 0; d < D; d++) {
      const turn = (scaled[d] + middle[d]) * own[d]; // of z by the power
      moved[d] = -2 * (scaled[d] * scaled[d] * total - 2 * scaled[d] * first[d] + second[d]);
      byPower += scaled[d] * turn * total - scaled[d] * third[d] - turn * first[d];
    }
    moved[D] = 2 * power * (1 - power) * byPower;
    moved[D + 1] = variance * heights;
    moved[D + 2] = 0;
  }

  let foundTurns = null;
  function turns() {
    foundTurns ??= turnedRows(rows, middle, logs, N, D);
    return foundTurns;
  }

  function prepare() {
    const P = D + 3;
    const root = plain.roots_MPP.subarray(m * P * P, m * P * P + P * P);
    const factor = new Float64Array(triangle(N));
    const moved = new Float64Array(N * P);
    for (let n = 0; n < N; n++) {
      const near = at(logs.subarray(n * D, n * D + D));
      const row = factor.subarray(triangle(n), triangle(n) + n + 1);
      for (let k = 0; k <= n; k++) row[k] = variance * near.alike[k] + GAUSSIAN_CONSTANT;
      row[n] += jittered;
      const own = moved.subarray(n * P, n * P + P);
      pushForward(near, own);
      own[D + 1] += GAUSSIAN_JITTER * variance * duals[n];
      own[D + 2] = noise * duals[n];
    }
    factorise(factor, N);
    solveBoth(factor, moved, N, P);
    prepared = { P, root, factor, solved: rowsTimes(moved, root, N, P) };
  }

  const jittered = noise + GAUSSIAN_JITTER * (variance + 1);

  function std(near) {
    if (prepared === null) prepare();
    const { P, root, factor, solved } = prepared;
    const known = near.alike.map((alike) => variance * alike + GAUSSIAN_CONSTANT);
    const moved = new Float64Array(P);
    pushForward(near, moved);
    const unsure = rowsTimes(moved, root, 1, P);
    for (let n = 0, i = 0; n < N; n++) {
      for (let p = 0; p < P; p++, i++) unsure[p] -= known[n] * solved[i];
    }
    solveLower(factor, known, N);
    const left = Math.max(variance + GAUSSIAN_CONSTANT - squared(known), 0);
    return unit * Math.sqrt(left + jittered + squared(unsure));
  }

  return { at, mean: meanAt, slopes, std, prepare, isPrepared: () => prepared !== null };
}

const squared = (values) => values.reduce((sum, value) => sum + value * value, 0);

// Matern 5/2 of a squared distance, and its slope by that.
function matern(square, near, n) {
  const distance = Math.sqrt(5 * square);
  const decay = Math.exp(-distance);
  near.alike[n] = (1 + distance + (distance * distance) / 3) * decay;
  near.slope[n] = (-5 / 6) * (1 + distance) * decay;
}

// Trials as the kernel takes them, centred: smaller numbers cancel less.
function centredRows(logs, power, lengths, N, D) {
  const rows = new Float64Array(N * D);
  const middle = new Float64Array(D);
  for (let i = 0; i < N * D; i++) {
    rows[i] = Math.exp(power * logs[i]) / lengths[i % D];
    middle[i % D] += rows[i] / N;
  }
  const squares = new Float64Array(N);
  for (let i = 0; i < N * D; i++) {
    rows[i] -= middle[i % D];
    squares[Math.floor(i / D)] += rows[i] * rows[i];
  }
  return { rows, middle, squares };
}

// The derivative of each trial's row by the power, and its products with the row.
function turnedRows(rows, middle, logs, N, D) {
  const rowTurns = new Float64Array(N * D);
  const sums = new Float64Array(N);
  for (let i = 0; i < N * D; i++) {
    rowTurns[i] = (rows[i] + middle[i % D]) * logs[i];
    sums[Math.floor(i / D)] += rows[i] * rowTurns[i];
  }
  return { rowTurns, sums };
}
