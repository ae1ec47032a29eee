// The explorer of a stacked bar chart: isolate a series, look closer at a part of the period, read a bar.
// The page holds every text and control; `vegaEmbed` comes from the bundle around this (reports/explorer.py).
// Expressions are interpreted (`ast`), never compiled, and nothing adds a style: the page's policy allows neither.

const byId = (id) => document.getElementById(`explorer-${id}`);
const given = JSON.parse(byId("given").textContent);
const [figure, tip, read] = [byId("figure"), byId("tip"), byId("read")];
const [first, last, bar] = [byId("first"), byId("last"), byId("bar")];
const buttons = [...document.querySelectorAll("[data-series]")];
const lastBucket = given.labels.length - 1;
const segments = given.spec.layer[0].data.values;

const state = { first: 0, last: lastBucket, series: null, width: 0 };
let view = null;
let turn = 0;

const isShown = (it) =>
  it.bucket >= state.first && it.bucket <= state.last && (state.series === null || it.series === state.series);

const number = (text) => Number.parseInt(text, 10);

function xAxis(width) {
  const most = Math.max(2, Math.min(16, Math.floor(width / 64)));
  const within = given.rhythms.map((marks) => marks.filter((it) => it >= state.first && it <= state.last));
  const chosen = within.find((marks) => marks.length > 0 && marks.length <= most);
  const stride = Math.ceil((state.last - state.first + 1) / most);
  const values = chosen ?? within[0].filter((_, index) => index % stride === 0);
  return { values, labelExpr: `${JSON.stringify(given.ticks)}[datum.value]` };
}

function yAxis(shown) {
  const heights = new Map();
  for (const it of shown) heights.set(it.bucket, (heights.get(it.bucket) ?? 0) + it.value);
  const top = Math.max(0, ...heights.values());
  const tops = given.scales.map((labels) => Math.max(...Object.keys(labels).map(Number)));
  const index = tops.findIndex((it) => it >= top);
  const labels = given.scales[index];
  const axis = { values: Object.keys(labels).map(Number), labelExpr: `${JSON.stringify(labels)}[datum.value]` };
  return { axis, domain: [0, tops[index]] };
}

// The page's own specification, of the part that is looked at.
function partOf(width) {
  const spec = structuredClone(given.spec);
  const shown = segments.filter(isShown);
  const buckets = Array.from({ length: state.last - state.first + 1 }, (_, index) => state.first + index);
  const [x, y] = [xAxis(width), yAxis(shown)];
  for (const layer of spec.layer) {
    Object.assign(layer.encoding.x.axis, x);
    layer.encoding.x.scale.domain = buckets;
    Object.assign(layer.encoding.y.axis, y.axis);
    layer.encoding.y.scale.domain = y.domain;
  }
  const [bars, ...flags] = spec.layer;
  bars.data.values = shown;
  bars.mark.aria = false; // one image with one label; its values are read with the control below it, and in the table
  Object.assign(bars.mark, buckets.length * 8 <= width ? { stroke: "var(--surface)", strokeWidth: 1 } : { stroke: null });
  bars.encoding.tooltip = { field: "description", type: "nominal" };
  bars.encoding.opacity = { condition: { test: "read < 0 || datum.bucket === read", value: 1 }, value: 0.35 };
  bars.params = [{
    name: "brush",
    select: {
      type: "interval", encodings: ["x"], zoom: false, translate: false,
      mark: { fill: "currentColor", fillOpacity: 0.15, stroke: "currentColor" },
    },
  }];
  // Which counts are missing is known of whole bars only.
  spec.layer = [bars, ...(state.series === null ? flags : [])];
  for (const layer of spec.layer.slice(1)) {
    layer.data.values = layer.data.values.filter((it) => it.bucket >= state.first && it.bucket <= state.last);
  }
  spec.params = [{ name: "read", value: -1 }];
  spec.config.axis.aria = false;
  return { ...spec, width };
}

// What a bar holds, as sentences: the drawing's own.
function say(bucket) {
  const said = segments.filter((it) => isShown(it) && it.bucket === bucket).map((it) => it.description);
  read.replaceChildren(...(said.length ? said : [`${given.labels[bucket]} · ${read.dataset.empty}`]).map((text) => {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  }));
}

function showTip(_handler, event, _item, text) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const box = figure.getBoundingClientRect();
  const left = event.clientX - box.left;
  tip.style.left = `${Math.max(0, Math.min(left + 12, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${event.clientY - box.top + 16}px`;
}

async function draw() {
  const mine = ++turn;
  state.width = figure.clientWidth;
  const options = { ast: true, mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, tooltip: showTip };
  const made = await vegaEmbed(byId("chart"), partOf(state.width), options);
  if (mine !== turn) {
    made.finalize();
    return;
  }
  view?.finalize();
  view = made;
  let brushed = null;
  made.view.addSignalListener("brush", (_, value) => { brushed = value.bucket ?? null; });
  figure.onpointerup = async () => {
    await made.view.runAsync(); // the interval follows the pointer a moment later
    if (brushed?.length) look({ first: Math.min(...brushed), last: Math.max(...brushed) });
  };
}

// Every control says the state, whichever of them changed it.
function look(change) {
  Object.assign(state, change);
  [first.value, last.value] = [state.first, state.last];
  [bar.min, bar.max] = [state.first, state.last];
  bar.setAttribute("aria-valuetext", given.labels[number(bar.value)]);
  for (const button of buttons) button.setAttribute("aria-pressed", String(number(button.dataset.series) === state.series));
  byId("all").disabled = state.first === 0 && state.last === lastBucket && state.series === null;
  read.replaceChildren();
  tip.hidden = true;
  return draw();
}

for (const select of [first, last]) {
  select.append(...given.labels.map((label, index) => new Option(label, index)));
}
first.addEventListener("change", () => look({ first: number(first.value), last: Math.max(number(first.value), state.last) }));
last.addEventListener("change", () => look({ first: Math.min(number(last.value), state.first), last: number(last.value) }));
bar.addEventListener("input", () => {
  const bucket = number(bar.value);
  bar.setAttribute("aria-valuetext", given.labels[bucket]);
  view?.view.signal("read", bucket).runAsync();
  say(bucket);
});
for (const button of buttons) {
  const series = number(button.dataset.series);
  button.addEventListener("click", () => look({ series: state.series === series ? null : series }));
}
byId("all").addEventListener("click", () => {
  look({ first: 0, last: lastBucket, series: null });
  first.focus(); // this control is spent now
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
figure.addEventListener("pointerleave", () => { tip.hidden = true; });
new ResizeObserver(() => { if (figure.clientWidth !== state.width) draw(); }).observe(figure);

byId("board").hidden = false;
await look({});
byId("waiting").hidden = true;
