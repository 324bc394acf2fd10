// Puts what the tab knows onto the page. Text from the network goes in as text, never as markup.

import { formatAccount } from "../atoll/identity.js";
import { unhex } from "../atoll/hashing.js";
import { sentenceOf } from "../atoll/refused.js";
import { WORK, deviceFacts, megabytes, offers, sentence, summary, tokens } from "./status.js";

const byId = (id) => document.getElementById(id);

/** Write a text where it differs: a screen reader is told of changes only. */
function write(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** Show the page for a key, before or after the start. @param {import("./keys.js").Identity | null} identity */
export function showIdentity(identity) {
  const account = identity ? formatAccount(unhex(identity.account)) : "";
  write("account", account || "none yet: it is made when you start");
  byId("save-key").disabled = byId("show-key").disabled = identity === null;
  for (const link of ["statement", "stopped-statement"]) byId(link).href = account ? `/accounts/${account}` : "/";
  byId("new-key").hidden = identity !== null;
  byId("old-key").hidden = identity === null;
  const network = identity?.network;
  write("network", network ? `Used on the network of chain ${network.chainId}, registry 0x${network.registry}.` : "");
}

/** Which parts of the page are seen. @param {boolean} running */
export function showRunning(running) {
  byId("consent").hidden = running;
  byId("work").hidden = !running;
  const ended = byId("stopped-sum").textContent !== "";
  byId("stopped").hidden = running || !ended;
  for (const id of ["history", "notices"]) byId(id).hidden = !running && !(id === "history" && ended);
}

/** What the visit that ends now came to. @param {import("./session.js").Session} session */
export function showStopped({ record }) {
  write("stopped-sum", summary(record.earned, record.accepted, tokenName()));
}

/** Which jobs could be joined, before the start. @param {object[]} jobs rows of /jobs.json */
export function showOffers(jobs) {
  write("offers", offers(jobs, tokenName()));
}

const tokenName = () => byId("tab").dataset.token;

/** Something that keeps the page from working, "" for nothing. */
export function showTrouble(text) {
  byId("trouble").hidden = !text;
  write("trouble", text);
}

/** What browsers allow here, in words. */
export function showDevice(store) {
  const rows = deviceFacts(window, store).flatMap(([name, said]) => [element("dt", "", name), element("dd", "", said)]);
  byId("device-facts").replaceChildren(...rows);
}

/** The speed of the device and what follows from it. */
export function showSpeed(speed, light) {
  const size = light ? "small units" : "whole units";
  const measured = `Measured: ${Math.round(speed)} million operations a second in plain JavaScript.`;
  write("speed", speed > 0 ? `${measured} This device takes ${size}.` : "The speed is measured at the first start.");
}

/** Level and charging of the battery, where the browser tells. */
export function showBattery(battery) {
  const charging = battery?.charging ? ", charging" : "";
  const told = battery && `The battery is at ${Math.round(battery.level * 100)} %${charging}.`;
  write("battery", told || "This browser does not tell about the battery: these two limits do nothing here.");
}

/** Everything that changes while the tab works. @param {import("./session.js").Session} session */
export function showSession(session) {
  const { account, record, task } = session;
  const state = sentence({ ...facts(session), task, account, jobs: session.standing });
  write("status", state);
  // It changes several times in a round; read aloud is what holds the work up, and that it goes on.
  write("said", session.why || session.connection !== "open" ? state : "At work.");
  const percent = Math.round(100 * (task ? session.progress : 0));
  byId("progress").value = percent;
  byId("progress").textContent = `${percent} %`;
  write("progress-label", task ? `${WORK[task.what]}: ${percent} %` : "No unit under way");
  write("earned", tokens(record.earned));
  const paid = account && `Paid out: ${tokens(account.claimed)}.`;
  write("money", account ? `Settled for this key so far: ${tokens(account.earned)}. ${paid}` : "");
  const claimable = account ? BigInt(account.earned) - BigInt(account.claimed) : 0n;
  write("claimable", account ? tokens(claimable) : "–");
  byId("claim").disabled = claimable <= 0n;
  const grey = "The button is grey while nothing is ready to be claimed.";
  write("claim-words", `The gateway claims for you when an epoch is final. ${claimable > 0n ? "" : grey}`.trim());
  write("units", String(record.accepted));
  write("rate", session.rate === null ? "–" : tokens(session.rate));
  write("data", megabytes(session.data.total));
  write("share", `${session.share} %`);
  byId("pause").setAttribute("aria-pressed", String(session.paused));
  write("pause", session.paused ? "Go on" : "Pause");
  showUnits(record.rows);
  showNotices(session.notices);
}

function facts({ running, connection, wait, full, why, joining }) {
  return { running, connection, wait, full, why, joining };
}

let shownUnits = "";

function showUnits(units) {
  const state = JSON.stringify(units);
  if (state === shownUnits) return;
  shownUnits = state;
  byId("no-units").hidden = units.length > 0;
  byId("unit-list").replaceChildren(...units.map(unitRow));
}

function unitRow({ round, kind, reason, sentence: said, amount, signed }) {
  const row = document.createElement("li");
  const good = reason === "OK";
  const verdict = good ? "accepted" : "not paid";
  row.append(element("span", good ? "good" : "bad", `${WORK[kind]}, round ${round + 1}: ${verdict}`));
  row.append(element("span", "pay", amount === null ? "…" : tokens(amount)));
  const why = good ? "" : sentenceOf(reason) || said || reason;
  const words = [why, signed ? "Signed by the committee." : "As the gateway tells it."];
  row.append(element("span", "said", words.filter(Boolean).join(" ")));
  return row;
}

let shownNotices = [];

/** New ones come first, and are the only rows that are added: a screen reader reads no notice twice. */
function showNotices(notices) {
  const list = byId("notice-list");
  const fresh = notices.filter((one) => !shownNotices.includes(one));
  shownNotices = [...notices];
  byId("notices").hidden = notices.length === 0;
  list.prepend(...fresh.map(({ text, detail }) => element("li", "", detail ? `${text} (${detail})` : text)));
  while (list.children.length > notices.length) list.lastElementChild.remove();
}
