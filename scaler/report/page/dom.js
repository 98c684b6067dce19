// Small helpers. All text of the data reaches the page through textContent, never as markup.

const byId = (id) => document.getElementById(id);

function element(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key === "on") for (const [name, react] of Object.entries(value)) node.addEventListener(name, react);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

function fill(target, ...children) {
  target.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

// A row of buttons of which one is pressed.
function switcher(target, choices, chosen, react) {
  fill(target, ...choices.map(([key, text]) => element("button", {
    type: "button",
    "data-key": key,
    "aria-pressed": String(key === chosen),
    on: {
      click: () => {
        for (const button of target.children) button.setAttribute("aria-pressed", String(button.dataset.key === key));
        react(key);
      },
    },
  }, text)));
}

// A command with a button that copies it; without clipboard access the text is selected instead.
function shell(command) {
  const code = element("code", {}, command);
  const button = element("button", { type: "button", class: "copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch {
      getSelection().selectAllChildren(code);
    }
  });
  return element("div", { class: "shell" }, code, button);
}

const PROVENANCE = {
  measured: "timed on this device",
  calibrated: "a device model fitted to published measurements",
  estimated: "from the data sheet only: wide intervals",
};
const ROLES = { pick: "★ pick", knee: "◆ knee", nearest: "▸ nearest to the target" };
const MARKS = { pick: "★", nearest: "▸", knee: "◆" };

const VERIFIED = { holds: "✓ held on the device", broken: "✗ promise broken on the device", slow: "measured on the device", "": "measured on the device" };

const badge = (kind, text, title) => element("span", { class: `badge ${kind}`, title }, text);
