// What the device is and does: speed, battery, whether the page can be seen, the wake lock. Where browsers tell.

const SPEED = "atoll.speed";

/** The speed that an earlier visit has measured; 0 for none. @param {Storage} storage @returns {number} */
export function knownSpeed(storage) {
  return Math.max(0, Number(storage.getItem(SPEED)) || 0);
}

/**
 * Measure the speed in one second and keep it: millions of operations a second.
 * @param {Storage} storage
 * @returns {Promise<number>}
 */
export function measureSpeed(storage) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./benchmark.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => {
      worker.terminate();
      storage.setItem(SPEED, String(Math.round(data)));
      resolve(data);
    };
    worker.onerror = () => {
      worker.terminate();
      reject(new Error("the speed of this device could not be measured"));
    };
    worker.postMessage(null);
  });
}

/** The battery where the browser tells of it; calls `onChange` when it changes. @returns {Promise<object | null>} */
export async function watchBattery(navigator, onChange) {
  if (typeof navigator.getBattery !== "function") return null;
  try {
    const battery = await navigator.getBattery();
    battery.addEventListener("chargingchange", onChange);
    battery.addEventListener("levelchange", onChange);
    return battery;
  } catch {
    return null; // it has the function and does not let this page use it
  }
}

/** Keeps the screen on while work goes on and the page can be seen, where the browser allows it. */
export class WakeLock {
  #lock = null;

  /** @param {boolean} wanted */
  async want(wanted, navigator) {
    if (!("wakeLock" in navigator)) return;
    if (!wanted) {
      const lock = this.#lock;
      this.#lock = null;
      await lock?.release();
    } else if (this.#lock === null || this.#lock.released) {
      this.#lock = await navigator.wakeLock.request("screen").catch(() => null); // a low battery may forbid it
    }
  }
}
