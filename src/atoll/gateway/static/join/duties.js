// One job as a browser tab lives it: events in, effects out. Pure: no clock, no dice, no socket, no storage.
//
// The gateway tells; this file believes only what the round's committee has signed. A round's phase is the number of
// its quorums that were verified here, whatever the gateway calls it. So nothing but a salted commitment leaves the tab
// before a quorum has locked the audits, and a commit or an opening that the gateway did not pass on is noticed.
// Who sits in a committee follows from the certificate of the round before, and so on back to the job's first one:
// nothing is done in a round whose committee was not followed so.
//
// Bytes are lower-case hex strings here, so that the whole state can be stored as it is (`snapshot`).
//
// Events (`handle`):
//   {type: "round", at, ...}                    as the gateway tells it (docs/protocol/tabs.md); `at` in milliseconds
//   {type: "worked", unit, states, update}      a unit is done: ids of its states, first to last, and of its update
//   {type: "replayed", unit, segment, state}    a disputed unit was run again: first segment that differs, own state
//   {type: "failed", unit}                      it could not be done; asked for again when its round is told again
//   {type: "uploaded", unit}                    the gateway has the bytes of a unit
//   {type: "not-uploaded", unit}                it has not; tried again when the gateway tells of the round
//   {type: "taken", key, at}                    the gateway has taken what was said under this key
//   {type: "refused", key, reason}              the gateway has refused it
//   {type: "lost", unit}                        the bytes of a unit are gone from this device
//   {type: "allow", work: boolean}              whether new work may be begun (limits, pause)
//   {type: "again"}                             a new connection: what belongs to the present phase is said again
//   {type: "followed", from, certificates}      certificates from a round on; none if they cannot be had now
//   {type: "ended", certificate}                the job is over: the certificate of its last round
// Effects:
//   {do: "train", unit, audit}                  comes back as worked or failed
//   {do: "rerun", unit, reveal}                 comes back as replayed or failed
//   {do: "upload", unit, blobs}                 ids of bytes; comes back as uploaded or not-uploaded
//   {do: "say", key, raw}                       a sealed message for the committee
//   {do: "cancel", unit}                        the result would come too late
//   {do: "follow", from}                        certificates from a round on are wanted; comes back as followed
//   {do: "forget", before}                      the bytes of earlier rounds are not needed any more
//   {do: "verdict", round, kind, unit, reason}  signed by the committee
//   {do: "notice", code, round, unit}           something a person should know; codes are those of notices.js

import { DISPUTED } from "../atoll/committee.js";
import { hex, unhex } from "../atoll/hashing.js";
import { PHASES, seal } from "../atoll/messages.js";
import { commitHash, statesRoot } from "../atoll/units.js";
import { auditBeacon, auditorOf, drawnUnit, isReplica, openEnvelope, openQuorum, ownersOf } from "./proofs.js";
import { Wrong, checkShape, emptyState, isSameRound, pick, takenUnit } from "./rounds.js";

const { LOCK, AUDIT, OPEN, CERTIFY } = PHASES;
const PHASES_OF = { Commit: LOCK, AuditCommit: AUDIT, Reveal: OPEN, AuditReveal: OPEN, Replay: CERTIFY };
const GRACE = 5_000; // milliseconds: the protocol's grace and a second for the way
const KEPT_NOTICES = 64; // of one round
const ZERO = "00".repeat(32);
const PASSIVE = ["failed", "not-uploaded", "refused"]; // not begun again at once: it would turn in circles

/** The duties of one account in one job. */
export class Duties {
  /**
   * @param {{chainId: number, registry: string, jobs: string, job: string, segments: number,
   *   firstCommittee: string[]}} place the network, the contract that checks certificates, the job, how many segments
   *   its units have, and the committee of its first round
   * @param {{account: string, key: import("../atoll/identity.js").AccountKey, salt: (unit: string) => string}} me
   * @param {object|null} kept a `snapshot` of an earlier visit
   */
  constructor(place, me, kept = null) {
    this.place = { ...place, domain: { chainId: place.chainId, registry: unhex(place.registry) } };
    this.me = me;
    this.work = true;
    this.ahead = null; // what was told of a round whose committee is not known yet
    this.asking = false; // whether certificates were asked for
    this.state = { ...emptyState(), ...JSON.parse(JSON.stringify(kept)) };
    for (const one of Object.values(this.state.units)) {
      Object.assign(one, { asked: false, uploading: false }); // what was under way died with the page
    }
    this.out = [];
  }

  /** Everything that has to outlive the page, as plain values. */
  snapshot() {
    return JSON.parse(JSON.stringify(this.state));
  }

  /** The phase of the round as far as quorums prove it: 0 (lock) to 4 (certify). */
  get phase() {
    return Math.min(this.state.closed.length, CERTIFY);
  }

  /** Fold one event in and return what is to be done about it. */
  handle(event) {
    this.out = [];
    const unit = this.state.units[event.unit];
    if (event.type === "round") this.#told(event);
    else if (event.type === "allow") this.work = event.work;
    else if (event.type === "again") this.#again();
    else if (event.type === "followed") this.#followed(event);
    else if (event.type === "ended") this.#ended(event.certificate);
    else if (event.type === "taken") this.state.taken[event.key] = event.at ?? null;
    else if (unit && event.type === "worked") Object.assign(unit, pick(event, ["states", "update"]), { asked: false });
    else if (unit && event.type === "replayed") Object.assign(unit, { replay: pick(event, ["segment", "state"]) });
    else if (unit && event.type === "failed") unit.asked = false;
    else if (unit && event.type === "uploaded") unit.uploaded = true;
    else if (unit && event.type === "not-uploaded") unit.uploading = false;
    else if (unit && event.type === "lost") this.#lost(event.unit, unit);
    else if (event.type === "refused") this.#refused(event);
    if (!PASSIVE.includes(event.type)) this.#act();
    return this.out;
  }

  // -- what the gateway tells ----------------------------------------------------------------------------------------
  #told(told) {
    this.#checked(told.round, () => {
      checkShape(told);
      if (told.round < this.state.round) return;
      if (told.round > this.state.round && !this.#reach(told)) return;
      if (!isSameRound(this.state, told)) throw new Wrong("contradiction");
      this.ahead = null;
      this.now = told.at ?? null;
      this.#takeUnit(told);
      (told.said ?? []).forEach((raw) => this.#recall(raw));
      told.quorums.forEach((raw) => this.#close(raw));
      told.audits.forEach((unit) => this.#takeAudit(unit));
      told.replays.forEach((unit) => this.#takeReplay(unit));
    });
  }

  /** Carry out a step that ends where the gateway is not to be believed; what was taken before stays. */
  #checked(round, step) {
    try {
      step();
    } catch (error) {
      if (!(error instanceof Wrong)) throw error;
      this.#notice(error.code, error.unit, round);
    }
  }

  // -- who decides ---------------------------------------------------------------------------------------------------
  /** The round whose certificate is to be followed next, and its committee. */
  get #line() {
    const { round, committee } = this.state;
    return round < 0 ? { round: 0, committee: this.place.firstCommittee } : { round, committee };
  }

  /** Go to the round that is told of; false if certificates have to be asked for first. */
  #reach(told) {
    const line = this.#line;
    if (told.round === 0) {
      if (JSON.stringify(told.committee) !== JSON.stringify(line.committee)) throw new Wrong("contradiction");
      this.#enter(told);
    } else if (told.certificate !== null && told.round === line.round + 1) {
      const next = this.#next(told.certificate);
      if (!isSameRound(next, told)) throw new Wrong("contradiction");
      this.#enter(next);
    } else {
      if (!this.asking) this.#emit({ do: "follow", from: line.round });
      Object.assign(this, { ahead: told, asking: true });
      return false;
    }
    this.#emit({ do: "forget", before: told.round });
    return true;
  }

  /** Follow the committees through certificates that were asked for, then go on with what was told. */
  #followed({ from, certificates }) {
    const told = this.ahead;
    this.asking = false;
    if (told === null || from !== this.#line.round) return;
    this.#checked(told.round, () => {
      if (!certificates.length) throw new Wrong("gap");
      certificates.forEach((raw) => this.#enter(this.#next(raw)));
      this.#emit({ do: "forget", before: this.state.round });
      this.#told(told);
    });
  }

  /** Where the round after the present one starts, as the followed committee has signed it. */
  #next(raw) {
    const line = this.#line;
    const found = openQuorum({ ...this.place, ...line }, raw);
    if (found === null || found.phase !== CERTIFY) throw new Wrong("forged");
    return { ...found.payload, round: line.round + 1 };
  }

  /** A new round starts; `next` is as in `#next`, or what is told of the job's first round. */
  #enter(next) {
    const { round, shards, done } = this.state;
    if (round >= 0 && !done) this.#certified(next);
    const start = pick(next, ["round", "committee", "roster", "model", "beacon"]);
    this.state = { ...emptyState(), ...start, shards };
  }

  /** The last round is over: no other follows whose telling would bring its certificate. */
  #ended(raw) {
    const { round, committee, done } = this.state;
    const found = round < 0 || done ? null : openQuorum({ ...this.place, round, committee }, raw);
    if (found?.phase !== CERTIFY) return;
    this.state.done = true;
    this.#certified(found.payload);
  }

  /** The next phase's quorum, if it is that and the committee has signed it. */
  #close(raw) {
    const state = this.state;
    if (state.closed.includes(raw)) return;
    const here = { ...this.place, round: state.round, committee: state.committee };
    const found = openQuorum(here, raw);
    if (found === null) throw new Wrong("forged");
    if (found.phase === CERTIFY && !state.done) {
      state.done = true;
      this.#certified(found.payload);
    }
    if (found.phase !== state.closed.length || found.phase === CERTIFY) return; // known, or one before it is missing
    state.closed.push(raw);
    const { payload } = found;
    if (found.phase === LOCK) this.#locked(payload.commits);
    else if (found.phase === AUDIT) this.#auditsLocked(payload.commits);
    else if (found.phase === OPEN) this.#opened(payload);
    else state.auditBeacon = auditBeacon(here, payload.links);
  }

  #locked(commits) {
    const { state } = this;
    state.locked = commits;
    const own = this.#own();
    if (own) this.#settleCommit(own, "Commit", commits);
  }

  #auditsLocked(commits) {
    this.state.audited = commits;
    for (const unit of Object.values(this.state.units)) {
      if (unit.audit) this.#settleCommit(unit, "AuditCommit", commits);
    }
  }

  /** Whether the own commit is among those that the committee locked; if not, why. */
  #settleCommit(unit, kind, commits) {
    const { id } = unit.unit;
    const key = `${kind} ${id}`;
    const said = this.state.said[key];
    unit.locked = said !== undefined && commits.includes(said.raw);
    if (unit.locked) return;
    if (said !== undefined) this.#notice(this.#missing(key), id);
    else if (unit.asked) this.#notice("late", id);
    if (unit.asked) this.#emit({ do: "cancel", unit: id });
  }

  /** Why a commit that was said is not in the list: members leave nothing out that they held for the grace. */
  #missing(key) {
    const taken = this.state.taken[key];
    if (taken === undefined) return "commit-lost";
    const held = taken === null || this.now === null ? Infinity : this.now - taken;
    return held < GRACE ? "commit-late" : "commit-missing";
  }

  #opened(payload) {
    const { state } = this;
    state.openings = payload.reveals;
    state.disputed = payload.findings.filter(([, finding]) => finding === DISPUTED).map(([unit]) => unit);
    const shown = [...payload.reveals, ...payload.auditReveals];
    for (const unit of Object.values(state.units)) {
      const said = state.said[`${unit.audit ? "AuditReveal" : "Reveal"} ${unit.unit.id}`];
      if (unit.locked && !(said && shown.includes(said.raw))) this.#notice("reveal-missing", unit.unit.id);
    }
  }

  /** The end of a round: what the committee signed about this account's work. */
  #certified(payload) {
    if (!Object.keys(this.state.units).length) return; // a round that was only followed
    for (const [kind, unit, account, reason] of payload.verdicts) {
      if (account === this.me.account) this.#emit({ do: "verdict", round: this.state.round, kind, unit, reason });
    }
  }

  // -- what is given to this device ----------------------------------------------------------------------------------
  /** The own unit, if the beacon gives this account exactly that. */
  #takeUnit(told) {
    const { state } = this;
    if (told.unit === null || this.#own()) return;
    const unit = this.#drawn(told.unit, this.me.account);
    state.shards = unit.shards;
    state.units[unit.id] = takenUnit(unit, {});
  }

  #takeAudit(given) {
    const { state } = this;
    if (state.units[given.id] || this.phase < AUDIT) return;
    const unit = this.#drawn({ ...given, shards: state.shards || given.shards }, given.account);
    const owners = this.#owners();
    if (owners[unit.id] !== unit.account) throw new Wrong("wrong-unit", given.id);
    if (auditorOf(state.auditBeacon, owners, unit.account) !== this.me.account) throw new Wrong("wrong-unit", given.id);
    state.units[unit.id] = takenUnit(unit, { audit: true });
    if (this.phase > AUDIT) this.#settleCommit(state.units[unit.id], "AuditCommit", state.audited);
  }

  #takeReplay(given) {
    const { state } = this;
    if (state.units[given.id] || this.phase < CERTIFY) return;
    const unit = this.#drawn({ ...given, shards: state.shards || given.shards }, given.account);
    const owners = this.#owners();
    const opened = state.openings.includes(given.reveal) ? openEnvelope(this.place.domain, given.reveal) : null;
    const disputed = state.disputed.includes(unit.id) && owners[unit.id] === unit.account;
    const shown = disputed && opened?.body.unit === unit.id;
    const drawn = shown && isReplica(state.auditBeacon, owners, unit.id, this.me.account);
    if (!drawn) throw new Wrong("wrong-unit", given.id);
    const reveal = pick(opened.body, ["states", "update"]);
    state.units[unit.id] = takenUnit(unit, { replica: true, reveal });
  }

  /** What this account has said in this round, as the gateway remembers it: after a reload that lost everything. */
  #recall(raw) {
    const { said, taken } = this.state;
    if (Object.values(said).some((known) => known.raw === raw)) return;
    const opened = openEnvelope(this.place.domain, raw);
    if (opened?.account !== this.me.account || opened.body.round !== this.state.round) return;
    const key = `${opened.body.type} ${opened.body.unit ?? ""}`.trim();
    if (said[key] !== undefined) return;
    said[key] = { raw, phase: PHASES_OF[opened.body.type] ?? this.phase, digest: opened.body.digest ?? null };
    taken[key] = null;
  }

  /** A unit as the round's beacon draws it; refused if the gateway names another. */
  #drawn(given, account) {
    const { state, place } = this;
    const { index, shard, shards, segments } = given;
    const position = state.roster.indexOf(account);
    const fits = position >= 0 && index <= position && shards > 0 && (state.shards === 0 || shards === state.shards);
    const sized = segments === 1 || segments === place.segments; // a light unit has one segment
    if (!fits || !sized) throw new Wrong("wrong-unit", given.id);
    const at = { ...place, round: state.round, beacon: state.beacon };
    const drawn = drawnUnit(at, shards, index, account);
    if (drawn.id !== given.id || drawn.shard !== shard) throw new Wrong("wrong-unit", given.id);
    const { id } = drawn;
    return { ...pick(at, ["job", "round", "beacon"]), id, index, shard, shards, segments, account, model: state.model };
  }

  /** Locked units and who did each, from the envelopes that the committee locked. */
  #owners() {
    const { state } = this;
    state.owners ??= ownersOf(this.place.domain, state.locked);
    return state.owners;
  }

  // -- what is to be done --------------------------------------------------------------------------------------------
  #act() {
    const { state } = this;
    if (state.round < 0 || state.done || this.ahead !== null) return;
    const everybody = state.roster.includes(this.me.account) || state.committee.includes(this.me.account);
    if (!everybody && this.work) this.#say("Present", "Present", {});
    for (const unit of Object.values(state.units)) {
      if (unit.replica) this.#replay(unit);
      else if (unit.states === null) this.#train(unit);
      else if (unit.audit) this.#deliver(unit, AUDIT, "AuditCommit", "AuditReveal");
      else this.#deliver(unit, LOCK, "Commit", "Reveal");
    }
  }

  #train(unit) {
    if (unit.asked || !this.work || this.phase !== (unit.audit ? AUDIT : LOCK)) return;
    unit.asked = true;
    this.#emit({ do: "train", unit: unit.unit, audit: unit.audit });
  }

  /** Commit in its phase; open once the audits are locked, if the own commit is among what was locked. */
  #deliver(unit, phase, commit, reveal) {
    const { id } = unit.unit;
    const digest = this.#digest(unit);
    if (this.phase === phase) this.#say(`${commit} ${id}`, commit, { unit: unhex(id), digest });
    const committed = this.state.said[`${commit} ${id}`]?.digest;
    if (this.phase !== OPEN || !unit.locked || committed !== hex(digest)) return; // another result opens nothing
    this.#upload(unit, [unit.update, ...unit.states.slice(1).reverse()]);
    if (!unit.uploaded) return;
    const opening = { states: unit.states.map(unhex), update: unhex(unit.update), salt: unhex(this.me.salt(id)) };
    this.#say(`${reveal} ${id}`, reveal, { unit: unhex(id), ...opening });
  }

  #digest(unit) {
    const { place, state, me } = this;
    const root = statesRoot(unit.states.map(unhex));
    const where = [place.domain, unhex(place.job), state.round, unhex(unit.unit.id), unhex(me.account)];
    return commitHash(...where, root, unhex(unit.update), unhex(me.salt(unit.unit.id)));
  }

  #replay(unit) {
    if (this.phase !== CERTIFY) return;
    const { replay } = unit;
    if (replay === null) {
      if (unit.asked || !this.work) return;
      unit.asked = true;
      this.#emit({ do: "rerun", unit: unit.unit, reveal: unit.reveal });
      return;
    }
    const shown = replay.state !== ZERO;
    if (shown) this.#upload(unit, [replay.state]);
    if (shown && !unit.uploaded) return;
    const { id } = unit.unit;
    const said = { unit: unhex(id), segment: replay.segment, state: unhex(replay.state) };
    this.#say(`Replay ${id}`, "Replay", said);
  }

  #upload(unit, blobs) {
    if (unit.uploaded || unit.uploading) return;
    unit.uploading = true;
    this.#emit({ do: "upload", unit: unit.unit.id, blobs: [...new Set(blobs)] });
  }

  #say(key, type, fields) {
    const { state, place, me } = this;
    if (state.said[key] !== undefined) return;
    const body = { type, job: unhex(place.job), round: state.round, ...fields };
    const raw = hex(seal(place.domain, body, me.key).raw);
    state.said[key] = { raw, phase: this.phase, digest: fields.digest ? hex(fields.digest) : null };
    this.#emit({ do: "say", key, raw });
  }

  /** What belongs to the present phase is said again, and uploads that did not end are begun again. */
  #again() {
    for (const [key, said] of Object.entries(this.state.said)) {
      if (said.phase === this.phase || key === "Present") this.#emit({ do: "say", key, raw: said.raw });
    }
    for (const unit of Object.values(this.state.units)) unit.uploading = false;
  }

  /** A message that names bytes which the gateway does not have (any more) is said again after another upload. */
  #refused({ key, reason }) {
    const unit = this.state.units[key.split(" ")[1]];
    if (reason === "EQUIVOCATION") this.#notice("equivocation", unit?.unit.id);
    if (reason !== "NOT_FOUND" || !unit?.uploaded) return;
    Object.assign(unit, { uploaded: false, uploading: false });
    delete this.state.said[key];
  }

  #lost(id, unit) {
    const bound = this.state.said[`${unit.audit ? "AuditCommit" : "Commit"} ${id}`] !== undefined;
    Object.assign(unit, { states: null, update: null, asked: false });
    if (bound) this.#notice("bytes-lost", id);
  }

  #own() {
    return Object.values(this.state.units).find((one) => !one.audit && !one.replica);
  }

  #notice(code, unit = "", round = this.state.round) {
    const key = `${code} ${round} ${unit}`;
    if (this.state.noticed.includes(key)) return;
    this.state.noticed = [...this.state.noticed, key].slice(-KEPT_NOTICES);
    this.#emit({ do: "notice", code, round, unit });
  }

  #emit(effect) {
    this.out.push(effect);
  }
}
