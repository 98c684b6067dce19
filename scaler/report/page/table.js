// The front as a table: click or press a header to sort, a row to select its candidate.

const tableState = { key: "rank", descending: false };

function tableColumns(device) {
  const parameters = device.columns.map((column, index) => ({
    key: `param-${index}`, title: column.short, full: column.title, number: column.numeric, wide: true,
    order: (candidate) => candidate.cells[index].order,
    cell: (candidate) => [candidate.cells[index].text],
  }));
  const interval = (key, title, under, full, note = (candidate) => candidate[key].ends) => ({
    key, title, under, full, number: true,
    order: (candidate) => candidate[key].mean,
    cell: (candidate) => [candidate[key].text, element("small", {}, note(candidate))],
  });
  const optional = (key, title, under, full) => (device.candidates.some((candidate) => candidate[key]) ? [{
    ...interval(key, title, under, full),
    wide: true,
    order: (candidate) => candidate[key]?.mean ?? null,
    cell: (candidate) => (candidate[key] ? [candidate[key].text, element("small", {}, candidate[key].ends)] : ["–"]),
  }] : []);
  const loss = optional("loss", "loss", "INT8", "Points of accuracy that 8-bit integers are predicted to cost, with the 90 % interval");
  const energy = optional("energy", "mJ", "90 %", "Energy of a frame in millijoules with its 90 % interval");
  const runs = device.candidates.flatMap((candidate) => candidate.trained ?? []);
  const places = [...new Set(runs.map((run) => run.on))];
  const measured = {
    key: "trained", title: "trained", under: places.length === 1 ? places[0].replace(/^trained /, "") : "measured", number: true,
    full: `Accuracy measured after training: ${[...new Set(runs.map((run) => `${run.metric}, ${run.on}`))].join("; ")}`,
    order: (candidate) => candidate.trained?.value ?? null,
    cell: (candidate) => candidate.trained ? [
      element("span", { title: `${candidate.trained.metric}, ${candidate.trained.on} (${candidate.trained.how})` }, candidate.trained.text),
      places.length === 1 ? "" : element("small", {}, candidate.trained.on),
    ] : ["–"],
  };
  const verified = verifiedColumn(device.candidates.filter((candidate) => candidate.verified));
  const figures = [
    {
      ...interval("ap", "AP", "90 %", `${report.metric} with its 90 % interval`),
      cell: (candidate) => [
        candidate.outside.length ? element("span", { class: "beyond", title: `extrapolated: ${candidate.outside.join("; ")}` }, "†") : "",
        candidate.ap.text, element("small", {}, candidate.ap.ends),
      ],
    },
    ...loss,
    ...(device.candidates.some((candidate) => candidate.trained) ? [measured] : []),
    interval("frame", "ms", "engine", "Frame time in ms, and the engine alone", (candidate) => candidate.engine.text),
    interval("fps", "FPS", "90 %", "Frames per second with the 90 % interval"),
    ...verified,
    ...energy,
  ];
  const reach = {
    key: "reach", title: "P", full: `Probability to reach ${device.target_text}`, number: true, wide: true,
    order: (candidate) => candidate.reach.value, cell: (candidate) => [candidate.reach.text],
  };
  return [
    { key: "rank", title: "#", full: `Place on the front, ${report.minimize === "energy" ? "thriftiest" : "fastest"} first`, number: true, order: (c) => c.rank ?? 0, cell: (c) => [c.rank === null ? "–" : String(c.rank)] },
    { key: "network", title: "network", full: "Network", order: (c) => c.label, cell: (c) => [c.head, element("small", {}, c.tail)] },
    ...parameters,
    ...figures,
    ...(device.target ? [reach] : []),
    { key: "params", title: "params", full: "Parameters", number: true, wide: true, roomy: runs.length + loss.length + energy.length + verified.length > 0, order: (c) => c.params.value, cell: (c) => [c.params.text] },
    { key: "id", title: "id", full: "Name of the candidate in commands", roomy: true, order: (c) => c.id, cell: (c) => [element("code", {}, c.id)] },
  ];
}

// Frames per second on the device; no column where nothing was measured.
function verifiedColumn(candidates) {
  if (!candidates.length) return [];
  const kinds = [...new Set(candidates.map((candidate) => candidate.verified.of))];
  return [{
    key: "verified", title: "verified", under: kinds.length === 1 ? candidates[0].verified.kind : "frame", number: true,
    full: `Frames per second measured on the device (${kinds.join(" or ")}), and how far that is from the prediction`,
    order: (candidate) => candidate.verified?.fps.mean ?? null,
    cell: ({ verified }) => (verified ? [
      element("span", { class: verified.state, title: verified.promise || verified.of }, `${verified.state === "broken" ? "✗ " : ""}${verified.fps.text}`),
      element("small", {}, kinds.length > 1 && verified.kind === "engine" ? "engine" : verified.deviation),
    ] : ["–"]),
  }];
}

const columnClass = (column) => [column.key, ...["number", "wide", "roomy"].filter((name) => column[name])].join(" ");

function sorted(candidates, column) {
  const sign = tableState.descending ? -1 : 1;
  return [...candidates].sort((one, other) => {
    const [a, b] = [column.order(one), column.order(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    return sign * order || (one.rank ?? 0) - (other.rank ?? 0);
  });
}

function drawTable(device, selected, select) {
  const shown = tableColumns(device);
  const by = shown.find((column) => column.key === tableState.key) ?? shown[0];
  const headers = shown.map((column) => element("th", {
    scope: "col", class: columnClass(column), "data-key": column.key,
    "aria-sort": column === by ? (tableState.descending ? "descending" : "ascending") : "none",
  }, element("button", {
    type: "button", class: "sort", title: column.full,
    on: {
      click: () => {
        tableState.descending = tableState.key === column.key && !tableState.descending;
        tableState.key = column.key;
        drawTable(device, document.querySelector(".front [aria-selected=true]")?.dataset.id ?? selected, select);
        document.querySelector(`.front th[data-key="${column.key}"] button`).focus();
      },
    },
  }, column.title, column.under ? element("small", {}, column.under) : null)));
  const rows = sorted(device.candidates, by).map((candidate) => tableRow(candidate, shown, selected, select, device));
  byId("front").classList.toggle("checked", shown.some((column) => column.key === "verified"));
  fill(byId("front"),
    element("caption", { hidden: true }, `Pareto front of ${device.title}`),
    element("thead", {}, element("tr", {}, element("td", {}), ...headers)),
    element("tbody", {}, ...rows));
}

function tableRow(candidate, shown, selected, select, device) {
  const role = candidate.roles[0];
  const mark = role ? element("span", { class: role, title: ROLES[role] }, MARKS[role]) : "";
  const state = device.pick && !candidate.reaches ? "slow" : candidate.roles.includes("pick") ? "pick" : "";
  return element("tr", {
    tabindex: "0", "data-id": candidate.id, class: state, "aria-selected": String(candidate.id === selected),
    "aria-label": `${candidate.label}, ${candidate.ap.text} AP, ${candidate.fps.text} FPS`,
    on: {
      click: () => select(candidate.id),
      keydown: (event) => {
        const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(candidate.id); }
        if (step) { event.preventDefault(); event.currentTarget[step]?.focus(); }
      },
    },
  }, element("td", { class: "mark" }, mark), ...shown.map((column) => element("td", { class: columnClass(column) }, ...column.cell(candidate))));
}

function markRow(selected) {
  for (const row of document.querySelectorAll(".front tbody tr")) row.setAttribute("aria-selected", String(row.dataset.id === selected));
}

function drawReferences(device) {
  const card = byId("references-card");
  card.hidden = device.references.length === 0;
  const titles = [
    ["model", ""], ["published AP", "number"], ["predicted", "number wide"], ["Δ AP", "number wide"],
    ["published FPS", "number"], ["predicted", "number wide"], ["Δ FPS", "number wide"],
  ];
  const outsideTitle = "outside the 90 % interval of the prediction";
  const published = (figure, predicted, deviation, covered) => element("td", { class: "number" }, figure.text,
    element("small", { class: covered ? "narrow" : "narrow off" }, `pred. ${predicted.text} (${deviation})`));
  const predicted = (figure) => element("td", { class: "number wide" }, figure.text, element("small", {}, figure.ends));
  const difference = (text, covered) => element("td", { class: covered ? "number wide" : "number wide off", title: covered ? null : outsideTitle }, text);
  fill(byId("references"),
    element("thead", {}, element("tr", {}, ...titles.map(([title, kind]) => element("th", { scope: "col", class: `plain ${kind}` }, title)))),
    element("tbody", {}, ...device.references.map((reference) => element("tr", {},
      element("td", {}, reference.name),
      published(reference.ap, reference.predicted_ap, reference.ap_deviation, reference.ap_covered),
      predicted(reference.predicted_ap),
      difference(reference.ap_deviation, reference.ap_covered),
      published(reference.fps, reference.predicted_fps, reference.fps_deviation, reference.fps_covered),
      predicted(reference.predicted_fps),
      difference(reference.fps_deviation, reference.fps_covered)))));
  const outside = device.references.some((reference) => !reference.ap_covered || !reference.fps_covered);
  const sources = [...new Set(device.references.map((reference) => reference.source))].join("; ");
  byId("references-note").textContent = `Published: ${sources}.${outside ? " Coloured deviations lie outside the 90 % interval of the prediction." : ""}`;
}
