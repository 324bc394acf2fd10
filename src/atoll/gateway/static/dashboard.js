// The dashboard's one script: keeps the page fresh, draws charts, copies hashes, and carries the owner's actions.
//
// Nothing from the network is ever parsed as markup of this page: fresh pages come from the gateway, which escapes, and
// are compared with what is here node by node.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// -- keeping the page fresh ---------------------------------------------------------------------------------------
const REFRESH_MS = 900;
const topics = new Set((document.body.dataset.topics || "").split(" ").filter(Boolean));
const charts = [];
let source = null;
let refreshing = false;
let again = false;
let lastRefresh = 0;

/** Listen while somebody looks: a hidden page holds no connection. */
function listen() {
  if (!topics.size || document.hidden || source) return;
  source = new EventSource("/events");
  source.addEventListener("hello", () => {
    pulse("live", "live");
    refresh();
    charts.forEach((chart) => chart.load());
  });
  source.onmessage = (event) => {
    const news = JSON.parse(event.data);
    for (const [job, points] of Object.entries(news.points ?? {})) {
      charts.filter((chart) => chart.job === job).forEach((chart) => chart.append(points));
    }
    if (news.topics.some((topic) => topics.has(topic))) refresh();
  };
  source.onerror = () => pulse("lost", "connection lost, trying again");
}

function rest() {
  source?.close();
  source = null;
  pulse("off", "not live");
}

function pulse(state, words) {
  const place = $("#pulse");
  if (!place) return;
  place.dataset.state = state;
  if (place.textContent !== words) place.textContent = words;
}

/** Fetch this page again and take over what changed; never twice at a time, and not more often than once a moment. */
async function refresh() {
  if (refreshing) {
    again = true;
    return;
  }
  refreshing = true;
  await new Promise((done) => setTimeout(done, Math.max(0, lastRefresh + REFRESH_MS - Date.now())));
  lastRefresh = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.ok) adopt(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    pulse("lost", "connection lost, trying again"); // the stream tries again by itself
  }
  refreshing = false;
  if (again) {
    again = false;
    refresh();
  }
}

function adopt(fresh) {
  const told = $("[data-say]")?.textContent;
  for (const part of $$("[data-live]")) {
    const found = part.id && fresh.getElementById(part.id);
    if (found) match(part, found);
  }
  for (const part of $$("[data-live]", fresh)) {
    if (!document.getElementById(part.id)) place(part, fresh);
  }
  if (document.title !== fresh.title) document.title = fresh.title;
  const said = $("[data-say]")?.textContent;
  if (said && said !== told) $("#said").textContent = said.trim();
  charts.forEach((chart) => chart.fresh?.());
}

/** A part that was not there before goes after the same neighbour. */
function place(part, fresh) {
  const before = part.previousElementSibling;
  const here = before?.id && document.getElementById(before.id);
  if (here && fresh.contains(before)) here.after(document.importNode(part, true));
}

/** Make `here` like `there`, touching only what differs, so that focus, scroll and open details stay. */
function match(here, there) {
  if (here.nodeType !== there.nodeType || here.nodeName !== there.nodeName || (here.id ?? "") !== (there.id ?? "")) {
    here.replaceWith(document.importNode(there, true));
    return;
  }
  if (here.nodeType !== Node.ELEMENT_NODE) {
    if (here.data !== there.data) here.data = there.data;
    return;
  }
  if ("keep" in here.dataset) return;
  for (const { name } of [...here.attributes]) {
    if (!there.hasAttribute(name) && name !== "open") here.removeAttribute(name);
  }
  for (const { name, value } of there.attributes) {
    if (here.getAttribute(name) !== value) here.setAttribute(name, value);
  }
  const counts = (node) => here.nodeName !== "TBODY" || node.nodeType === Node.ELEMENT_NODE; // not spaces between rows
  const [mine, theirs] = [here, there].map((node) => [...node.childNodes].filter(counts));
  let at = 0;
  for (const child of theirs) {
    const key = child.dataset?.key;
    const isNew = key && !mine.some((one) => one.dataset?.key === key);
    if (mine[at] && !isNew) match(mine[at++], child);
    else here.insertBefore(document.importNode(child, true), mine[at] ?? null);
  }
  mine.slice(at).forEach((child) => child.remove());
}

document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
window.addEventListener("pagehide", rest);
window.addEventListener("pageshow", listen);

// -- copying ------------------------------------------------------------------------------------------------------
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const done = await copy(button.dataset.copy);
  button.classList.toggle("did", done);
  button.textContent = done ? "copied" : "press Ctrl C";
  $("#said").textContent = done ? "Copied." : "The text is selected: press Control and C.";
  setTimeout(() => {
    button.textContent = "copy";
    button.classList.remove("did");
  }, 1500);
});

/** Copy a text; over plain http a page has no clipboard, so the old way is tried as well. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    if (done) area.remove();
    else setTimeout(() => area.remove(), 5000);
    return done;
  }
}

// -- charts -------------------------------------------------------------------------------------------------------
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);
const tokens = (value) => (value == null ? "–" : String(Number(value.toFixed(4))));

/** Kinds of charts: which rows of the page's JSON twin they show, and how. `x` names the column across. */
const CHARTS = {
  curve: {
    rows: (twin) => twin.curve,
    x: "round",
    series: () => [
      {
        key: "accuracy",
        label: "accuracy",
        scale: "share",
        stroke: token("--accent"),
        width: 2.5,
        value: (_, v) => percent(v),
      },
      {
        key: "loss",
        label: "loss",
        scale: "loss",
        stroke: token("--warn"),
        width: 1.5,
        dash: [5, 4],
        value: (_, v) => v?.toFixed(4) ?? "–",
      },
    ],
    scales: {
      share: { range: (_, low, high) => [Math.max(0, Math.min(low - 0.05, 0.9)), Math.min(1, high + 0.02)] },
      loss: { range: (_, __, high) => [0, high * 1.1 || 1] },
    },
    axes: () => [
      axis("share", 3, (value) => `${Math.round(100 * value)} %`),
      axis("loss", 1, (value) => String(Number(value.toPrecision(3)))),
    ],
  },
  earnings: {
    rows: (twin) =>
      twin.earnings.epochs.map((row) =>
        Object.fromEntries(
          Object.entries(row).map(([key, value]) => [key, typeof value === "string" ? Number(value) / 1e18 : value]),
        ),
      ),
    x: "epoch",
    series: () =>
      ["training unit", "audit", "replica of a disputed unit", "committee duty"].map((key, at) => ({
        key,
        label: key,
        scale: "amount",
        stroke: [token("--accent"), token("--warn"), token("--bad"), token("--soft")][at],
        width: 2,
        dash: [[], [6, 3], [2, 3], [8, 3, 2, 3]][at],
        value: (_, v) => tokens(v),
      })),
    scales: { amount: { range: (_, __, high) => [0, high * 1.1 || 1] } },
    axes: () => [axis("amount", 3, tokens)],
  },
};

function axis(scale, side, format) {
  return { ...ink(side === 3), scale, side, size: 58, values: (_, ticks) => ticks.map(format) };
}

function ink(grid) {
  const line = { stroke: token("--line"), width: 1 };
  return { stroke: token("--soft"), font: "12px system-ui, sans-serif", grid: { show: grid, ...line }, ticks: line };
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.kind = CHARTS[figure.dataset.chart];
    this.job = figure.dataset.job;
    this.rows = [];
    this.plot = null;
    this.box = $(".plot", figure);
    new ResizeObserver(
      () => this.plot && this.plot.width !== this.size().width && this.plot.setSize(this.size()),
    ).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(true));
    if (!this.job) this.fresh = () => this.load();
  }

  /** Read all points from the page's JSON twin. */
  async load() {
    const answer = await fetch(this.figure.dataset.src, { headers: { Accept: "application/json" } }).catch(() => null);
    if (!answer?.ok) return;
    this.rows = this.kind.rows(await answer.json());
    this.draw();
  }

  /** Add points that were told as they happened; those that are known already are left out. */
  append(points) {
    const known = new Set(this.rows.map((row) => row[this.kind.x]));
    this.rows.push(...points.filter((row) => !known.has(row[this.kind.x])));
    this.rows.sort((left, right) => left[this.kind.x] - right[this.kind.x]);
    this.draw();
  }

  size() {
    const width = Math.max(240, this.box.clientWidth);
    return { width, height: width < 600 ? 200 : 270 };
  }

  draw(anew = false) {
    const series = this.kind.series();
    const data = [
      this.rows.map((row) => row[this.kind.x]),
      ...series.map(({ key }) => this.rows.map((row) => row[key] ?? null)),
    ];
    if (this.plot && !anew) {
      this.plot.setData(data);
      return;
    }
    this.plot?.destroy();
    const across = {
      ...ink(false),
      incrs: [1, 2, 5].flatMap((step) => [1, 10, 100, 1000, 1e4, 1e5].map((tens) => step * tens)).sort((a, b) => a - b),
      values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick : "")),
    };
    const range = (_, low, high) => [low ?? 0, Math.max(high ?? 0, (low ?? 0) + 5)];
    this.plot = new window.uPlot(
      {
        ...this.size(),
        series: [
          { label: this.kind.x },
          ...series.map((one) => ({ spanGaps: true, points: { show: this.rows.length < 40, size: 6 }, ...one })),
        ],
        scales: { x: { time: false, range }, ...this.kind.scales },
        axes: [across, ...this.kind.axes()],
        cursor: { drag: { setScale: false } },
      },
      data,
      this.box,
    );
  }
}

for (const figure of $$("[data-chart]")) {
  const chart = new Chart(figure);
  charts.push(chart);
  chart.load();
}

// -- the owner's actions ------------------------------------------------------------------------------------------
const KEY = "atoll.owner";

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-action]");
  if (!button || (button.dataset.ask && !window.confirm(button.dataset.ask))) return;
  button.disabled = true;
  try {
    await act(button.dataset.action, button.dataset.body);
  } finally {
    button.disabled = false;
  }
});

/** Send an action; the token is asked for when it is missing or wrong. */
async function act(path, body) {
  const owner = sessionStorage.getItem(KEY) ?? (await ask());
  if (!owner) return;
  const headers = { Authorization: `Bearer ${owner}`, "Content-Type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body }).catch(() => null);
  const found = (await answer?.json().catch(() => null)) ?? { error: "The gateway did not answer." };
  if (answer?.status === 401) sessionStorage.removeItem(KEY);
  toast(found.done ?? found.error);
  refresh();
}

/** The token, from the small form; empty if it was cancelled. @returns {Promise<string>} */
function ask() {
  const dialog = $("#owner");
  const input = $("#owner-token");
  input.value = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener(
      "close",
      () => {
        const owner = dialog.returnValue === "ok" ? input.value.trim() : "";
        if (owner) sessionStorage.setItem(KEY, owner);
        done(owner);
      },
      { once: true },
    );
  });
}

$("#owner form").addEventListener("submit", (event) => {
  event.preventDefault(); // nothing is sent by a form here
  $("#owner").close(event.submitter?.value ?? "ok");
});

function toast(text) {
  const box = document.createElement("p");
  box.className = "toast";
  box.setAttribute("role", "status");
  document.body.append(box);
  box.textContent = text;
  setTimeout(() => box.remove(), 6000);
}

listen();
