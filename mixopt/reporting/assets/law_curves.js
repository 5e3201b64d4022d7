// Laws of a formula: power means of domains' heights, shared by all losses, epochs, and phases.
//
// Standard deviations are by the delta method: noise * sqrt(1 + |L' j|^2), where j is the slope of
// the loss by the parameters, and `roots_MT` (one for all losses, or one each) is L.

Object.assign(LAW_KINDS, { skills: skillsLaw, epochs: epochsLaw, phases: phasesLaw });

const LARGEST_EXPONENT = 30;
const nothingToPrepare = () => false;

// Power means of heights: exp(min(log, 30)) with log = -g (log(w . terms) + top).
function powerMeans(logs, logDecays) {
  const K = logDecays.length;
  const D = logs.length / K;
  const decays = Float64Array.from(logDecays, Math.exp);
  const scaled = Float64Array.from(logs, (log, i) => -log / decays[Math.floor(i / D)]);
  const tops = Float64Array.from(decays, (_, k) => Math.max(...scaled.subarray(k * D, k * D + D)));
  const terms = scaled.map((value, i) => Math.exp(value - tops[Math.floor(i / D)]));

  return rememberLast((w) => {
    const sums = timesRows(terms, w, K).map((sum) => sum + 1e-300);
    const logHeights = sums.map((sum, k) => -decays[k] * (Math.log(sum) + tops[k]));
    const heights = logHeights.map((log) => Math.exp(Math.min(log, LARGEST_EXPONENT)));
    return { sums, heights, logHeights, terms };
  });
}

// Power means that all losses share, each loss with loads of its own.
function skillsLaw(plain) {
  const { floors_M: floors, scales_M: scales, noise_M: noise, loads_MU: loads } = plain;
  const at = powerMeans(plain.logs_UD, plain.log_decays_U);

  function stds(w) {
    const leverage = squared(timesRoot([1, ...at(w).heights], plain.roots_MT));
    return noise.map((std) => std * Math.sqrt(1 + leverage));
  }

  return {
    means: (w) => floors.map((floor, m) => floor + scales[m] * dotRow(loads, m, at(w).heights)),
    stds,
    prepare: nothingToPrepare,
  };
}

// Each domain's epochs lower a loss by a benefit that saturates, and raise it by a harm.
//
//   eta = p_0 + sum_d p_d expm1(-(rate E_d)^power) + sum_d p_(D+d) softplus(log(1 + E_d) - onset)^2
//
// The loss is eta, or a floor and exp(eta).
function epochsLaw(plain) {
  const { rates_D: rates, shapes_M3: shapes, scales_M: scales, floors, noise_M: noise } = plain;
  const D = rates.length;
  const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

  // 1, then what the coefficients multiply; eta; and the slope of the loss by eta.
  function at(w, m) {
    const [rate, power, onset] = shapes.subarray(3 * m, 3 * m + 3);
    const columns = new Float64Array(2 * D + 1).fill(1);
    for (let d = 0; d < D; d++) {
      const epochs = Math.max(w[d], 0) * rates[d];
      columns[1 + d] = Math.expm1(-((rate * epochs) ** power));
      columns[1 + D + d] = softplus(Math.log1p(epochs) - onset) ** 2;
    }
    const eta = dotRow(plain.parameters_MP, m, columns);
    const height = floors[m] === null ? 1 : Math.exp(Math.min(eta, LARGEST_EXPONENT));
    return { columns, eta, height };
  }

  function mean(w, m) {
    const { eta, height } = at(w, m);
    return scales[m] * (floors[m] === null ? eta : floors[m] + height);
  }

  function std(w, m) {
    const { columns, height } = at(w, m);
    const j = columns.map((column) => height * column);
    return noise[m] * Math.sqrt(1 + squared(timesRoot(j, plain.roots_MT, m)));
  }

  return {
    means: (w) => scales.map((_, m) => mean(w, m)),
    stds: (w) => scales.map((_, m) => std(w, m)),
    prepare: nothingToPrepare,
  };
}

// Losses of one ratio see one mixture: a token of a phase counts `ratio` times one of that before.
function phasesLaw({ phases, groups }) {
  const parts = groups.map(({ ratio, places, law }) => ({ ratio, places, law: lawOf(law) }));
  const M = parts.reduce((sum, { places }) => sum + places.length, 0);

  function seen(w, ratio) {
    const D = w.length / phases;
    const counted = new Float64Array(D);
    for (let cell = 0; cell < w.length; cell++) counted[cell % D] += ratio ** Math.floor(cell / D) * w[cell];
    const total = counted.reduce((sum, share) => sum + share, 0);
    return counted.map((share) => share / total);
  }

  const each = (w, find) => {
    const found = new Float64Array(M);
    for (const { ratio, places, law } of parts) {
      find(law, seen(w, ratio)).forEach((value, k) => { found[places[k]] = value; });
    }
    return found;
  };
  return {
    means: (w) => each(w, (law, own) => law.means(own)),
    stds: (w) => each(w, (law, own) => law.stds(own)),
    prepare: () => parts.some(({ law }) => law.prepare()),
  };
}
