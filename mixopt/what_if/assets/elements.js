// Elements and numbers of the view. Text from a run only ever becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: `on...` are listeners, other entries attributes; children are nodes or text. */
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** What has the focus where a node is: in a widget that is inside a shadow root. */
const focusedNear = (node) => node.getRootNode().activeElement;

/** Set text only where it changes: writing the same text again costs a layout. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A selection among [label, value] pairs, or {group, entries} of them. */
function selection(label, entries, chosen, onpick) {
  const option = ([text, value]) => element("option", { value, selected: value === chosen }, text);
  const made = entries.map((one) =>
    Array.isArray(one) ? option(one) : element("optgroup", { label: one.group }, ...one.entries.map(option)));
  const field = element("select", { onchange: () => onpick(field.value) }, ...made);
  return element("label", { class: "wi-pick" }, element("span", {}, label), field);
}

const decimals = (digits) => (value) => minus(value.toFixed(digits));
const minus = (text) => text.replace("-", "\u2212");

/** A share as percent, with more digits where it is small. */
function percent(share) {
  const value = 100 * share;
  return `${value.toFixed(value > 0 && value < 0.995 ? 2 : 1)}%`;
}

/** A loss or a score. */
function lossText(value) {
  return decimals(Math.abs(value) >= 100 ? 2 : 4)(value);
}

/** A difference with its sign. */
function changeText(value) {
  const text = lossText(value);
  return /[1-9]/.test(text) && value > 0 ? `+${text}` : text;
}

/** Copy text; where the clipboard's own interface is refused, by a selected field. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = element("textarea", { readonly: true, style: "position:fixed;opacity:0" });
    const before = document.activeElement;
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    if (before) before.focus();
    return done;
  }
}

/** Call a function whenever a node comes into sight; returns whether it is there. */
function whileSeen(node, oncome) {
  let isSeen = false;
  new IntersectionObserver((entries) => {
    isSeen = entries.at(-1).isIntersecting;
    if (isSeen) oncome();
  }).observe(node);
  return () => isSeen;
}

/**
 * Run a generator in slices, one a frame, so that the page stays quick.
 * @param {Generator} steps What is run.
 * @param {function} onslice Called with what it yielded last and the slice's milliseconds.
 * @param {function} ondone Called with what it returned and the last slice's milliseconds.
 * @param {function} isBusy Whether a frame has no time for it.
 * @returns {function} Ends it.
 */
function runSliced(steps, onslice, ondone, budget = 6, isBusy = () => false) {
  let frame = requestAnimationFrame(slice);
  function slice() {
    if (isBusy()) return void (frame = requestAnimationFrame(slice));
    const began = performance.now();
    const spent = () => performance.now() - began;
    let [step, before] = [null, 0];
    do [before, step] = [spent(), steps.next()];
    while (!step.done && 2 * spent() - before < budget); // the next step is as long as the last one
    if (step.done) return ondone(step.value, spent());
    frame = requestAnimationFrame(slice);
    onslice(step.value, spent());
  }
  return () => cancelAnimationFrame(frame);
}

/** Call a function after a while; what is returned calls it off. */
function later(wait, action) {
  const timer = setTimeout(action, wait);
  return () => clearTimeout(timer);
}

/** Call a function when nothing has asked for it for a while. */
function debounced(wait, action) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...given), wait);
  };
}
