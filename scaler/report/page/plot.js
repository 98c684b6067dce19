// The Pareto front. Colours come from the style sheet, so that the plot follows light and dark.

const plotState = { axis: "frame", device: null, selected: null, react: null };

// Plotly reads a small markup in its texts; what comes from the data must not be read as such.
const literal = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function colours() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${name}`).trim() });
}

function niceTicks(low, high) {
  const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const room = byId("plot").clientWidth < 520 ? 6 : 10;
  let ticks = [];
  for (const steps of [[1, 1.5, 2, 3, 4, 5, 7], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    ticks = [];
    for (let decade = from; decade <= to; decade += 1) {
      for (const step of steps) ticks.push(Number((step * 10 ** decade).toPrecision(4)));
    }
    ticks = ticks.filter((tick) => tick >= low && tick <= high);
    if (ticks.length <= room) break;
  }
  return ticks;
}

const inAxis = (ms) => (plotState.axis === "fps" ? 1000 / ms : ms);
const figureOf = (candidate) => candidate[plotState.axis];
// Whether the axis is what the search made small: the front is a staircase there, and what was explored has a place.
const isObjective = () => (plotState.axis === "energy") === (report.minimize === "energy");
const isTime = () => plotState.axis !== "energy";
const AXIS_TITLES = { frame: "frame time in ms (engine and overhead)", fps: "frames per second", energy: "energy of a frame in mJ" };

// How far below the best AP the plot reaches at first: what lies below would flatten the rest. Zooming shows it.
const SHOWN_AP = 40;

function extentOf(device) {
  const xs = [];
  const ys = [];
  for (const candidate of device.candidates.filter(figureOf)) {
    xs.push(figureOf(candidate).low, figureOf(candidate).high);
    ys.push(candidate.ap.low, candidate.ap.high);
    if (candidate.trained?.comparable) ys.push(candidate.trained.value);
    if (candidate.verified?.[plotState.axis]) xs.push(candidate.verified[plotState.axis].mean);
  }
  for (const reference of isTime() ? device.references : []) {
    if (reference.fps.value) { xs.push(inAxis(1000 / reference.fps.value)); ys.push(reference.ap.value); }
  }
  if (device.target && isTime()) xs.push(inAxis(1000 / device.target));
  if (!xs.length) return { x: [1, 100], y: [0, 100] };
  const [low, high] = [Math.max(Math.min(...xs), 1e-3), Math.max(...xs)];
  const factor = Math.max((high / low) ** 0.06, 1.04);
  const top = Math.max(...ys);
  const least = Math.max(Math.min(...ys), top - SHOWN_AP);
  const air = Math.max((top - least) * 0.06, 0.8);
  return { x: [low / factor, high * factor], y: [least - air, top + 1.6 * air] };
}

function hoverText(metric, candidate) {
  return `<b>${literal(candidate.head || candidate.id)}</b><br>${literal(candidate.tail)}<br>`
    + `${literal(metric)} <b>${candidate.ap.text}</b> (${candidate.ap.ends})${candidate.outside.length ? " extrapolated" : ""}<br>`
    + (candidate.trained ? `${literal(candidate.trained.metric)} <b>${candidate.trained.text}</b> measured, ${literal(candidate.trained.on)}<br>` : "")
    + (candidate.verified ? `<b>${candidate.verified.fps.text} FPS</b> on the device (${candidate.verified.of}, ${candidate.verified.deviation})<br>` : "")
    + (candidate.loss ? `INT8 loss ${candidate.loss.text} (${candidate.loss.ends}) in it<br>` : "")
    + `<b>${candidate.frame.text} ms</b> a frame, <b>${candidate.fps.text} FPS</b> (${candidate.fps.ends})`
    + (candidate.energy ? `<br><b>${candidate.energy.text} mJ</b> a frame (${candidate.energy.ends})` : "");
}

function candidateTrace(name, candidates, marker, metric, extra = {}) {
  return {
    name, mode: "markers", type: "scatter", marker,
    x: candidates.map((candidate) => figureOf(candidate).mean),
    y: candidates.map((candidate) => candidate.ap.mean),
    customdata: candidates.map((candidate) => candidate.id),
    text: candidates.map((candidate) => hoverText(metric, candidate)),
    hovertemplate: "%{text}<extra></extra>",
    ...extra,
  };
}

function spread(figures, colour) {
  return {
    type: "data", symmetric: false, color: colour, thickness: 3, width: 0,
    array: figures.map((figure) => figure.high - figure.mean),
    arrayminus: figures.map((figure) => figure.mean - figure.low),
  };
}

function traces(device, metric, ink) {
  const shown = device.candidates.filter(figureOf);
  const front = shown.filter((candidate) => candidate.rank !== null);
  const chosen = shown.filter((candidate) => candidate.id === plotState.selected);
  const role = (name) => shown.filter((candidate) => candidate.roles.includes(name));
  const published = isTime() ? device.references.filter((reference) => reference.fps.value) : [];
  const explored = isObjective() ? device.explored : [];
  const stairs = isObjective() ? front : [];
  const faint = `color-mix(in srgb, ${ink.accent} 32%, transparent)`;
  const bars = { error_x: spread(front.map(figureOf), ink.fade), error_y: spread(front.map((c) => c.ap), ink.fade) };
  return [
    {
      name: "explored", type: "scatter", mode: "markers", hoverinfo: "skip",
      marker: { size: byId("plot").clientWidth < 520 || explored.length > 2000 ? 3 : 4, color: ink.dots },
      x: explored.map((point) => inAxis(point[0])), y: explored.map((point) => point[1]),
    },
    {
      type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false,
      line: { shape: "hv", color: ink.accent, width: 1.6 }, opacity: 0.75,
      x: stairs.map((candidate) => figureOf(candidate).mean), y: stairs.map((candidate) => candidate.ap.mean),
    },
    candidateTrace("Pareto front", front, { size: 9, color: ink.accent, line: { width: 1.5, color: ink.card } }, metric, bars),
    {
      name: "published", type: "scatter", mode: "markers",
      marker: { symbol: "triangle-up", size: 10.5, color: ink.card, line: { width: 1.8, color: ink.paper } },
      x: published.map((reference) => inAxis(1000 / reference.fps.value)),
      y: published.map((reference) => reference.ap.value),
      text: published.map((reference) => `<b>${literal(reference.name)}</b><br>published: ${reference.ap.text} AP, ${reference.fps.text} FPS<br>`
        + `predicted: ${reference.predicted_ap.text} AP, ${reference.predicted_fps.text} FPS<br>${literal(reference.source)}`),
      hovertemplate: "%{text}<extra></extra>",
    },
    candidateTrace("knee", role("knee"), { symbol: "diamond", size: 12, color: ink.accent, line: { width: 1.5, color: ink.card } }, metric),
    candidateTrace("nearest to the target", role("nearest"), { symbol: "triangle-right", size: 14, color: ink.warn, line: { width: 1.5, color: ink.card } }, metric),
    candidateTrace("pick", role("pick"), { symbol: "star", size: 18, color: ink.good, line: { width: 1.5, color: ink.card } }, metric),
    ...verifiedTraces(shown.filter((candidate) => candidate.verified?.[plotState.axis]), metric, ink),
    ...measuredTraces(shown.filter((candidate) => candidate.trained?.comparable), metric, ink),
    candidateTrace("selected", chosen, { symbol: "circle-open", size: 25, color: ink.ink, line: { width: 2 } }, metric, { hoverinfo: "skip", hovertemplate: null, showlegend: false }),
  ].filter((trace) => trace.x.length);
}

// Measured accuracy: a square, tied to its prediction by a dotted line.
function measuredTraces(candidates, metric, ink) {
  if (!candidates.length) return [];
  const x = candidates.map((candidate) => figureOf(candidate).mean);
  const on = [...new Set(candidates.map((candidate) => candidate.trained.on))].map(literal).join(", ");
  return [
    {
      type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, line: { color: ink.soft, width: 1.2, dash: "dot" },
      x: x.flatMap((place) => [place, place, null]),
      y: candidates.flatMap((candidate) => [candidate.ap.mean, candidate.trained.value, null]),
    },
    {
      ...candidateTrace(`measured, ${on}`, candidates, { symbol: "square", size: 10, color: ink.card, line: { width: 2.2, color: ink.accent } }, metric),
      y: candidates.map((candidate) => candidate.trained.value),
    },
  ];
}

// The device's own time: a ring, and a cross where a promise broke, tied to the prediction.
function verifiedTraces(candidates, metric, ink) {
  if (!candidates.length) return [];
  const place = (candidate) => candidate.verified[plotState.axis].mean;
  const trace = (name, some, marker) => ({ ...candidateTrace(name, some, marker, metric), x: some.map(place) });
  const broken = (candidate) => candidate.verified.state === "broken";
  return [
    {
      type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, line: { color: ink.soft, width: 1.2, dash: "dot" },
      x: candidates.flatMap((candidate) => [figureOf(candidate).mean, place(candidate), null]),
      y: candidates.flatMap((candidate) => [candidate.ap.mean, candidate.ap.mean, null]),
    },
    trace("measured on the device", candidates.filter((c) => !broken(c)), { symbol: "circle", size: 8, color: ink.card, line: { width: 2.2, color: ink.good } }),
    trace("promise broken on the device", candidates.filter(broken), { symbol: "x", size: 10, color: ink.bad, line: { width: 1.2, color: ink.card } }),
  ];
}

function targetShapes(device, extent, ink) {
  if (!device.target || !isTime()) return { shapes: [], annotations: [] };
  const line = inAxis(1000 / device.target);
  const isFrame = plotState.axis === "frame";
  const rule = { type: "line", x0: line, x1: line, yref: "paper", y0: 0, y1: 1, line: { color: ink.soft, width: 1.4, dash: "dash" } };
  const zone = {
    type: "rect", yref: "paper", y0: 0, y1: 1, line: { width: 0 }, fillcolor: ink.shade, layer: "below",
    x0: isFrame ? extent.x[0] / 100 : line, x1: isFrame ? line : extent.x[1] * 100,
  };
  const place = Math.log(line / extent.x[0]) / Math.log(extent.x[1] / extent.x[0]);
  const onLeft = isFrame ? place > 0.2 : place > 0.8;
  const note = {
    x: Math.log10(line), y: 1, yref: "paper", yanchor: "top", xanchor: onLeft ? "right" : "left", xshift: onLeft ? -5 : 5,
    showarrow: false, font: { size: 12, color: ink.soft },
    text: onLeft === isFrame ? `${device.target_text} or more` : `target ${device.target_text}`,
  };
  return { shapes: [zone, rule], annotations: [note] };
}

function pickNote(device, ink) {
  const marked = device.candidates.find((candidate) => candidate.roles.includes("pick"));
  const left = plotState.axis !== "fps";
  if (!marked || !figureOf(marked) || byId("plot").clientWidth < 520) return [];
  return [{
    x: Math.log10(figureOf(marked).mean), y: marked.ap.mean, ax: left ? -70 : 70, ay: -46,
    xanchor: left ? "right" : "left", align: "left", arrowhead: 0, arrowwidth: 1, arrowcolor: ink.muted, standoff: 11,
    text: `<b>${literal(marked.head || marked.id)}</b><br>${literal(marked.tail)}`, font: { size: 12, color: ink.good },
    bgcolor: ink.card, opacity: 0.94, borderpad: 3,
  }];
}

function layout(device, metric, ink) {
  const extent = extentOf(device);
  const target = targetShapes(device, extent, ink);
  const narrow = byId("plot").clientWidth < 520;
  const ticks = niceTicks(...extent.x);
  const axis = { gridcolor: ink.line, linecolor: ink.line, zeroline: false, tickfont: { color: ink.muted, size: 12 }, title: { font: { size: 12.5, color: ink.soft }, standoff: 8 } };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: ink.sans, color: ink.ink, size: 12 },
    margin: { l: narrow ? 42 : 54, r: 8, t: narrow ? 8 : 30, b: narrow ? 84 : 50 },
    xaxis: {
      ...axis, type: "log", range: extent.x.map(Math.log10), tickvals: ticks, ticktext: ticks.map(String),
      title: { ...axis.title, text: AXIS_TITLES[plotState.axis] },
    },
    yaxis: { ...axis, range: extent.y, nticks: 9, title: { ...axis.title, text: literal(metric) } },
    shapes: target.shapes, annotations: [...target.annotations, ...pickNote(device, ink)],
    legend: narrow
      ? { orientation: "h", x: 0, y: -0.2, yanchor: "top", font: { size: 11.5, color: ink.soft } }
      : { x: plotState.axis === "fps" ? 0.01 : 1, y: 0.01, xanchor: plotState.axis === "fps" ? "left" : "right", yanchor: "bottom", bgcolor: ink.card, bordercolor: ink.line, borderwidth: 1, font: { size: 12, color: ink.soft } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: ink.muted, activecolor: ink.accent },
    hovermode: "closest", dragmode: narrow ? false : "zoom",
    hoverlabel: { bgcolor: ink.card, bordercolor: ink.line, font: { family: ink.sans, color: ink.ink, size: 12.5 }, align: "left" },
  };
}

function drawPlot(metric, width) {
  const names = ["accent", "card", "ink", "soft", "muted", "line", "good", "warn", "bad", "paper", "dots", "shade", "sans"];
  const plot = byId("plot");
  const palette = colours();
  const ink = Object.fromEntries(names.map((name) => [name, palette[name]]));
  ink.fade = `${ink.accent}40`;
  const config = {
    responsive: true, displaylogo: false, doubleClick: "reset", plotlyServerURL: "",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    displayModeBar: plot.clientWidth < 520 ? false : "hover",
    toImageButtonOptions: { filename: `pareto-${plotState.device.name}`, scale: 2 },
  };
  Plotly.react(plot, traces(plotState.device, metric, ink), { ...layout(plotState.device, metric, ink), width }, config);
  if (plot.dataset.listening) return;
  plot.dataset.listening = "yes";
  plot.on("plotly_click", (event) => {
    const hit = event.points.find((point) => point.customdata);
    if (hit) plotState.react(hit.customdata);
  });
  plot.on("plotly_relayout", (event) => {
    const range = plot.layout.xaxis.range;
    if (!("xaxis.range[0]" in event) && !("xaxis.range" in event)) return;
    const ticks = niceTicks(10 ** range[0], 10 ** range[1]);
    Plotly.relayout(plot, { "xaxis.tickvals": ticks, "xaxis.ticktext": ticks.map(String) });
  });
}
