// Puts the page together and switches between devices and candidates.

const report = JSON.parse(byId("data").textContent);
let current = 0;
let selection = null; // what the reader chose; null until then

const candidateOf = (device, id) => device.candidates.find((candidate) => candidate.id === id);
const leading = (device) => device.pick ?? device.nearest ?? device.candidates.find((c) => c.roles.includes("knee"))?.id ?? device.candidates[0]?.id ?? null;

function headline() {
  const only = report.devices.length === 1 ? report.devices[0] : null;
  const targets = [...new Set(report.devices.map((device) => device.target_text).filter(Boolean))].join(" and ");
  byId("headline").textContent = `Detectors for ${only ? only.title : `${report.devices.length} devices`}${targets ? ` at ${targets}` : ""}`;
  byId("lead").textContent = `The Pareto front between ${report.metric} and ${report.minimize === "energy" ? "the energy of a frame" : "frame time"}, from the ${report.space_size} candidates of the ${report.space} space. All figures are predictions unless called published, measured or trained.`;
  fill(byId("stamp"), element("span", { class: "long" }, "Search report, "), report.created.replace("T", " ").replace(/(:\d\d)(\.\d+)?(\+00:00|Z)$/, "$1 UTC"));
  byId("noise").textContent = report.noise;
}

function drawTabs() {
  if (report.devices.length < 2) return;
  fill(byId("tabs"), ...report.devices.map((device, index) => {
    const best = candidateOf(device, device.pick);
    const state = best ? `★ ${best.ap.text} AP, ${best.fps.text} FPS` : device.target ? `${device.target_text} not reached` : `${device.candidates.length} candidates`;
    return element("button", {
      type: "button", role: "tab", class: "tab", id: `tab-${index}`, "aria-controls": "device",
      on: { click: () => showDevice(index), keydown: (event) => moveTab(event, index) },
    }, element("b", {}, device.title), element("span", {}, state));
  }));
}

function moveTab(event, index) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const next = (index + step + report.devices.length) % report.devices.length;
  showDevice(next);
  byId(`tab-${next}`).focus();
}

function drawVerdict(device) {
  const card = byId("verdict");
  const best = candidateOf(device, leading(device));
  card.classList.toggle("missed", !device.pick && Boolean(device.target));
  if (!best) {
    fill(card, element("p", { class: "message" }, device.message));
    return;
  }
  const role = device.pick ? `★ The pick for ${device.target_text || "this device"}` : device.nearest ? `▸ ${device.target_text} is not reached; the nearest candidate` : "◆ The best trade-off";
  const kpi = (label, value, unit, note) => element("div", { class: "kpi" },
    element("div", { class: "label" }, label),
    element("div", { class: "value" }, value, unit ? element("small", {}, unit) : null),
    element("div", { class: "note" }, note));
  fill(card,
    element("div", {}, element("div", { class: "role" }, role), element("div", { class: "name" }, best.head || best.id), element("div", { class: "rest" }, best.tail)),
    element("div", { class: "kpis" },
      kpi(report.metric, best.ap.text, "", best.ap.ends),
      kpi("Frame rate", best.fps.text, "FPS", best.fps.ends),
      best.energy ? kpi("Energy of a frame", best.energy.text, "mJ", best.energy.ends) : kpi("Frame time", best.frame.text, "ms", `${best.engine.text} engine + ${best.overhead}`),
      device.target ? kpi(`Reaches ${device.target_text}`, best.reach.text, "", "probability") : kpi("Parameters", best.params.text, "", "")),
    best.verified ? verifiedLine(best.verified) : null,
    element("p", { class: "message" }, device.message));
}

function verifiedLine(verified) {
  const accuracy = verified.value ? `, ${report.metric.split(" ").pop()} ${verified.value} on ${verified.on}` : "";
  const words = verified.state === "broken" ? "Measured on the device, the promise breaks. " : "Measured on the device. ";
  return element("p", { class: `verified ${verified.state}` }, element("b", {}, words),
    `${verified.promise || `${verified.fps.text} FPS, ${verified.of}`}. Engine ${verified.engine.text} ms (${verified.engine.deviation})${accuracy}.`);
}

function modelCard(model) {
  const figures = model.errors.flatMap((error) => [element("dt", {}, error.name), element("dd", {}, error.text)]);
  return element("div", { class: "card model" },
    element("div", { class: "top" }, element("h3", {}, `${model.subject}: ${model.name}`), badge(model.provenance, model.provenance, PROVENANCE[model.provenance])),
    element("p", { class: "from" }, `From ${model.fitted_on}.`),
    figures.length
      ? element("dl", { class: "pairs figures" }, ...figures)
      : element("p", { class: "warning" }, "Its error is unknown: there is nothing to validate it against."),
    model.notes.length ? element("ul", { class: "notes" }, ...model.notes.map((note) => element("li", {}, note))) : null);
}

function drawSearch() {
  fill(byId("command"), shell(report.command));
  fill(byId("search-facts"), ...report.search.flatMap((fact) => [element("dt", {}, fact.name), element("dd", {}, fact.text)]));
  fill(byId("steps"), element("h3", {}, "Next"), ...report.steps.map((step) => element("div", { class: "step" }, `To ${step.purpose}:`, shell(step.command))));
  byId("steps").hidden = report.steps.length === 0;
  byId("foot").textContent = `Written by scaler ${report.version}. This page holds its data and loads nothing from the network. FLOPs are 2 × MACs.`;
}

function choose(id) {
  selection = id;
  show(id);
  const card = byId("details");
  const box = card.getBoundingClientRect();
  if (box.top > innerHeight - 120 || box.bottom < 120) card.scrollIntoView({ behavior: "smooth", block: "start" });
}

function show(id) {
  const device = report.devices[current];
  plotState.selected = id;
  markRow(id);
  drawDetails(device, candidateOf(device, id));
  drawPlot(report.metric);
}

function showDevice(index) {
  current = index;
  const device = report.devices[index];
  for (const tab of byId("tabs").children) {
    const active = tab.id === `tab-${index}`;
    tab.setAttribute("aria-selected", String(active));
    tab.tabIndex = active ? 0 : -1;
  }
  if (report.devices.length > 1) byId("device").setAttribute("aria-labelledby", `tab-${index}`);
  plotState.device = device;
  drawVerdict(device);
  const kept = candidateOf(device, selection) ? selection : leading(device);
  drawTable(device, kept, choose);
  drawReferences(device);
  const front = device.candidates.filter((candidate) => candidate.rank !== null).length;
  byId("table-note").textContent = `${front} candidates, ${device.facts}`;
  const present = (role) => device.candidates.some((candidate) => candidate.roles.includes(role));
  const legend = ["pick", "nearest", "knee"].filter(present).map((role) => ROLES[role]);
  if (device.candidates.some((candidate) => candidate.outside.length)) legend.push("† accuracy extrapolated");
  if (device.candidates.some((candidate) => candidate.verified?.state === "broken")) legend.push("✗ promise broken when measured on the device");
  byId("table-legend").textContent = legend.join("   ");
  fill(byId("models"), modelCard(device.latency_model), modelCard(report.accuracy_model));
  show(kept);
}

function start() {
  headline();
  drawSearch();
  drawTabs();
  plotState.react = choose;
  const energy = report.devices.some((device) => device.candidates.some((candidate) => candidate.energy));
  plotState.axis = report.minimize === "energy" ? "energy" : "frame";
  switcher(byId("axis-switch"), [["frame", "Frame time"], ["fps", "FPS"], ...(energy ? [["energy", "Energy"]] : [])], plotState.axis, (axis) => {
    plotState.axis = axis;
    drawPlot(report.metric);
  });
  if (!report.devices.length) {
    byId("device").hidden = true;
    return;
  }
  showDevice(0);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawPlot(report.metric));
  addEventListener("beforeprint", () => { document.documentElement.classList.add("paper"); drawPlot(report.metric, 660); });
  addEventListener("afterprint", () => { document.documentElement.classList.remove("paper"); drawPlot(report.metric); });
}

start();
