// Gaussian processes, one for each loss, on weights that are warped by a power.
//
//   z_d = (w_d + 1e-9)^p / l_d,  k = s Matern52(|z - z'|) + constant,  mean = k . dual
//
// The variance of a new trial is the law's posterior, the noise, and how far the mean moves with
// the kernel's parameters (`root`: of their covariance). What needs the trials' covariance is made
// once for each loss, when a deviation is asked for: a Cholesky factor, packed row by row. With
// trials of several sizes the kernel has further terms (law_scale.js).
//
// N: trials. P = D + 3 parameters: log lengths, logit of the power, log variance, log noise; then
// four of the sizes.

MODEL_KINDS.gaussian_process = gaussianModel;

const GAUSSIAN_SHIFT = 1e-9;
const GAUSSIAN_CONSTANT = 10;
const GAUSSIAN_JITTER = 1e-8;
const GAUSSIAN_STEEPEST = 1e-4; // below this weight the warp's slope counts as it is here

const logWeight = (share) => Math.log(Math.max(share, 0) + GAUSSIAN_SHIFT);

function gaussianModel(plain) {
  const M = plain.powers_M.length;
  const D = plain.lengths_MD.length / M;
  const N = plain.weights_ND.length / D;
  const logs = Float64Array.from(plain.weights_ND, logWeight);
  const targets = Array.from({ length: M }, (_, m) => gaussianTarget(plain, m, logs, N, D));
  // Means, slopes and deviations of a mixture share most of the work.
  const at = rememberedLast((w) => {
    const own = Float64Array.from(w, logWeight);
    const nears = [];
    return (m) => (nears[m] ??= targets[m].at(own));
  });
  const each = (wanted, find) =>
    Float64Array.from(targets, (target, m) => (!wanted || wanted[m] ? find(target, m) : 0));

  function slopes(w, wanted) {
    const steep = Float64Array.from(w, (share) => logWeight(Math.max(share, GAUSSIAN_STEEPEST)));
    const found = new Float64Array(M * D);
    const near = at(w);
    targets.forEach((target, m) => {
      if (!wanted || wanted[m]) target.slopes(near(m), steep, found.subarray(m * D, m * D + D));
    });
    return found;
  }

  return {
    means: (w, wanted) => each(wanted, (target, m) => target.mean(at(w)(m))),
    slopes,
    stds: (w, wanted) => each(wanted, (target, m) => target.std(at(w)(m))),
    prepare: (wanted) => {
      const next = targets.find((target, m) => wanted[m] && !target.isPrepared());
      if (next) next.prepare();
      return next !== undefined;
    },
  };
}

function gaussianTarget(plain, m, logs, N, D) {
  const lengths = plain.lengths_MD.subarray(m * D, m * D + D);
  const dualUnit = plain.dual_units_M[m];
  const duals = Float64Array.from(plain.duals_MN.subarray(m * N, m * N + N), (n) => n * dualUnit);
  const [power, variance, noise] = [plain.powers_M[m], plain.variances_M[m], plain.noises_M[m]];
  const [mean, unit] = [plain.means_M[m], plain.units_M[m]];
  const jittered = noise + GAUSSIAN_JITTER * (variance + 1);
  const trials = warpedTrials(logs, power, lengths, N, D);
  const { rows, middle, squares } = trials;
  const sum = plain.dual_sums_M[m];
  const sizes = plain.sizes ? scaledTerms(plain.sizes, m, variance, duals) : oneSize(duals, sum);
  const asked = sizes.side(-1); // of all mixtures that are asked for; trial n has side(n)
  const P = D + 3 + sizes.parameters;
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
    timesRows(rows, scaled, near.alike);
    for (let n = 0; n < N; n++) {
      matern(Math.max(squares[n] + square - 2 * near.alike[n], 0), near, n);
    }
    return near;
  }

  function meanAt({ alike }) {
    return mean + unit * (variance * dotRow(alike, 0, asked.duals) + asked.level);
  }

  function slopes({ scaled, slope }, steep, found) {
    let total = 0;
    const pulls = new Float64Array(N);
    for (let n = 0; n < N; n++) {
      pulls[n] = -2 * variance * slope[n] * asked.duals[n];
      total -= pulls[n];
    }
    addRows(rows, pulls, found);
    for (let d = 0; d < D; d++) {
      const steepness = (power * Math.exp((power - 1) * steep[d])) / lengths[d];
      found[d] = unit * (found[d] + total * scaled[d]) * steepness;
    }
  }

  // The derivative of k . dual by the parameters at one side's mixture and size.
  function pushForward({ own, scaled, alike, slope }, side, moved) {
    const turnSums = trials.turnSums();
    const [first, second, third] = [new Float64Array(D), new Float64Array(D), new Float64Array(D)];
    let [total, byPower] = [0, 0];
    const pulls = new Float64Array(N);
    for (let n = 0; n < N; n++) {
      pulls[n] = variance * slope[n] * side.duals[n];
      total += pulls[n];
      byPower += pulls[n] * turnSums[n];
    }
    addPulled(trials, logs, pulls, [first, second, third]);
    for (let d = 0; d < D; d++) {
      const turn = (scaled[d] + middle[d]) * own[d]; // of z by the power
      moved[d] = -2 * (scaled[d] * scaled[d] * total - 2 * scaled[d] * first[d] + second[d]);
      byPower += scaled[d] * turn * total - scaled[d] * third[d] - turn * first[d];
    }
    moved[D] = 2 * power * (1 - power) * byPower;
    moved[D + 1] = variance * dotRow(alike, 0, side.duals);
    moved[D + 2] = 0;
    sizes.pushForward(alike, side, moved.subarray(D + 3));
  }

  function prepare() {
    const root = wholeRoot(plain, m, P);
    const factor = new Float64Array(triangle(N));
    const moved = new Float64Array(N * P);
    for (let n = 0; n < N; n++) {
      const near = at(logs.subarray(n * D, n * D + D));
      const side = sizes.side(n);
      const row = factor.subarray(triangle(n), triangle(n) + n + 1);
      row.forEach((_, k) => (row[k] = variance * near.alike[k] * side.shared(k) + side.added(k)));
      row[n] += jittered;
      const own = moved.subarray(n * P, n * P + P);
      pushForward(near, side, own);
      own[D + 1] += GAUSSIAN_JITTER * variance * duals[n];
      own[D + 2] = noise * duals[n];
    }
    factorise(factor, N);
    solveBoth(factor, moved, N, P);
    for (let n = 0; n < N; n++) {
      const row = moved.subarray(n * P, n * P + P);
      row.set(timesLower(row, root));
    }
    prepared = { root, factor, solved: moved };
  }

  function std(near) {
    if (prepared === null) prepare();
    const { root, factor, solved } = prepared;
    const known = near.alike.map((alike, n) => variance * alike * asked.shared(n) + asked.added(n));
    const moved = new Float64Array(P);
    pushForward(near, asked, moved);
    const unsure = timesLower(moved, root).map((value) => -value); // its square is what counts
    addRows(solved, known, unsure);
    solveLower(factor, known, N);
    const left = Math.max(asked.height(variance) - squared(known), 0);
    return unit * Math.sqrt(left + jittered + squared(unsure));
  }

  return { at, mean: meanAt, slopes, std, prepare, isPrepared: () => prepared !== null };
}

// Matern 5/2 of a squared distance, and its slope by that.
function matern(square, near, n) {
  const distance = Math.sqrt(5 * square);
  const decay = Math.exp(-distance);
  near.alike[n] = (1 + distance + (distance * distance) / 3) * decay;
  near.slope[n] = (-5 / 6) * (1 + distance) * decay;
}

// Trials as the kernel takes them, centred: smaller numbers cancel less. What a change of the power
// moves is needed for deviations alone.
function warpedTrials(logs, power, lengths, N, D) {
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

  // The sum over the domains of z times its change by the power, of each trial.
  let sums = null;
  function turnSums() {
    if (sums) return sums;
    sums = new Float64Array(N);
    for (let i = 0; i < N * D; i++) {
      sums[Math.floor(i / D)] += rows[i] * (rows[i] + middle[i % D]) * logs[i];
    }
    return sums;
  }

  return { rows, middle, squares, turnSums };
}

// Add sums over the trials, each times its factor: of z, its square, and its change by the power.
// Nothing is kept that a multiplication makes of `rows`: reading it from memory takes longer.
function addPulled({ rows, middle }, logs, factors, [first, second, third]) {
  const D = first.length;
  for (let n = 0; n < factors.length; n += 2) {
    const [at, isLast] = [n * D, n + 1 === factors.length];
    const next = isLast ? at : at + D; // two trials at once; a last one alone counts once
    const [a, b] = [factors[n], isLast ? 0 : factors[n + 1]];
    for (let d = 0; d < D; d++) {
      const z = rows[at + d];
      const y = rows[next + d];
      first[d] += a * z + b * y;
      second[d] += a * z * z + b * y * y;
      third[d] += a * (z + middle[d]) * logs[at + d] + b * (y + middle[d]) * logs[next + d];
    }
  }
}
