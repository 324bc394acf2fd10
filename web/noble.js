// What the browser modules need of the noble libraries: this file alone decides what the bundle contains.
export { secp256k1 } from "@noble/curves/secp256k1.js";
export { keccak_256 } from "@noble/hashes/sha3.js";
export { chacha20 } from "@noble/ciphers/chacha.js";
