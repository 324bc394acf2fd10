// Typed statements that contracts can check, as src/atoll/wire/eip712.py (https://eips.ethereum.org/EIPS/eip-712).
//
// Flat structs of static values only. Integers may be number or bigint, `bytes32` and `address` are Uint8Array.

import { bigEndian, concat, keccak, utf8 } from "./hashing.js";
import { Refused } from "./refused.js";

const SIZES = { bytes32: 32, address: 20 };
const DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
const NAME = keccak(utf8("Atoll"));
const VERSION = keccak(utf8("1"));

/**
 * One value as the 32-byte word of `abi.encode` and EIP-712; throws Refused(MALFORMED) when it does not fit.
 * @param {string} kind
 * @param {number | bigint | boolean | Uint8Array} value
 * @returns {Uint8Array}
 */
export function word(kind, value) {
  const bits = /^uint(\d+)$/.exec(kind);
  if (bits) {
    const whole = typeof value === "bigint" || (typeof value === "number" && Number.isSafeInteger(value));
    if (!whole || value < 0 || BigInt(value) >> BigInt(bits[1])) throw new Refused("MALFORMED", `${kind} expected`);
    return bigEndian(value, 32);
  }
  if (kind === "bool") {
    if (typeof value !== "boolean") throw new Refused("MALFORMED", "bool expected");
    return bigEndian(value ? 1 : 0, 32);
  }
  const size = SIZES[kind];
  if (!size) throw new TypeError(`${kind} is not a type that Atoll signs`);
  if (!(value instanceof Uint8Array) || value.length !== size) throw new Refused("MALFORMED", `${kind} expected`);
  return concat(new Uint8Array(32 - size), value);
}

/** `abi.encode(...)` of static values. @param {string[]} kinds @param {unknown[]} values */
export function encodeValues(kinds, values) {
  if (kinds.length !== values.length) throw new TypeError(`${values.length} values for ${kinds.length} types`);
  return concat(...kinds.map((kind, at) => word(kind, values[at])));
}

/** `abi.encode(T[])` for a static struct T (or a single value). @param {string[]} kinds @param {unknown[][]} rows */
export function encodeArray(kinds, rows) {
  return concat(bigEndian(32, 32), bigEndian(rows.length, 32), ...rows.map((row) => encodeValues(kinds, row)));
}

/** keccak256(abi.encode(address[])): a committee as a certificate names it. @param {Uint8Array[]} accounts */
export function committeeHash(accounts) {
  return keccak(encodeArray(["address"], accounts.map((account) => [account])));
}

/**
 * The contract that checks a signature.
 * @typedef {{chainId: number | bigint, address: Uint8Array}} Verifier
 * @param {Verifier} verifier
 * @returns {Uint8Array} the EIP-712 domain separator
 */
function separator(verifier) {
  const place = encodeValues(["uint256", "address"], [verifier.chainId, verifier.address]);
  return keccak(keccak(utf8(DOMAIN_TYPE)), NAME, VERSION, place);
}

/** A flat EIP-712 struct type; `fields` as Solidity writes them: "bytes32 job,uint32 round". */
export class Struct {
  /** @param {string} name @param {string} fields */
  constructor(name, fields) {
    this.signature = `${name}(${fields})`;
    this.typeHash = keccak(utf8(this.signature));
    this.fields = fields.split(",").map((field) => field.split(" "));
  }

  /** hashStruct: 32 bytes. @param {Record<string, unknown>} values */
  hash(values) {
    const words = this.fields.map(([kind, name]) => word(kind, values[name]));
    return keccak(this.typeHash, ...words);
  }

  /** What is signed: 32 bytes. @param {Verifier} verifier @param {Record<string, unknown>} values */
  digest(verifier, values) {
    return keccak(Uint8Array.of(0x19, 0x01), separator(verifier), this.hash(values));
  }
}

// Every type that Atoll signs for a contract.
export const CERTIFICATE = new Struct(
  "Certificate",
  "bytes32 job,uint32 round,uint32 attempt,bytes32 lockRoot,bytes32 verdictRoot,bytes32 modelRoot,bytes32 committee," +
    "bytes32 nextCommittee,bool last",
);
export const RECEIPT = new Struct(
  "Receipt",
  "uint8 kind,bytes32 job,uint32 round,bytes32 unit,address account,uint16 reason,uint256 amount",
);
export const POST = new Struct(
  "Post",
  "uint64 epoch,bytes32 root,bytes32 receiptsRoot,uint64 accounts,uint64 receipts,bytes32 totals",
);
export const REGISTRATION = new Struct(
  "Registration",
  "address account,bytes32 endpointId,uint8 roles,bytes32 hints,uint256 nonce",
);
export const ENLIST = new Struct("Enlist", "bytes32 job,address account,bytes32 tip");
export const VOUCHER = new Struct("Voucher", "address payer,address payee,uint256 cumulative");
