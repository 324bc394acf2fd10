// What outlives a reload: IndexedDB where the browser lends it, else memory. One table of values by name.

const NAME = "atoll-join";
const TABLE = "kept";

/**
 * @typedef {object} Store
 * @property {boolean} lasting whether a reload finds it again
 * @property {(key: string) => Promise<any>} get
 * @property {(key: string, value: any) => Promise<void>} put
 * @property {(key: string) => Promise<void>} remove
 * @property {(prefix: string) => Promise<string[]>} keys
 */

/** The store of this browser. @returns {Promise<Store>} */
export async function openStore() {
  try {
    return lastingStore(await settled(open()));
  } catch {
    return memoryStore(); // a private window may lend no database
  }
}

function open() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(TABLE);
  return request;
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function lastingStore(database) {
  const table = (mode) => database.transaction(TABLE, mode).objectStore(TABLE);
  return {
    lasting: true,
    get: (key) => settled(table("readonly").get(key)),
    put: async (key, value) => void (await settled(table("readwrite").put(value, key))),
    remove: async (key) => void (await settled(table("readwrite").delete(key))),
    keys: (prefix) => settled(table("readonly").getAllKeys(IDBKeyRange.bound(prefix, prefix + "\uffff"))),
  };
}

/** A store that lives as long as the page. @returns {Store} */
export function memoryStore() {
  const values = new Map();
  return {
    lasting: false,
    get: async (key) => values.get(key),
    put: async (key, value) => void values.set(key, value),
    remove: async (key) => void values.delete(key),
    keys: async (prefix) => [...values.keys()].filter((key) => key.startsWith(prefix)),
  };
}
