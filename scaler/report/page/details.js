// One candidate: its figures, where they come from, and what its parts cost.

const METRICS = [["time", "Time"], ["macs", "MACs"], ["memory", "Memory"], ["params", "Params"]];
const detailState = { metric: "time" };

function bars(title, shares) {
  const total = shares.reduce((sum, share) => sum + share[detailState.metric].value, 0);
  const widest = Math.max(...shares.map((share) => share[detailState.metric].value), 0);
  return element("div", { class: "bars" }, element("h3", {}, title), ...shares.map((share) => {
    const figure = share[detailState.metric];
    const part = total > 0 ? figure.value / total : 0;
    const everything = METRICS.map(([key, name]) => `${name} ${share[key].text}`).join(", ");
    return element("div", { class: "bar-line", title: `${everything}, ${share.kernels} kernel launches` },
      element("span", { class: "what" }, share.name),
      element("span", { class: "amount" }, figure.text),
      element("span", { class: "part" }, `${(100 * part).toFixed(part < 0.0995 && part > 0 ? 1 : 0)} %`),
      element("div", { class: "track" }, element("div", { class: "fill", style: `width:${widest > 0 ? (100 * figure.value) / widest : 0}%` })));
  }));
}

function breakdown(candidate) {
  const target = element("div", { id: "breakdown" });
  const draw = () => fill(target, bars("By stage, in order of execution", candidate.stages), bars("By kind of kernel", candidate.kinds));
  const choice = element("div", { class: "switch", role: "group", "aria-label": "What to break down" });
  switcher(choice, METRICS, detailState.metric, (metric) => { detailState.metric = metric; draw(); });
  draw();
  return element("div", { class: "breakdown" }, element("div", { class: "card-head" }, element("h2", {}, "What it costs where"), choice), target);
}

function drawDetails(device, candidate) {
  const card = byId("details");
  if (!candidate) {
    fill(card, element("h2", {}, "No candidate"), element("p", { class: "hint" }, device.message));
    return;
  }
  const roles = candidate.roles.map((role) => badge(role, ROLES[role]));
  const place = candidate.rank === null ? "beside the front" : `number ${candidate.rank} of the front`;
  const list = (facts) => element("dl", { class: "facts" }, ...facts.flatMap((fact) => [
    element("dt", {}, fact.label),
    element("dd", {}, fact.value, fact.note ? element("small", {}, fact.note) : null),
  ]));
  const source = candidate.coverage.map((part) => `${part.text} ${part.name}`).join(", ");
  fill(card,
    element("h2", { id: "details-name" }, candidate.head || candidate.id),
    element("p", { class: "rest" }, candidate.tail),
    element("p", { class: "id" }, element("code", {}, candidate.id), `, ${place}`),
    element("div", { class: "badges" }, ...roles, badge(candidate.provenance, `latency ${candidate.provenance}`, PROVENANCE[candidate.provenance]),
      candidate.verified ? badge(candidate.verified.state === "broken" ? "broken" : "verified", VERIFIED[candidate.verified.state], candidate.verified.promise) : null),
    candidate.outside.length ? element("p", { class: "warning" }, `Accuracy is extrapolated: ${candidate.outside.join("; ")}.`) : null,
    element("div", { class: "details-body" },
      element("div", {},
        list(candidate.facts),
        element("p", { class: "source" }, source ? `Engine time from: ${source}.` : ""),
        ...(candidate.verified ? [
          element("h2", { class: "measured" }, "Measured on the device"),
          candidate.verified.promise ? element("p", { class: `verified ${candidate.verified.state}` }, `${candidate.verified.promise}.`) : null,
          list(candidate.device_facts),
          candidate.verified.warnings.length ? element("p", { class: "source" }, `${candidate.verified.warnings.join("; ")}.`) : null,
        ] : [])),
      breakdown(candidate)));
}
