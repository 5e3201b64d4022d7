// Boosted trees: a loss is a base and the sum of one leaf of each of its trees.
//
// Trees are written node by node, each split before what is left of it and that before what is
// right: a split as the number of its cut (a domain and a threshold), a leaf as -1.

MODEL_KINDS.trees = treesModel;

function treesModel(plain) {
  const { nodes, values, trees_M: trees, bases_M: bases, noise_M: noise } = plain;
  const { cut_domains: domains, cuts } = plain;
  const { rights, roots, firsts } = laidOut(nodes);

  // The value that a mixture reaches, in the tree that starts at a root.
  function reached(w, tree) {
    let [node, value] = [roots[tree], firsts[tree]];
    while (nodes[node] >= 0) {
      const goesLeft = w[domains[nodes[node]]] <= cuts[nodes[node]];
      // What is left of a split with s nodes has (s + 1) / 2 leaves.
      if (!goesLeft) value += (rights[node] - node) / 2;
      node = goesLeft ? node + 1 : rights[node];
    }
    return values[value];
  }

  function means(w) {
    let tree = 0;
    return Float64Array.from(bases, (base, m) => {
      let sum = base;
      for (const end = tree + trees[m]; tree < end; tree++) sum += reached(w, tree);
      return sum;
    });
  }

  return { means, slopes: null, stds: () => Float64Array.from(noise), prepare: nothingToPrepare };
}

// Where each split's right side starts, and each tree's root and first value.
function laidOut(nodes) {
  const rights = new Int32Array(nodes.length);
  const [roots, firsts, open] = [[], [], []];
  let leaves = 0;
  nodes.forEach((cut, node) => {
    if (open.length === 0 && (node === 0 || nodes[node - 1] < 0)) {
      roots.push(node);
      firsts.push(leaves);
    }
    if (cut >= 0) {
      open.push(node);
      return;
    }
    leaves++;
    // A leaf ends what is left of the last split, and all splits of which it is the end.
    while (open.length > 0 && rights[open[open.length - 1]] > 0) open.pop();
    if (open.length > 0) rights[open[open.length - 1]] = node + 1;
  });
  return { rights, roots, firsts };
}
