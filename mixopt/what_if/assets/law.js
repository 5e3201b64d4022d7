// The fitted law in the browser: losses, slopes and intervals of any mixture, as Python has them.
//
// `makeLaw(data)` takes what `readWhatIf(text)` made of the embedded JSON. A law's model is made of
// kinds, each in a file beside this one (a page has those that its law is made of), and each with
// the same four functions:
//
//   means(w)          losses, Float64Array M
//   slopes(w)         slope of each loss by each weight, Float64Array M*D, row by row; null where
//                     the regressor has no gradient
//   stds(w, wanted)   standard deviations of a new trial
//   prepare(wanted)   does a little of what `stds` needs once; returns whether more is left
//
// `wanted`: Uint8Array M of the losses that are asked for; what is returned of others means nothing.
// The first two may be asked so too, and all is found where they are not.
//
// w: shares of the D domains, adding up to 1. M: losses. What is returned is the caller's to keep.

MODEL_KINDS.mean = meanModel;

const AT_ONCE = 4; // deviations between two looks at the clock

// Parse the embedded text: arrays are in a list of their own, each as base64 of little-endian
// numbers, and `{"$array": 3}` stands for the fourth.
function readWhatIf(text) {
  const packed = JSON.parse(text);
  const arrays = packed.arrays.map(unpackArray);
  return withArrays(packed.data, arrays);
}

const ARRAY_TYPES = { f8: Float64Array, f4: Float32Array, i2: Int16Array, i4: Int32Array };

function unpackArray(packed) {
  const characters = atob(packed.data);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return new ARRAY_TYPES[packed.type](bytes.buffer);
}

function withArrays(value, arrays) {
  if (Array.isArray(value)) return value.map((one) => withArrays(one, arrays));
  if (value === null || typeof value !== "object") return value;
  if (Object.hasOwn(value, "$array")) return arrays[value.$array];
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, withArrays(v, arrays)]));
}

// The law of a page's data, which must have `domains`, `targets`, `law` and `objective`.
function makeLaw(data) {
  const M = data.targets.length;
  const D = data.domains.length;
  const model = makeModel(data.law.model);
  const objective = makeObjective(data.objective.pieces);
  const columns = data.objective.pieces[0].length;
  const { factors, floors, locals, value: ofValue, agrees, reach } = data.law.intervals;
  const stretch = stretchBeyond(reach, D);
  const wanted = new Uint8Array(columns);
  for (let m = 0; m < M; m++) wanted[m] = locals[m];
  if (ofValue.local) objective.measured.forEach((c) => (wanted[c] = 1));
  const every = new Uint8Array(columns).fill(1);
  const means = rememberedLast(model.means);
  const slopes = model.slopes && rememberedLast(model.slopes);
  const wantedStds = rememberedLast((w) => model.stds(w, wanted));
  const half = (factor, floor, local, std) => factor * (local ? Math.max(std, floor) : 1);

  function losses(w) {
    const found = means(w).slice(0, M);
    if (agrees) found[agrees.column] = agrees.sign * law.value(w);
    return found;
  }

  function gradient(w) {
    const found = slopes(w).slice(0, M * D);
    if (!agrees) return found;
    law.valueGradient(w).forEach((slope, d) => (found[agrees.column * D + d] = agrees.sign * slope));
    return found;
  }

  // {loss(w), slope(w)} of a single loss, for searches that need no other.
  const single = new Map();
  function only(m) {
    if (agrees && m === agrees.column) {
      return { loss: (w) => losses(w)[m], slope: (w) => gradient(w).slice(m * D, m * D + D) };
    }
    if (!single.has(m)) {
      const one = new Uint8Array(columns);
      one[m] = 1;
      single.set(m, {
        loss: rememberedLast((w) => model.means(w, one)[m]),
        slope: rememberedLast((w) => model.slopes(w, one).slice(m * D, m * D + D)),
      });
    }
    return single.get(m);
  }

  // Deviations while the mixture moves: those of some losses are found at each mixture, in turn, and
  // the others are what they were a moment ago. A step may take `milliseconds`.
  const recent = { stds: null, next: 0 };
  const places = Array.from(wanted.keys()).filter((c) => wanted[c]);
  function movingStds(w, milliseconds) {
    recent.stds ??= wantedStds(w).slice();
    const end = performance.now() + milliseconds;
    for (let seen = 0; seen < places.length && performance.now() < end; seen += AT_ONCE) {
      const some = new Uint8Array(columns);
      for (let i = 0; i < AT_ONCE; i++) some[places[recent.next++ % places.length]] = 1;
      const stds = model.stds(w, some);
      for (let c = 0; c < columns; c++) if (some[c]) recent.stds[c] = stds[c];
    }
    return recent.stds;
  }

  function widths(w, stds) {
    const { factor, floor, local } = ofValue;
    const wider = stretch(w);
    const valueHalf = wider * half(factor, floor, local, objective.spread(stds));
    const found = new Float64Array(M);
    for (let m = 0; m < M; m++) found[m] = wider * half(factors[m], floors[m], locals[m], stds[m]);
    if (agrees) found[agrees.column] = valueHalf;
    return { halves: found, valueHalf };
  }

  function exactStds(w) {
    const stds = wantedStds(w);
    recent.stds = stds.slice();
    return stds;
  }

  const law = {
    domains: data.domains,
    targets: data.targets,
    hasGradient: slopes !== null,
    predict: losses,
    gradient: slopes && gradient,
    only, // of one loss
    stds: (w) => model.stds(w, every).slice(0, M),
    halves: (w) => widths(w, exactStds(w)).halves,
    value: (w) => objective.value(means(w)),
    valueGradient: slopes && ((w) => objective.gradient(means(w), slopes(w), D)),
    valueHalf: (w) => widths(w, exactStds(w)).valueHalf,
    movingWidths: (w, milliseconds) => widths(w, movingStds(w, milliseconds)), // {halves, valueHalf}
    // Call when idle until it returns false: then the first `halves` is as quick as the others.
    prepare: () => model.prepare(wanted),
  };
  return law;
}

// By what intervals are wider beyond the trials (mixopt/fitting/trial_reach.py).
function stretchBeyond(trials, D) {
  if (!trials || !(trials.radius > 0)) return () => 1;
  const { weights, reach, radius } = trials;
  return rememberedLast((w) => {
    let nearest = Infinity;
    for (let start = 0; start < weights.length; start += D) {
      let sum = 0;
      for (let d = 0; d < D; d++) sum += Math.abs(w[d] - weights[start + d]);
      nearest = Math.min(nearest, sum / 2);
    }
    return (1 + Math.max(nearest - reach, 0) / radius) ** 2;
  });
}

// A function of a mixture that remembers its last answer: losses, objective and intervals of one
// mixture are asked for one after another.
function rememberedLast(answer) {
  let last = null;
  return (w) => {
    if (last === null || last.w.some((share, d) => share !== w[d])) {
      last = { w: Float64Array.from(w), found: answer(w) };
    }
    return last.found;
  };
}

// The objective is the largest of a few weighted sums of the losses, its pieces.
function makeObjective(pieces) {
  const measured = pieces[0].map((_, c) => c).filter((c) => pieces.some((piece) => piece[c] !== 0));
  const dot = (piece, values) => measured.reduce((sum, c) => sum + piece[c] * values[c], 0);
  const magnitudes = pieces.map((piece) => piece.map(Math.abs));

  function active(means) {
    const values = pieces.map((piece) => dot(piece, means));
    return pieces[values.indexOf(Math.max(...values))];
  }

  function gradient(means, slopes, D) {
    const piece = active(means);
    const found = new Float64Array(D);
    for (const c of measured) {
      if (piece[c] === 0) continue;
      for (let d = 0; d < D; d++) found[d] += piece[c] * slopes[c * D + d];
    }
    return found;
  }

  return {
    measured,
    value: (means) => dot(active(means), means),
    gradient,
    // Errors are taken to go together, which is the most that they can add up to.
    spread: (stds) => Math.max(...magnitudes.map((piece) => dot(piece, stds))),
  };
}

// A weighted mean of other models, with weights by loss.
function meanModel(plain) {
  const members = plain.members.map(makeModel);
  const weights = plain.weights_CM;
  const M = weights.length / members.length;
  const weight = (c, m) => weights[c * M + m];
  const counts = members.map((_, c) => Uint8Array.from({ length: M }, (_, m) => weight(c, m) > 0));

  // The losses that are asked of a member: those in which it counts.
  const asked = (wanted, c) => (wanted ? wanted.map((one, m) => one && counts[c][m]) : counts[c]);

  function mixed(parts, width, wanted) {
    const sum = new Float64Array(M * width);
    parts.forEach((part, c) => {
      const own = asked(wanted, c);
      for (let m = 0; m < M; m++) {
        if (!own[m]) continue;
        const share = weight(c, m);
        for (let i = m * width; i < m * width + width; i++) sum[i] += share * part[i];
      }
    });
    return sum;
  }

  function means(w, wanted) {
    return mixed(members.map((member, c) => member.means(w, asked(wanted, c))), 1, wanted);
  }

  function slopes(w, wanted) {
    const parts = members.map((member, c) => member.slopes(w, asked(wanted, c)));
    return mixed(parts, parts[0].length / M, wanted);
  }

  // Their disagreement counts beside their own deviations, in quadrature.
  function stds(w, wanted) {
    const middle = means(w, wanted);
    const own = new Float64Array(M);
    const apart = new Float64Array(M);
    members.forEach((member, c) => {
      const counting = asked(wanted, c);
      const theirs = member.stds(w, counting);
      const losses = member.means(w, counting);
      for (let m = 0; m < M; m++) {
        if (!counting[m]) continue;
        own[m] += weight(c, m) * theirs[m];
        apart[m] += weight(c, m) * (losses[m] - middle[m]) ** 2;
      }
    });
    return own.map((std, m) => (wanted[m] ? Math.sqrt(std * std + apart[m]) : 0));
  }

  return {
    means,
    slopes: members.every((member) => member.slopes) ? slopes : null,
    stds,
    prepare: (wanted) =>
      members.some((member, c) => member.prepare(asked(wanted, c))),
  };
}
