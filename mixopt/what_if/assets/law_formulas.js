// Laws of one formula for each loss: linear, exponential, and that of epochs.

Object.assign(MODEL_KINDS, { linear: linearModel, log_linear: logLinearModel, epochs: epochsModel });

function linearModel(plain) {
  const { slopes_MD: slopes, means_M: means, noise_M: noise, center_D: center } = plain;
  const D = center.length;
  const away = (w) => Float64Array.from(center, (middle, d) => w[d] - middle);

  function losses(w) {
    const apart = away(w);
    return Float64Array.from(means, (mean, m) => mean + dotRow(slopes, m, apart));
  }

  function stds(w) {
    const leverage = quadratic(plain.inverse_T, 0, away(w));
    const factor = Math.sqrt(1 + 1 / plain.trials + Math.max(leverage, 0));
    return Float64Array.from(noise, (std) => factor * std);
  }

  return { means: losses, slopes: () => Float64Array.from(slopes), stds, prepare: nothingToPrepare };
}

// A floor and the exponential of a linear function, cut off at a top.
function logLinearModel(plain) {
  const { floors_M: floors, slopes_MD: slopes, scales_M: scales, tops_M: tops } = plain;
  const M = floors.length;
  const D = slopes.length / M;
  const excess = (w, m) => Math.exp(Math.min(dotRow(slopes, m, w), 30));
  const loss = (w, m) => Math.min(floors[m] + scales[m] * excess(w, m), tops[m]);

  function slopesAt(w) {
    const factors = Float64Array.from(floors, (_, m) => scales[m] * excess(w, m));
    return Float64Array.from(slopes, (slope, i) => slope * factors[Math.floor(i / D)]);
  }

  function std(w, m) {
    const height = excess(w, m);
    const j = Float64Array.from([1, ...w], (share, p) => (p === 0 ? 1 : share * height));
    const leverage = quadratic(plain.inverse_MT, m * triangle(D + 1), j);
    return plain.noise_M[m] * Math.sqrt(1 + Math.max(leverage, 0));
  }

  return {
    means: (w) => Float64Array.from(floors, (_, m) => loss(w, m)),
    slopes: slopesAt,
    stds: (w, wanted) => Float64Array.from(floors, (_, m) => (wanted[m] ? std(w, m) : 0)),
    prepare: nothingToPrepare,
  };
}

// Each domain's epochs lower a loss by a benefit that saturates, and raise it by a harm.
//
//   eta = p_0 + sum_d p_d expm1(-(rate E_d)^power) + sum_d p_(D+d) softplus(log(1 + E_d) - onset)^2
//
// The loss is eta, or a floor and exp(eta).
const EPOCHS_STEEPEST = 1e-4; // below this weight a benefit's slope is what it is here

function epochsModel(plain) {
  const { rates_D: rates, scales_M: scales, floors } = plain;
  const M = scales.length;
  const D = rates.length;
  const P = 2 * D + 1;
  const shape = (m) => plain.shapes_M3.subarray(m * 3, m * 3 + 3);
  const own = (m) => plain.parameters_MP.subarray(m * P, m * P + P);
  const epochs = (w, least) => Float64Array.from(rates, (rate, d) => Math.max(w[d], least) * rate);

  // 1, then what the coefficients multiply.
  function columns(m, E) {
    const [rate, power, onset] = shape(m);
    const found = new Float64Array(P).fill(1);
    for (let d = 0; d < D; d++) {
      found[1 + d] = Math.expm1(-((rate * E[d]) ** power));
      found[1 + D + d] = softplus(Math.log1p(E[d]) - onset) ** 2;
    }
    return found;
  }

  const height = (m, eta) => (floors[m] === null ? 1 : Math.exp(Math.min(eta, 30)));
  const eta = (m, E) => dotRow(own(m), 0, columns(m, E));
  const loss = (m, at) => scales[m] * (floors[m] === null ? at : floors[m] + height(m, at));

  function slopes(w) {
    const [E, steep] = [epochs(w, 0), epochs(w, EPOCHS_STEEPEST)];
    const found = new Float64Array(M * D);
    for (let m = 0; m < M; m++) {
      const factor = scales[m] * height(m, eta(m, E));
      for (let d = 0; d < D; d++) found[m * D + d] = factor * byEpochs(m, d, steep[d]) * rates[d];
    }
    return found;
  }

  function byEpochs(m, d, E) {
    const [rate, power, onset] = shape(m);
    const reached = (rate * E) ** power;
    const over = Math.log1p(E) - onset;
    const benefit = (-Math.exp(-reached) * power * reached) / E;
    const harm = (2 * softplus(over)) / (1 + Math.exp(-over)) / (1 + E);
    return own(m)[1 + d] * benefit + own(m)[1 + D + d] * harm;
  }

  function std(m, E) {
    const found = columns(m, E);
    const factor = height(m, dotRow(own(m), 0, found));
    const leverage = quadratic(plain.inverse_MT, m * triangle(P), found.map((x) => factor * x));
    return plain.noise_M[m] * Math.sqrt(1 + Math.max(leverage, 0));
  }

  return {
    means: (w) => Float64Array.from(scales, (_, m) => loss(m, eta(m, epochs(w, 0)))),
    slopes,
    stds: (w, wanted) => Float64Array.from(scales, (_, m) => (wanted[m] ? std(m, epochs(w, 0)) : 0)),
    prepare: nothingToPrepare,
  };
}

const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
