"""Every reason why something is refused: one number, one sentence. Numbers are never reused."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """A refusal's code on the wire, in receipts and on statements; `sentence` is what a person reads."""

    sentence: str

    def __new__(cls, value: int, sentence: str = "") -> Reason:
        member = int.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

    OK = 0, "Accepted and paid."
    # Messages (1-29)
    MALFORMED = 1, "The message does not have the form that its type and version require."
    TOO_LARGE = 2, "The message is larger than the limit for its type."
    BAD_VERSION = 3, "The peer speaks another version of the protocol."
    BAD_SIGNATURE = 4, "The signature does not belong to the account that the message names."
    WRONG_DOMAIN = 5, "The message was made for another chain or another registry."
    UNKNOWN_ACCOUNT = 6, "The account is not registered, or takes no part in this job."
    BAD_BINDING = 7, "The endpoint key and the account do not vouch for one another."
    NOT_LEADER = 8, "Only the present leader may propose."
    STALE = 9, "The message belongs to a round that is already certified."
    NOT_FOUND = 10, "This node does not have what was asked for."
    BUSY = 11, "The node has reached a limit that its owner set; ask later or ask another node."
    UNKNOWN_MESSAGE = 12, "No message has this number."
    PAUSED = 13, "The owner has paused this node."
    EQUIVOCATION = 14, "The sender signed two different things where only one is allowed."
    BAD_PROOF = 15, "The Merkle proof does not lead to the root."
    WRONG_HASH = 16, "The bytes do not hash to the name under which they were asked for."
    # Units of work (30-59)
    COMMIT_MISMATCH = 30, "What was revealed is not what was committed to."
    STATE_ORIGIN = 31, "The first state is not the certified model from which the round started."
    UPDATE_MISMATCH = 32, "The update is not the quantised difference between the last state and the model."
    SEGMENT_MISMATCH = 33, "Re-running a segment from the worker's own committed state gave another result."
    STATE_WITHHELD = 34, "A committed state was not opened when an audit asked for it."
    NOT_REVEALED = 35, "The unit was committed but not revealed in time."
    AUDIT_MISMATCH = 36, "The audit's result was contradicted by the replicas."
    UNSETTLED = 37, "The unit could not be settled in time; it counts neither for nor against the worker."
    DIVERGED = 38, "The states hold values that are not finite numbers."
    # Jobs and graphs (60-99)
    BAD_ARCHIVE = 60, "The job file is not a well-formed archive within the limits."
    BAD_MANIFEST = 61, "The manifest does not follow its schema, or does not describe its parts."
    BAD_GRAPH = 62, "The graph is not valid ONNX."
    FORBIDDEN_OP = 63, "The graph uses an operator that is not on the allow-list."
    CUSTOM_DOMAIN = 64, "The graph uses operators from a domain that is not on the allow-list."
    EXTERNAL_DATA = 65, "The graph refers to data outside itself."
    NESTED_GRAPH = 66, "The graph contains control flow, a nested graph or a local function."
    TENSOR_TOO_LARGE = 67, "A tensor of the graph exceeds the size limit."
    GRAPH_TOO_LARGE = 68, "The graph exceeds the limit on bytes, nodes or initialisers."
    TOO_MUCH_MEMORY = 69, "The estimated memory exceeds what this node lends."
    TOO_MUCH_COMPUTE = 70, "The estimated compute exceeds what this node lends."
    BAD_OPSET = 71, "The graph asks for an opset that is not supported."
    BAD_SHAPE = 72, "Shapes are missing, dynamic where they must be fixed, or contradict one another."
    BAD_ATTRIBUTE = 73, "An attribute of a node lies outside its limits."
    BAD_SIGNATURE_OF_GRAPH = 74, "The graph's inputs and outputs are not those that its manifest announces."
    BAD_PARAMS = 75, "The file of first values does not hold exactly the tensors that the manifest lists."
    # Money (100-129)
    OVER_BUDGET = 100, "The job's escrow cannot pay for it."
    BAD_TOTAL = 101, "A total is not the sum of its receipts."
    DUPLICATE = 102, "The same work appears twice."
    # Answers (130-149)
    VOUCHER_MISSING = 130, "Answers are not free here, and no voucher pays for those that were given."
    VOUCHER_TOO_SMALL = 131, "The voucher does not cover the answers that were given."
    VOUCHER_FOREIGN = 132, "The voucher was not signed by the one who asks, or not for this server."
    OVER_DEPOSIT = 133, "The payer's deposit does not cover it."
    OVER_CEILING = 134, "The answer costs more than the asker agreed to pay."
    WRONG_ANSWER = 135, "Running the question again gave another answer."
    BAD_STATEMENT = 136, "The server's statement does not fit the question, the answer or the price."
