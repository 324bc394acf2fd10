// What the owner of this device allows, and whether work may begin now. Pure: facts and times are handed in.

/**
 * @typedef {object} Limits
 * @property {number} dataPerHour megabytes that may be sent and received in an hour
 * @property {number} cpuShare percent of the time that one processor core may be busy
 * @property {boolean} onlyCharging work only while the device is being charged, where the browser tells
 * @property {number} batteryFloor percent of the battery below which nothing is begun, where the browser tells
 * @property {boolean} pauseHidden rest while the page cannot be seen
 * @property {boolean | null} light small units: yes, no, or as the speed of the device suggests (null)
 */

/** @type {Readonly<Limits>} */
export const DEFAULTS = Object.freeze({
  dataPerHour: 200,
  cpuShare: 50,
  onlyCharging: false,
  batteryFloor: 20,
  pauseHidden: false,
  light: null,
});

const RANGES = { dataPerHour: [1, 100_000], cpuShare: [10, 100], batteryFloor: [0, 100] };
const HOUR = 3_600_000;
const MINUTE = 60_000;
const MEGABYTE = 1e6;

/** Millions of multiplications and additions a second below which a device is given small units. */
export const LIGHT_BELOW = 400;

/** Limits from a stored text; what is missing or out of range has its default. @param {string | null} text */
export function readLimits(text) {
  let found = {};
  try {
    found = JSON.parse(text ?? "{}") ?? {};
  } catch {
    return { ...DEFAULTS };
  }
  const limits = { ...DEFAULTS };
  for (const [name, [low, high]] of Object.entries(RANGES)) {
    const value = found[name];
    if (Number.isFinite(value)) limits[name] = Math.min(high, Math.max(low, Math.round(value)));
  }
  for (const name of ["onlyCharging", "pauseHidden"]) if (typeof found[name] === "boolean") limits[name] = found[name];
  if (typeof found.light === "boolean") limits.light = found.light;
  return limits;
}

/**
 * Why no work may begin now, as a sentence; "" when it may.
 * @param {Limits} limits
 * @param {{paused: boolean, hidden: boolean, bytesThisHour: number,
 *   battery: {level: number, charging: boolean} | null}} facts
 */
export function whyNot(limits, facts) {
  if (facts.paused) return "Paused by you.";
  if (limits.pauseHidden && facts.hidden) return "Resting while this page is hidden.";
  if (facts.battery && limits.onlyCharging && !facts.battery.charging) return "Waiting for the charger.";
  const low = facts.battery && !facts.battery.charging && facts.battery.level * 100 < limits.batteryFloor;
  if (low) return `The battery is below ${limits.batteryFloor} %: waiting for the charger.`;
  if (facts.bytesThisHour >= limits.dataPerHour * MEGABYTE) {
    return `${limits.dataPerHour} MB were used within the last hour: waiting until some of it is over.`;
  }
  return "";
}

/** Whole units that came too late, one after another, after which small ones are taken. */
export const TOO_LATE = 2;

/** Whether small units suit this device: the owner's choice, else its speed, and whole units that came too late. */
export function wantsLight(limits, speed, late = 0) {
  return limits.light ?? (speed < LIGHT_BELOW || late >= TOO_LATE);
}

/** Adds up amounts over the last hour, a bucket for each minute. */
export class HourMeter {
  #buckets = [];
  total = 0;

  /** @param {number} amount @param {number} now milliseconds */
  add(amount, now) {
    const minute = Math.floor(now / MINUTE);
    const last = this.#buckets.at(-1);
    if (last?.minute === minute) last.amount += amount;
    else this.#buckets.push({ minute, amount });
    this.total += amount;
  }

  /** What was added within the hour before `now`. */
  lastHour(now) {
    const first = Math.floor((now - HOUR) / MINUTE);
    this.#buckets = this.#buckets.filter((bucket) => bucket.minute > first);
    return this.#buckets.reduce((sum, bucket) => sum + bucket.amount, 0);
  }
}

/**
 * How much an hour brings, from what so many pieces of work brought in so many milliseconds, to three digits; null
 * before the first minute and the third piece.
 */
export function perHour(amount, elapsed, pieces) {
  return elapsed < MINUTE || pieces < 3 ? null : Number(((amount * HOUR) / elapsed).toPrecision(3));
}
