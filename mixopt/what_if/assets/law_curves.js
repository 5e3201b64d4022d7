// Power means of heights: the power law, a mean for each loss, and the law of shared skills.
//
// Standard deviations are by the delta method: noise * sqrt(1 + j' C j), where j is the slope
// of the loss by the parameters and C = L L', given as the lower triangle L row by row; the power
// law's C is instead made of the trials, as the fit did.

Object.assign(MODEL_KINDS, { power: powerModel, skills: skillsModel });

// Power means of heights: exp(min(log, 30)) with log = -g (log(w . terms) + top).
function powerMeans(logs, logDecays) {
  const K = logDecays.length;
  const D = logs.length / K;
  const decays = Float64Array.from(logDecays, Math.exp);
  const tops = new Float64Array(K).fill(-Infinity);
  const terms = new Float64Array(K * D);
  for (let i = 0; i < K * D; i++) {
    const k = Math.floor(i / D);
    tops[k] = Math.max(tops[k], -logs[i] / decays[k]);
  }
  for (let i = 0; i < K * D; i++) {
    const k = Math.floor(i / D);
    terms[i] = Math.exp(-logs[i] / decays[k] - tops[k]);
  }

  // Means and slopes of a mixture share this.
  const at = rememberedLast((w) => {
    const sums = new Float64Array(K);
    const heights = new Float64Array(K);
    const logHeights = new Float64Array(K);
    timesRows(terms, w, sums);
    for (let k = 0; k < K; k++) {
      sums[k] += 1e-300;
      logHeights[k] = -decays[k] * (Math.log(sums[k]) + tops[k]);
      heights[k] = Math.exp(Math.min(logHeights[k], 30));
    }
    return { sums, heights, logHeights };
  });

  return { K, D, decays, tops, terms, at };
}

function powerModel(plain) {
  const means = powerMeans(plain.logs_MD, plain.log_decays_M);
  const { K: M, D, decays, terms } = means;
  const { floors_M: floors, scales_M: scales, noise_M: noise } = plain;
  const curvatures = plain.heights_M && powerCurvatures(plain, means);
  const roots = [];

  // j' C j of a loss's parameters.
  function leverageOf(m, j) {
    if (curvatures) {
      solveLower(curvatures.factor(m), j, D + 2);
      return squared(j);
    }
    roots[m] ??= wholeRoot(plain, m, D + 2);
    return squared(timesLower(j, roots[m]));
  }

  function slopes(w, wanted) {
    const { sums, heights } = means.at(w);
    const found = new Float64Array(M * D);
    for (let m = 0; m < M; m++) {
      if (!isWanted(wanted, m)) continue;
      const factor = (-scales[m] * decays[m] * heights[m]) / sums[m];
      for (let d = 0, i = m * D; d < D; d++, i++) found[i] = factor * terms[i];
    }
    return found;
  }

  function stds(w, wanted) {
    const { sums, heights, logHeights } = means.at(w);
    const found = new Float64Array(M);
    const j = new Float64Array(D + 2); // by floor, log decay, logs of the heights
    for (let m = 0; m < M; m++) {
      if (!wanted[m]) continue;
      let turned = 0;
      for (let d = 0, i = m * D; d < D; d++, i++) {
        j[d + 2] = (w[d] * terms[i] * heights[m]) / sums[m];
        turned += j[d + 2] * plain.logs_MD[i];
      }
      j[0] = 1;
      j[1] = heights[m] * logHeights[m] - turned;
      const leverage = leverageOf(m, j);
      found[m] = noise[m] * Math.sqrt(1 + leverage);
    }
    return found;
  }

  return {
    means: (w) => means.at(w).heights.map((height, m) => floors[m] + scales[m] * height),
    slopes,
    stds,
    prepare: curvatures ? curvatures.prepare : nothingToPrepare,
  };
}

// Cholesky factors of what trials and prior say of each loss's parameters, which is the inverse of
// their covariance: J' T J and the prior's part (mixopt_regressors.laws.power_fit). J has a row for
// each trial, the slope by floor, log decay and logs; T is how far trials are believed, 1 for all
// but the `doubted`; the prior is on the log decay, and on logs that are apart from their mean.
function powerCurvatures(plain, means) {
  const { K: M, D, decays, terms } = means;
  const N = plain.weights_ND.length / D;
  const P = D + 2;
  const trusts = new Map(Array.from(plain.doubted, (place, i) => [place, plain.trusts[i]]));
  const rows = Array.from({ length: N }, (_, n) => plain.weights_ND.subarray(n * D, n * D + D));
  const factors = [];

  // The slope of a loss by its parameters at a trial, into j.
  function slopeAt(w, m, j) {
    let sum = 1e-300;
    for (let d = 0; d < D; d++) sum += w[d] * terms[m * D + d];
    const log = -decays[m] * (Math.log(sum) + means.tops[m]);
    const height = Math.exp(Math.min(log, 30));
    let turned = 0;
    for (let d = 0; d < D; d++) {
      j[d + 2] = (w[d] * terms[m * D + d] * height) / sum;
      turned += j[d + 2] * plain.logs_MD[m * D + d];
    }
    j[0] = 1;
    j[1] = height * log - turned;
  }

  function addPrior(lower, m) {
    const logs = plain.logs_MD.subarray(m * D, m * D + D);
    const mean = logs.reduce((sum, log) => sum + log, 0) / D;
    const [height, penalty] = [plain.heights_M[m], plain.penalty];
    const square = penalty * height * height;
    lower[0] += penalty * squared(logs.map((log) => log - mean));
    lower[triangle(1) + 1] += penalty;
    for (let d = 0; d < D; d++) {
      const row = triangle(d + 2);
      lower[row] -= penalty * height * (logs[d] - mean);
      lower[row + d + 2] += square;
      for (let e = 0; e <= d; e++) lower[row + e + 2] -= square / D;
    }
  }

  function factor(m) {
    if (factors[m]) return factors[m];
    const lower = new Float64Array(triangle(P));
    const j = new Float64Array(P);
    for (let n = 0; n < N; n++) {
      slopeAt(rows[n], m, j);
      const trust = trusts.get(m * N + n) ?? 1;
      for (let p = 0, i = 0; p < P; p++) {
        const part = trust * j[p];
        for (let q = 0; q <= p; q++) lower[i++] += part * j[q];
      }
    }
    addPrior(lower, m);
    factorise(lower, P);
    return (factors[m] = lower);
  }

  return {
    factor,
    prepare(wanted) {
      for (let m = 0; m < M; m++) if (wanted[m] && !factors[m]) return factor(m), true;
      return false;
    },
  };
}

// Power means that all losses share, each loss with loads of its own.
function skillsModel(plain) {
  const means = powerMeans(plain.logs_UD, plain.log_decays_U);
  const { K: U, D, decays, terms } = means;
  const { floors_M: floors, scales_M: scales, noise_M: noise, loads_MU: loads } = plain;
  const M = floors.length;

  function losses(w, wanted) {
    const { heights } = means.at(w);
    const found = new Float64Array(M);
    for (let m = 0; m < M; m++) {
      if (isWanted(wanted, m)) found[m] = floors[m] + scales[m] * dotRow(loads, m, heights);
    }
    return found;
  }

  function slopes(w, wanted) {
    const { sums, heights } = means.at(w);
    const found = new Float64Array(M * D);
    const factors = new Float64Array(U);
    for (let m = 0; m < M; m++) {
      if (!isWanted(wanted, m)) continue;
      for (let u = 0; u < U; u++) {
        factors[u] = (-scales[m] * loads[m * U + u] * decays[u] * heights[u]) / sums[u];
      }
      addRows(terms, factors, found.subarray(m * D, m * D + D));
    }
    return found;
  }

  function stds(w) {
    const j = [1, ...means.at(w).heights];
    const { inverse_T: inverse, root_T: root } = plain;
    const leverage = root ? squared(timesLower(j, root)) : quadratic(inverse, 0, j);
    return noise.map((std) => std * Math.sqrt(1 + Math.max(leverage, 0)));
  }

  return { means: losses, slopes, stds, prepare: nothingToPrepare };
}
