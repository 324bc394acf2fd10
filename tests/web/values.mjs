// Values between Python and JavaScript as JSON: bytes, typed arrays, bigints and maps are {"$": kind, "v": value}.
// tests/web/modules.py is the other side. For Node and browsers.

const TYPES = { u8: Uint8Array, i32: Int32Array, u32: Uint32Array, f32: Float32Array, f64: Float64Array };
const CHUNK = 0x8000;

export function read(value) {
  if (Array.isArray(value)) return value.map(read);
  if (value === null || typeof value !== "object") return value;
  const { $: kind, v } = value;
  if (kind === "int") return BigInt(v);
  if (kind === "map") return new Map(v.map(([key, each]) => [key, read(each)]));
  if (kind) return new TYPES[kind](Uint8Array.from(atob(v), (letter) => letter.charCodeAt(0)).buffer);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, read(each)]));
}

function base64({ buffer, byteOffset, byteLength }) {
  const bytes = new Uint8Array(buffer, byteOffset, byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += CHUNK) text += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
  return btoa(text);
}

export function write(value) {
  if (typeof value === "bigint") return { $: "int", v: String(value) };
  if (value instanceof Map) return { $: "map", v: [...value].map(([key, each]) => [key, write(each)]) };
  for (const [kind, type] of Object.entries(TYPES)) if (value instanceof type) return { $: kind, v: base64(value) };
  if (value instanceof BigInt64Array) return [...value].map(write);
  if (Array.isArray(value)) return value.map(write);
  if (value === null || typeof value !== "object") return value ?? null;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, write(each)]));
}
