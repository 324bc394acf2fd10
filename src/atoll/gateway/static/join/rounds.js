// The plain parts of duties.js: the shape of what is kept for a round, and of what the gateway tells about it.

/** What the gateway told is not taken; `code` names one of the sentences in notices.js. */
export class Wrong extends Error {
  constructor(code, unit = "") {
    super(code);
    this.code = code;
    this.unit = unit;
  }
}

/** A job of which nothing has been told. */
export function emptyState() {
  const round = { round: -1, committee: [], roster: [], model: "", beacon: "", shards: 0, done: false };
  const settled = { closed: [], locked: [], owners: null, auditBeacon: "", audited: [], openings: [], disputed: [] };
  return { ...round, ...settled, units: {}, said: {}, taken: {}, noticed: [] };
}

/** A unit that is up to this device, before anything is done about it; `role` says what is not as for the own unit. */
export function takenUnit(unit, role) {
  const work = { asked: false, states: null, update: null, locked: null, replay: null };
  return { unit, audit: false, replica: false, reveal: null, uploading: false, uploaded: false, ...work, ...role };
}

/** Some fields of an object. @param {Record<string, any>} source @param {string[]} names */
export const pick = (source, names) => Object.fromEntries(names.map((name) => [name, source[name]]));

/** Whether two say the same about where a round starts. */
export function isSameRound(left, right) {
  const names = ["round", "committee", "roster", "model", "beacon"];
  return names.every((name) => JSON.stringify(left[name]) === JSON.stringify(right[name]));
}

const isHex = (value, bytes) => typeof value === "string" && value.length === 2 * bytes && /^[0-9a-f]*$/.test(value);
const isRaw = (value) => typeof value === "string" && value.length <= 1 << 23 && /^([0-9a-f]{2})*$/.test(value);
const isList = (value, most, fits) => Array.isArray(value) && value.length <= most && value.every(fits);
const isCount = (value) => Number.isInteger(value) && value >= 0 && value < 2 ** 32;
const isUnit = (one) =>
  one !== null && typeof one === "object" && isHex(one.id, 32) && isCount(one.index) && isCount(one.shard);

/** Refuse what is not the shape of a `round` message. */
export function checkShape(told) {
  const fits =
    isCount(told.round) &&
    isHex(told.beacon, 32) &&
    isHex(told.model, 32) &&
    isList(told.committee, 16, (one) => isHex(one, 20)) &&
    isList(told.roster, 256, (one) => isHex(one, 20)) &&
    isList(told.quorums, 5, isRaw) &&
    isList(told.said ?? [], 1024, isRaw) &&
    (told.certificate === null || isRaw(told.certificate)) &&
    (told.unit === null || isUnit(told.unit)) &&
    isList(told.audits, 256, (one) => isUnit(one) && isHex(one.account, 20)) &&
    isList(told.replays, 256, (one) => isUnit(one) && isHex(one.account, 20) && isRaw(one.reveal));
  if (!fits) throw new Wrong("malformed");
}
