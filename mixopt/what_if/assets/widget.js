// The what-if as a widget of a notebook: Jupyter, VS Code and marimo, by anywidget.
//
// The other side is mixopt/what_if/explorer.py. Synced: `weights` by domain, which both sides set;
// `_request` from here, `_answer` from there; `_data`, new with each answer, is what is drawn.
// All is inside a shadow root, so that no style of the notebook and none of ours meet.

function renderWidget({ model, el }) {
  const root = element("div"), page = element("div", { class: "wi-widget" });
  const sheet = element("style", {}, WIDGET_STYLE);
  // Keys that turn a slider are commands of a notebook elsewhere.
  const host = element("div", { "data-lm-suppress-shortcuts": "true", onkeydown: (event) => event.stopPropagation() });
  host.attachShadow({ mode: "open" }).append(sheet, page);
  el.append(host);
  const shown = { data: null, handle: null };

  const weightsNow = () => shown.data.domains.map((name) => model.get("weights")[name] ?? 0);
  function tell(weights) {
    model.set("weights", Object.fromEntries(shown.data.domains.map((name, d) => [name, weights[d]])));
    model.save_changes();
  }
  function draw() {
    if (shown.handle) shown.handle.destroy();
    shown.data = readWhatIf(model.get("_data"));
    shown.handle = renderWhatIf(root, shown.data, { onChange: tell });
    follow();
  }
  function follow() {
    const asked = weightsNow(), now = shown.handle.weights;
    if (asked.some((share, d) => Math.abs(share - now[d]) > 1e-9)) shown.handle.setWeights(asked);
  }
  function ask(fields) {
    const now = shown.handle.weights;
    const locked = Object.fromEntries(shown.handle.locked.map((name) => [name, now[shown.data.domains.indexOf(name)]]));
    form.wait();
    model.set("_request", { ...fields, locked, serial: Date.now() });
    model.save_changes();
  }
  function answered() {
    const answer = model.get("_answer");
    form.answer(answer);
    if (!answer.error) draw();
  }

  draw();
  const form = proposalForm(model.get("_form"), shown.data.domains, ask);
  page.append(root, form.node);
  model.on("change:weights", follow);
  model.on("change:_answer", answered);
  const forget = followTheme(host, page);
  return () => {
    model.off("change:weights", follow);
    model.off("change:_answer", answered);
    forget();
    shown.handle.destroy();
  };
}

/** Keep the colours those of the notebook, dark or light, whatever it is called there. */
function followTheme(host, page) {
  const look = () => {
    const paper = paperBehind(host.parentElement);
    page.style.setProperty("--paper", `rgb(${paper.join()})`);
    page.classList.toggle("wi-dark", brightness(paper) < 0.5);
  };
  const soon = () => { look(); setTimeout(look, 400); };
  const sizes = new ResizeObserver(look), marks = new MutationObserver(soon);
  const system = matchMedia("(prefers-color-scheme: dark)");
  sizes.observe(host); // is heard once the cell is shown, too
  for (const node of [document.documentElement, document.body]) marks.observe(node, { attributes: true });
  system.addEventListener("change", soon);
  return () => { sizes.disconnect(); marks.disconnect(); system.removeEventListener("change", soon); };
}

/** The colour that is painted behind a node: red, green and blue, 0 to 255. */
function paperBehind(node) {
  for (let at = node; at; at = at.parentElement || at.getRootNode().host) {
    const [red, green, blue, alpha] = painted(getComputedStyle(at).backgroundColor);
    if (alpha > 127) return [red, green, blue];
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? [20, 24, 29] : [255, 255, 255];
}

/** A colour of CSS, in whatever notation, as a pixel has it. */
function painted(colour) {
  const pen = painted.pen ??= Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  pen.clearRect(0, 0, 1, 1);
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return Array.from(pen.getImageData(0, 0, 1, 1).data);
}

const brightness = ([red, green, blue]) => (0.3 * red + 0.59 * green + 0.11 * blue) / 255;
