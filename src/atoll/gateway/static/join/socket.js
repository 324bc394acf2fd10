// The connection to the gateway: JSON frames, answers by id, and a new try when it breaks.

const FIRST = 1_000;
const LONGEST = 60_000;
const GOODBYE = 1000;
const FULL = 1013;
const ANSWER_MILLISECONDS = 20_000;

/** Milliseconds to wait before try number `attempt` (0 is the first); `dice` in 0..1 keeps devices apart. */
export function backoff(attempt, dice) {
  const longest = Math.min(LONGEST, FIRST * 2 ** Math.min(attempt, 10));
  return Math.round(longest * (0.5 + dice / 2));
}

/** Address of the gateway's socket, from that of the page. @param {URL | Location} page */
export function socketAddress(page) {
  return `${page.protocol === "https:" ? "wss" : "ws"}://${page.host}/join/socket`;
}

/**
 * A connection that comes back. Calls `onMessage(object, size)` and `onState(state, wait, reason)` with a
 * state of "open", "closed", "full" or "ended".
 */
export class Connection {
  #socket = null;
  #attempt = 0;
  #number = 0;
  #answers = new Map();
  #timer = 0;
  #stopped = false;

  /** @param {string} address @param {{onMessage: Function, onState: Function, onSent: (size: number) => void}} hooks */
  constructor(address, hooks) {
    this.address = address;
    this.hooks = hooks;
  }

  start() {
    this.#stopped = false;
    this.#open();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
  }

  /** The connection is good: the next break is tried again soon. */
  settle() {
    this.#attempt = 0;
  }

  /**
   * Say something and wait for the answer: resolves to the gateway's `taken` or `refused`, rejects when it breaks.
   * @param {object} message without an id
   * @returns {Promise<{type: string, reason?: string, detail?: string}>}
   */
  ask(message) {
    const id = String(++this.#number);
    if (this.#socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error("not connected"));
    const text = JSON.stringify({ ...message, id });
    this.#socket.send(text);
    this.hooks.onSent(text.length);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle(id, null), ANSWER_MILLISECONDS);
      this.#answers.set(id, { resolve, reject, timer });
    });
  }

  #settle(id, answer) {
    const waiting = this.#answers.get(id);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.#answers.delete(id);
    if (answer) waiting.resolve(answer);
    else waiting.reject(new Error("no answer from the gateway"));
  }

  #open() {
    const socket = new WebSocket(this.address);
    this.#socket = socket;
    socket.onopen = () => this.hooks.onState("open", 0, "");
    socket.onmessage = ({ data }) => this.#read(data);
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  #read(data) {
    let message = null;
    try {
      message = JSON.parse(data);
    } catch {
      return; // not of this protocol; the hooks count only what can be read
    }
    if (message === null || typeof message !== "object") return;
    if (message.type === "taken" || message.type === "refused") this.#settle(String(message.id), message);
    this.hooks.onMessage(message, data.length);
  }

  #closed(code, reason) {
    for (const id of [...this.#answers.keys()]) this.#settle(id, null);
    if (this.#stopped) return;
    if (code === GOODBYE) {
      this.hooks.onState("ended", 0, reason); // it would be closed again: another tab has the account now
      return;
    }
    const wait = code === FULL ? LONGEST : backoff(this.#attempt++, Math.random());
    this.hooks.onState(code === FULL ? "full" : "closed", wait, "");
    this.#timer = setTimeout(() => this.#open(), wait);
  }
}
