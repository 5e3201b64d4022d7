// A model carried to another size by a few runs there: a line for each loss, and what lines leave.
//
//   y = slope (f - middle) + middle + spread level + spread r(w)
//
// f is what the inner model predicts, r a Gaussian process of the mixture on w^0.35. An objective
// has a residual of its own, so its pieces are columns behind the losses (`aimedModel`).
//
// K: runs. M: losses. P: pieces.

Object.assign(MODEL_KINDS, { corrected: correctedModel, aimed: aimedModel });

const PILOT_WARP = 0.35;
const PILOT_SHIFT = 1e-6;
const PILOT_STEEPEST = 1e-4; // below this weight the warp's slope counts as it is here
const PILOT_LEAST = 0.25; // of what is typical: a deviation is not believed to be less

function correctedModel(plain) {
  return correctedOver(makeModel(plain.model), plain);
}

function correctedOver(inner, plain) {
  const { spread_M: spread, sigma_M: sigma, typical_M: typical } = plain;
  const M = sigma.length;
  const lines = pilotLines(plain.lines);
  const kernel = plain.kernel && pilotKernel(plain.kernel);

  function means(w, wanted) {
    const found = lines.carry(inner.means(w, wanted));
    if (!kernel) return found;
    const residual = kernel.times(kernel.alike(w));
    return found.map((mean, m) => mean + spread[m] * residual[m]);
  }

  function slopes(w, wanted) {
    const found = lines.slopes(inner.slopes(w, wanted));
    if (!kernel) return found;
    const residual = kernel.slopes(w);
    return found.map((slope, i) => slope + spread[Math.floor(i / w.length)] * residual[i]);
  }

  function stds(w, wanted) {
    const own = inner.stds(w, wanted.map((one, m) => one && typical[m] > 0));
    const columns = inner.means(w).map((value, m) => (value - plain.lines.middle_M[m]) / spread[m]);
    const { left, solved } = kernel ? kernel.left(w) : { left: 0, solved: [] };
    return Float64Array.from(sigma, (std, m) => {
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

  return { means, slopes: inner.slopes && slopes, stds, prepare: inner.prepare };
}

// Lines from the losses that a model predicts to those at the other size.
function pilotLines({ slopes_M: slopes, middle_M: middle, levels_M: levels }) {
  return {
    carry: (means) => means.map((mean, m) => slopes[m] * (mean - middle[m]) + middle[m] + levels[m]),
    slopes: (found) => {
      const D = found.length / slopes.length;
      return found.map((slope, i) => slopes[Math.floor(i / D)] * slope);
    },
  };
}

// How alike residuals are at a mixture and at the runs; `dual` has as many columns as values.
function pilotKernel({ weights_KD: weights, length, ratio, inverse_KK: inverse, dual }) {
  const K = Math.sqrt(inverse.length);
  const D = weights.length / K;
  const width = dual.length / K;
  const warp = (share) => (Math.max(share, 0) + PILOT_SHIFT) ** PILOT_WARP;
  const rows = Float64Array.from(weights, warp);

  function distances(w) {
    const own = Float64Array.from(w, warp);
    return Float64Array.from({ length: K }, (_, k) => {
      let square = 0;
      for (let d = 0; d < D; d++) square += (own[d] - rows[k * D + d]) ** 2;
      return Math.sqrt(5 * square) / length;
    });
  }

  const alike = (w) => distances(w).map((r) => ratio * (1 + r + (r * r) / 3) * Math.exp(-r));

  function times(values) {
    const found = new Float64Array(width);
    values.forEach((value, k) => {
      for (let m = 0; m < width; m++) found[m] += value * dual[k * width + m];
    });
    return found;
  }

  function slopes(w) {
    const found = new Float64Array(width * D);
    const slopeOfWarp = (share) =>
      PILOT_WARP * (Math.max(share, PILOT_STEEPEST) + PILOT_SHIFT) ** (PILOT_WARP - 1);
    distances(w).forEach((r, k) => {
      const pull = ((-5 / 3) * (1 + r) * Math.exp(-r) * ratio) / length ** 2;
      for (let d = 0; d < D; d++) {
        const part = pull * (warp(w[d]) - rows[k * D + d]) * slopeOfWarp(w[d]);
        for (let m = 0; m < width; m++) found[m * D + d] += dual[k * width + m] * part;
      }
    });
    return found;
  }

  // The residual's variance that the runs leave, over the noise's, and K^-1 k.
  function left(w) {
    const values = alike(w);
    const solved = Float64Array.from(values, (_, k) => dotRow(inverse, k, values));
    return { left: Math.max(ratio - dotRow(values, 0, solved), 0), solved, values };
  }

  return { alike, times, slopes, left, ratio };
}

function aimedModel(plain) {
  const inner = makeModel(plain.corrected.model);
  const corrected = correctedOver(inner, plain.corrected);
  const lines = pilotLines(plain.lines);
  const kernel = pilotKernel(plain.kernel);
  const { pieces_PM: pieces, spread, level, sigma, typical } = plain;
  const M = plain.lines.slopes_M.length;
  const P = pieces.length / M;
  const joined = (left, right) => Float64Array.from([...left, ...right]);
  const places = Array.from({ length: P }, (_, p) => p);
  const piece = (p, m) => pieces[p * M + m];

  function means(w, wanted) {
    const carried = lines.carry(inner.means(w, innerWanted(wanted)));
    const shift = spread * (level + kernel.times(kernel.alike(w))[0]);
    return joined(corrected.means(w, wanted), places.map((p) => dotRow(pieces, p, carried) + shift));
  }

  function slopes(w, wanted) {
    const carried = lines.slopes(inner.slopes(w, innerWanted(wanted)));
    const residual = kernel.slopes(w);
    const D = w.length;
    const found = Float64Array.from({ length: P * D }, (_, i) => spread * residual[i % D]);
    for (let p = 0; p < P; p++) {
      for (let i = 0; i < M * D; i++) {
        found[p * D + (i % D)] += piece(p, Math.floor(i / D)) * carried[i];
      }
    }
    return joined(corrected.slopes(w, wanted), found);
  }

  // Wider where the model is less sure than is typical of it.
  function objectiveStd(w, own) {
    const { values, left } = kernel.left(w);
    const open = 1 - dotRow(values, 0, plain.totals_K);
    const variance = 1 + left + open ** 2 / plain.total;
    const { slopes_M } = plain.lines;
    const spreadOf = (p) =>
      own.reduce((sum, std, m) => sum + Math.abs(piece(p, m) * slopes_M[m]) * std, 0);
    const most = Math.max(...places.map(spreadOf));
    const beyond = typical > 0 ? Math.max(most ** 2 - typical ** 2, 0) : 0;
    return Math.sqrt((sigma ** 2 * variance) / (1 + kernel.ratio) + beyond);
  }

  function innerWanted(wanted) {
    if (!wanted) return wanted;
    const forPiece = (m) => places.some((p) => wanted[M + p] && piece(p, m) !== 0);
    return Uint8Array.from({ length: M }, (_, m) => wanted[m] || forPiece(m));
  }

  function stds(w, wanted) {
    const whole = objectiveStd(w, inner.stds(w, innerWanted(wanted)));
    return joined(corrected.stds(w, wanted.slice(0, M)), places.map(() => whole));
  }

  const prepare = (wanted) => inner.prepare(innerWanted(wanted));
  return { means, slopes: inner.slopes && slopes, stds, prepare };
}
