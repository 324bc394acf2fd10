// The page /join: what a person presses, and what happens then.

import { WakeLock, knownSpeed, measureSpeed, watchBattery } from "./device.js";
import { BadKey, createKey, exportKey, importKey, loadKey, rememberNetwork } from "./keys.js";
import { readLimits, wantsLight } from "./limits.js";
import { Session } from "./session.js";
import { socketAddress } from "./socket.js";
import { memoryStore, openStore } from "./store.js";
import {
  showBattery, showDevice, showIdentity, showOffers, showRunning, showSession, showSpeed, showStopped, showTrouble,
} from "./view.js";

const LIMITS = "atoll.limits";
const WORKING = "atoll.working";
const LATE = "atoll.late";
const LOOK = 2_000; // milliseconds between two looks at the limits
const NUMBERS = ["dataPerHour", "cpuShare", "batteryFloor"];
const FLAGS = ["onlyCharging", "pauseHidden"];
const NEEDED = ["WebAssembly", "Worker", "WebSocket", "crypto", "DecompressionStream"];
const CHOICES = { auto: null, yes: true, no: false };

const byId = (id) => document.getElementById(id);

/** The storage of this browser; one that lasts as long as the page where a private window lends none. */
function lentStorage() {
  try {
    localStorage.setItem("atoll.test", "1");
    localStorage.removeItem("atoll.test");
    return localStorage;
  } catch {
    const values = new Map();
    return {
      getItem: (name) => values.get(name) ?? null,
      setItem: (name, value) => void values.set(name, value),
      removeItem: (name) => void values.delete(name),
    };
  }
}

const storage = lentStorage();
const lock = new WakeLock();
let limits = readLimits(storage.getItem(LIMITS));
let identity = null;
let store = memoryStore();
let battery = null;
let speed = knownSpeed(storage);
let late = Number(storage.getItem(LATE)) || 0; // whole units that came too late, one after another
let session = null;
let shown = false;

// -- showing ---------------------------------------------------------------------------------------------------------
/** Show at most once a frame; a hidden page is brought up to date when it is seen again. */
function changed() {
  if (shown || !session) return;
  shown = true;
  const paint = () => {
    shown = false;
    if (session) showSession(session);
  };
  if (document.hidden) setTimeout(paint, 250);
  else requestAnimationFrame(paint);
}

function look() {
  showBattery(battery);
  session?.look();
  lock.want(session !== null && !session.why && !document.hidden, navigator);
}

// -- starting and stopping -------------------------------------------------------------------------------------------
async function start(pressed = null) {
  byId("start").disabled = true;
  showTrouble("");
  try {
    identity ??= createKey(storage, (bytes) => crypto.getRandomValues(bytes));
    showIdentity(identity);
    speed ||= await measureSpeed(storage);
    begin();
    if (pressed) byId("pause").focus(); // what was pressed is gone
  } catch (error) {
    showTrouble(`This browser cannot take part: ${error.message}.`);
  } finally {
    byId("start").disabled = false;
  }
}

/** Whether small units are wanted by now. */
function isLight() {
  return wantsLight(limits, speed, late);
}

/** Remember how many whole units came too late. */
function keepLate(times) {
  late = times;
  storage.setItem(LATE, String(times));
  showSpeed(speed, isLight());
  return isLight();
}

function begin() {
  const light = isLight();
  showSpeed(speed, light);
  session = new Session({
    identity,
    limits,
    light,
    store,
    address: socketAddress(location),
    remember(network) {
      identity = rememberNetwork(storage, identity, network);
      showIdentity(identity);
    },
    facts: () => ({ hidden: document.hidden, battery }),
    late,
    onLate: keepLate,
    onChange: changed,
  });
  storage.setItem(WORKING, "1");
  showRunning(true);
  session.start();
  look();
}

function stop() {
  if (session) showStopped(session);
  session?.stop();
  session = null;
  storage.removeItem(WORKING);
  showRunning(false);
  look();
  byId("stopped-title").focus(); // what was pressed is gone
  showJobs();
}

/** What is open now, before anything is started: no socket is needed for it. */
async function showJobs() {
  const answer = await fetch("/jobs.json", { headers: { Accept: "application/json" } }).catch(() => null);
  if (answer?.ok) showOffers((await answer.json()).jobs);
}

// -- limits ----------------------------------------------------------------------------------------------------------
function showLimits() {
  const form = byId("limits-form").elements;
  for (const name of NUMBERS) form[name].value = limits[name];
  for (const name of FLAGS) form[name].checked = limits[name];
  form.light.value = Object.keys(CHOICES).find((choice) => CHOICES[choice] === limits.light);
}

function readForm() {
  const form = byId("limits-form").elements;
  const numbers = Object.fromEntries(NUMBERS.map((name) => [name, form[name].valueAsNumber]));
  const flags = Object.fromEntries(FLAGS.map((name) => [name, form[name].checked]));
  limits = readLimits(JSON.stringify({ ...numbers, ...flags, light: CHOICES[form.light.value] }));
  storage.setItem(LIMITS, JSON.stringify(limits));
  showLimits();
  showSpeed(speed, isLight());
  if (session) Object.assign(session, { limits, light: isLight() });
  look();
}

// -- the key ---------------------------------------------------------------------------------------------------------
function saveKey() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([exportKey(identity)], { type: "application/json" }));
  link.download = `atoll-key-${identity.account.slice(0, 8)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  byId("key-answer").textContent = "Saved. Whoever has this file has what the key earned.";
}

function showKey() {
  const text = byId("key-text");
  text.hidden = !text.hidden;
  text.value = text.hidden ? "" : exportKey(identity);
  byId("show-key").setAttribute("aria-expanded", String(!text.hidden));
  byId("show-key").textContent = text.hidden ? "Show as text" : "Hide";
}

async function bringKey(event) {
  event.preventDefault();
  const form = byId("import-form");
  const file = form.elements.file.files[0];
  const answer = byId("key-answer");
  try {
    const text = file ? await file.text() : form.elements.text.value;
    const replaced = identity && !confirm("Another key is in this browser. Has it been saved? It will be replaced.");
    if (replaced) return;
    if (session) stop();
    identity = importKey(storage, text);
    form.reset();
    showIdentity(identity);
    answer.textContent = "This key is used from now on.";
  } catch (error) {
    if (!(error instanceof BadKey)) throw error;
    answer.textContent = error.message;
  }
}

// -- the page --------------------------------------------------------------------------------------------------------
function wire() {
  const press = { "start": start, "stop": stop, "save-key": saveKey, "show-key": showKey };
  for (const [id, act] of Object.entries(press)) byId(id).addEventListener("click", act);
  byId("pause").addEventListener("click", () => session?.pause(!session.paused));
  byId("claim").addEventListener("click", async () => (byId("answer").textContent = (await session?.claim()) ?? ""));
  byId("limits-form").addEventListener("change", readForm);
  byId("limits-form").addEventListener("submit", (event) => event.preventDefault());
  byId("import-form").addEventListener("submit", bringKey);
  byId("measure").addEventListener("click", async () => {
    speed = await measureSpeed(storage);
    if (session) session.late = 0;
    keepLate(0);
    readForm();
  });
  document.addEventListener("visibilitychange", look);
  setInterval(look, LOOK);
}

/** What keeps this browser from taking part; "" for nothing. */
function lacking() {
  const missing = NEEDED.filter((name) => !globalThis[name]);
  return missing.length ? `This browser is too old for this page: it has no ${missing.join(", ")}.` : "";
}

async function open() {
  wire();
  showLimits();
  showTrouble(lacking());
  try {
    identity = loadKey(storage);
  } catch (error) {
    if (!(error instanceof BadKey)) throw error;
    showTrouble(`The key in this browser cannot be read. ${error.message}`);
  }
  store = await openStore();
  battery = await watchBattery(navigator, look);
  showIdentity(identity);
  showDevice(store);
  showBattery(battery);
  showSpeed(speed, isLight());
  showRunning(false);
  showJobs();
  byId("limits").open = identity === null; // part of what a newcomer agrees to
  if (identity && storage.getItem(WORKING)) start(); // it was at work when the page was closed or reloaded
}

open();
