// The what-if as a widget of a notebook: Jupyter, VS Code and marimo, by anywidget.
//
// The other side is mixopt/reporting/explorer.py. Synced: `weights` by domain, which both sides set.
// All is inside a shadow root, so that no style of the notebook and none of ours meet.

function renderWidget({ model, el }) {
  const root = element("div"), page = element("div", { class: "wi-widget" }, root);
  // Keys that turn a slider are commands of a notebook elsewhere.
  const host = element("div", { "data-lm-suppress-shortcuts": "true", onkeydown: (event) => event.stopPropagation() });
  host.attachShadow({ mode: "open" }).append(element("style", {}, WIDGET_STYLE), page);
  el.append(host);
  const data = readWhatIf(model.get("_data"));
  const handle = renderWhatIf(root, data, { onChange: tell });

  function tell(weights) {
    model.set("weights", Object.fromEntries(data.domains.map((name, d) => [name, weights[d]])));
    model.save_changes();
  }
  function follow() {
    const wanted = data.domains.map((name) => model.get("weights")[name] ?? 0), now = handle.weights;
    if (wanted.some((share, d) => Math.abs(share - now[d]) > 1e-9)) handle.setWeights(wanted);
  }
  follow();
  model.on("change:weights", follow);
  const forget = followTheme(host, page);
  return () => {
    model.off("change:weights", follow);
    forget();
    handle.destroy();
  };
}

/** Keep the colours those of the notebook, dark or light, whatever it is called there. */
function followTheme(host, page) {
  const look = () => {
    const paper = paperBehind(host.parentElement);
    page.style.setProperty("--paper", `rgb(${paper.join()})`);
    page.classList.toggle("wi-dark", (0.3 * paper[0] + 0.59 * paper[1] + 0.11 * paper[2]) / 255 < 0.5);
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
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  for (let at = node; at; at = at.parentElement || at.getRootNode().host) {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = getComputedStyle(at).backgroundColor; // in whatever notation of CSS
    pen.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
    if (alpha > 127) return [red, green, blue];
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? [20, 24, 29] : [255, 255, 255];
}
