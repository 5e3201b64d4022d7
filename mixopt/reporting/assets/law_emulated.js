// A spline through the fit's predictions at some mixtures (mixopt/reporting/emulator.py).
//
//   f(w) = b . (1, w, roots) + sum_p a_p |roots - roots_p|^3,   roots = sqrt(w)
//
// P points. C = 2 M columns: losses, then their standard deviations.

LAW_KINDS.emulated = emulatedLaw;

function emulatedLaw(plain) {
  const { kernel_PC: kernel, terms_TC: terms, smallest_M: smallest } = plain;
  const M = smallest.length;
  const C = 2 * M;
  const P = kernel.length / C;
  const D = plain.points_PD.length / P;
  const points = rowsOfLengthOne(plain.points_PD, D);

  const columns = rememberLast((w) => {
    const sums = new Float64Array(C);
    const add = (coefficients, row, factor) => {
      for (let c = 0; c < C; c++) sums[c] += factor * coefficients[row * C + c];
    };
    const roots = Float64Array.from(w, (share) => Math.sqrt(Math.max(share, 0)));
    [1, ...roots.map((root) => root * root), ...roots].forEach((term, t) => add(terms, t, term));
    timesRows(points, roots, P).forEach((cosine, p) => {
      add(kernel, p, Math.max(2 - 2 * cosine, 0) ** 1.5);
    });
    return sums;
  });

  return {
    means: (w) => columns(w).slice(0, M),
    stds: (w) => columns(w).slice(M).map((std, m) => Math.max(std, smallest[m])),
    prepare: nothingToPrepare,
  };
}

function rowsOfLengthOne(rows, D) {
  const scaled = Float64Array.from(rows);
  for (let start = 0; start < scaled.length; start += D) {
    const row = scaled.subarray(start, start + D);
    const length = Math.sqrt(squared(row));
    row.forEach((value, d) => { row[d] = value / length; });
  }
  return scaled;
}
