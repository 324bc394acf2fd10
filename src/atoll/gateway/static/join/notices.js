// What a person reads about each notice: of a job's duties (duties.js), of its work (work.js), of the session.

/** Sentences by code. @type {Readonly<Record<string, string>>} */
export const NOTICES = Object.freeze({
  "malformed": "The gateway sent something that cannot be read. It was ignored.",
  "forged": "The gateway showed a decision that the committee did not sign. It was ignored, and nothing was revealed.",
  "contradiction": "The gateway changed its story about this round. The new one was ignored.",
  "wrong-unit": "The gateway named work that the draw does not give to this device. It was refused.",
  "commit-missing":
    "The gateway did not pass on your work: it confirmed your commit in good time, and the list that the committee " +
    "locked does not have it.",
  "commit-late": "Your commit came just too late for the list that the committee locked.",
  "commit-lost":
    "Your commit is not in the list that the committee locked, and the gateway never confirmed it: the connection " +
    "was lost, or the gateway did not pass it on.",
  "late": "The unit was not finished before the committee locked its list.",
  "late-whole":
    "The unit was not finished before the committee locked its list. Small units may suit this device better.",
  "smaller":
    "Whole units came too late twice, so this device takes small ones from now on. A job that it has joined goes on " +
    "with whole units until it ends: the size is fixed when a job is joined.",
  "reveal-missing": "The gateway did not pass on your work: your opening is missing from what the committee has seen.",
  "bytes-lost": "The finished work is gone from this browser's storage, so it cannot be opened.",
  "equivocation":
    "This account has said something else about the same unit before: does another device use the same key?",
  "gap": "The gateway does not show how the present committee came about. Nothing is done for it until it does.",
  "wrong-bytes": "The gateway served bytes that are not what their name says. They were not used.",
  "engine": "The unit could not be run in this browser. It is tried again.",
  "broken": "Something went wrong in this page. Reload it if nothing moves.",
  "verdict-differs": "The gateway tells another verdict than the committee signed. The signed one counts.",
  "version": "The gateway speaks another version of the protocol. Reload this page.",
  "network": "This key was used on another network before. What it earned there is still there.",
});
