// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Paying} from "./Paying.sol";
import {Quorum} from "./Quorum.sol";
import {Registry} from "./Registry.sol";

/// @title What Jobs asks of the settlement.
interface ISettled {
    /// @notice Whether the job's last payments are posted and can no longer be challenged.
    function isSettled(bytes32 job) external view returns (bool);
}

/// @title Jobs: the developer's budget in escrow, the nodes that enlisted, and the certificate of every round.
/// @notice Money only leaves in two ways: drawn by the settlement for work that a quorum vouched for, and refunded to
/// the developer when the job is over. What was paid in is always drawn + refunded + what is still here.
contract Jobs is Paying, EIP712 {
    /// @notice A job's account and its progress.
    struct Job {
        address developer;
        uint32 rounds;
        uint64 deadline;
        address seed;
        uint32 certified;
        uint64 startedAt;
        bool closed;
        bytes32 manifest;
        bytes32 committee;
        bytes32 model;
        uint256 budget;
        uint256 drawn;
        uint256 refunded;
    }

    /// @notice A node that offers itself to a job: the tip of its hash chain, its place in the list (from 1), and
    /// whether it was a validator then. What it does later cannot block the job: committees are drawn off the chain.
    struct Enlistment {
        bytes32 tip;
        uint32 place;
        bool validator;
    }

    /// @notice What a committee's quorum signs under a round. `committee` and `nextCommittee` are
    /// keccak256(abi.encode(address[])) in leader order; `last` is true for the last round that was asked
    /// for and for no other; a job that was shortened ends without it.
    struct Certificate {
        bytes32 job;
        uint32 round;
        uint32 attempt;
        bytes32 lockRoot;
        bytes32 verdictRoot;
        bytes32 modelRoot;
        bytes32 committee;
        bytes32 nextCommittee;
        bool last;
    }

    uint256 public constant MAX_COMMITTEE = 16;
    bytes32 private constant CERTIFICATE = keccak256(
        "Certificate(bytes32 job,uint32 round,uint32 attempt,bytes32 lockRoot,bytes32 verdictRoot,bytes32 modelRoot,"
        "bytes32 committee,bytes32 nextCommittee,bool last)"
    );
    bytes32 private constant ENLIST = keccak256("Enlist(bytes32 job,address account,bytes32 tip)");

    event Opened(
        bytes32 indexed job,
        address indexed developer,
        bytes32 manifest,
        uint256 budget,
        uint32 rounds,
        uint64 deadline,
        address seed
    );
    event ToppedUp(bytes32 indexed job, address indexed payer, uint256 amount, uint256 budget);
    event Shortened(bytes32 indexed job, uint32 rounds);
    event Enlisted(bytes32 indexed job, address indexed account, bytes32 tip, uint8 roles);
    event Started(bytes32 indexed job, address[] committee, uint64 timestamp);
    event Certified(
        bytes32 indexed job,
        uint32 indexed round,
        uint32 attempt,
        bytes32 lockRoot,
        bytes32 verdictRoot,
        bytes32 modelRoot,
        address[] nextCommittee,
        address poster
    );
    event Drawn(bytes32 indexed job, uint256 amount, uint256 drawn);
    event Refunded(bytes32 indexed job, address indexed developer, uint256 amount);

    /// @notice No job has this id.
    error UnknownJob(bytes32 job);
    /// @notice A job has at least one round.
    error NoRounds();
    /// @notice The deadline must lie in the future.
    error BadDeadline(uint64 deadline);
    /// @notice The job's deadline is over.
    error PastDeadline(uint64 deadline);
    /// @notice The rest of the budget was refunded; the job takes no more.
    error JobClosed(bytes32 job);
    /// @notice Only the developer of the job may do this.
    error NotDeveloper(address caller);
    /// @notice Only an active node of the registry may enlist.
    error NotANode(address account);
    /// @notice The account enlisted before; the tip of its hash chain cannot be changed.
    error AlreadyEnlisted(address account);
    /// @notice The account did not sign this enlistment.
    error WrongAccount(address account, address signer);
    /// @notice A hash chain's tip cannot be zero.
    error NoTip();
    /// @notice The job was started before.
    error AlreadyStarted(bytes32 job);
    /// @notice The job was not started yet.
    error NotStarted(bytes32 job);
    /// @notice A committee has 1 to 16 members.
    error BadCommitteeSize(uint256 size);
    /// @notice The account stands twice in the committee.
    error TwiceInCommittee(address account);
    /// @notice The member of the committee was not a validator when it enlisted.
    error NotAValidator(address account);
    /// @notice The member of the committee did not enlist for this job.
    error NotEnlisted(address account);
    /// @notice This is not the round that comes next.
    error WrongRound(uint32 expected, uint32 got);
    /// @notice All rounds are certified.
    error AllCertified(bytes32 job);
    /// @notice A job ends at least two rounds after the last certified one, and not later than before.
    error CannotShorten(uint32 earliest, uint32 asked, uint32 rounds);
    /// @notice `last` must be true in the last round (unless the job was shortened) and false in all others.
    error WrongLast(uint32 round, uint32 rounds);
    /// @notice The list or the hash is not that of the present committee.
    error WrongCommittee(bytes32 expected, bytes32 got);
    /// @notice The next committee's list does not have the hash that was signed.
    error WrongNextCommittee(bytes32 signed, bytes32 got);
    /// @notice Fewer signatures than a quorum of the committee.
    error NoQuorum(uint256 signatures, uint256 needed);
    /// @notice The signer is not in the committee, or its signature does not follow in the committee's order.
    error SignerOutOfPlace(address signer);
    /// @notice Only the settlement may draw.
    error NotSettlement(address caller);
    /// @notice The escrow holds less than is asked for.
    error OverBudget(bytes32 job, uint256 remaining, uint256 asked);
    /// @notice The job is neither settled nor dead: it can be refunded after this time at the latest.
    error TooEarly(uint64 refundableAt);

    /// @notice Where nodes and validators are listed.
    Registry public immutable registry;
    /// @notice Seconds after the deadline in which what was certified can still be settled.
    uint64 public immutable grace;

    /// @notice How many jobs the developer has opened.
    mapping(address developer => uint256) public nonces;

    mapping(bytes32 job => Job) private _jobs;
    mapping(bytes32 job => mapping(address account => Enlistment)) private _enlistments;
    mapping(bytes32 job => address[]) private _enlisted;
    mapping(bytes32 job => bool) private _shortened;
    bytes32[] private _ids;

    constructor(IERC20 token_, Registry registry_, uint64 grace_) Paying(token_) EIP712("Atoll", "1") {
        registry = registry_;
        grace = grace_;
    }

    /// @notice Open a job and pay its budget into escrow; the tokens must be approved for this contract.
    /// @param manifest the content id of the job's manifest
    /// @param budget base units; more can be added later
    /// @param rounds how many rounds will be certified
    /// @param deadline Unix seconds; no round is certified later
    /// @param seed the account of the node that has the job's blobs first
    /// @return job keccak256(abi.encode(this contract, chain id, developer, nonce))
    function open(bytes32 manifest, uint256 budget, uint32 rounds, uint64 deadline, address seed)
        public
        returns (bytes32 job)
    {
        if (rounds == 0) revert NoRounds();
        if (deadline <= block.timestamp) revert BadDeadline(deadline);
        job = keccak256(abi.encode(address(this), block.chainid, msg.sender, nonces[msg.sender]++));
        _ids.push(job);
        Job storage self = _jobs[job];
        self.manifest = manifest;
        self.developer = msg.sender;
        self.rounds = rounds;
        self.deadline = deadline;
        self.seed = seed;
        self.budget = budget;
        emit Opened(job, msg.sender, manifest, budget, rounds, deadline, seed);
        _pull(budget);
    }

    /// @notice Approve by signature and open a job in one transaction.
    function openWithPermit(
        bytes32 manifest,
        uint256 budget,
        uint32 rounds,
        uint64 deadline,
        address seed,
        Permit calldata permit
    ) external returns (bytes32) {
        _permit(permit);
        return open(manifest, budget, rounds, deadline, seed);
    }

    /// @notice Add to a job's budget; anyone may.
    function topUp(bytes32 job, uint256 amount) external {
        Job storage self = _get(job);
        if (self.closed) revert JobClosed(job);
        self.budget += amount;
        emit ToppedUp(job, msg.sender, amount, self.budget);
        _pull(amount);
    }

    /// @notice End a job after `rounds` rounds; by its developer. Rounds that are under way are still certified and
    /// paid: at least two more than the chain knows of.
    function shorten(bytes32 job, uint32 rounds) external {
        Job storage self = _running(job);
        if (msg.sender != self.developer) revert NotDeveloper(msg.sender);
        uint32 earliest = self.certified + 2;
        if (rounds < earliest || rounds >= self.rounds) revert CannotShorten(earliest, rounds, self.rounds);
        self.rounds = rounds;
        _shortened[job] = true;
        emit Shortened(job, rounds);
    }

    /// @notice Offer oneself to a job, once, with the tip of a hash chain whose preimages become beacons.
    function enlist(bytes32 job, bytes32 tip) external {
        _enlist(job, msg.sender, tip);
    }

    /// @notice Offer an account that signed it to a job; anyone may bring it. For accounts without coins. An account
    /// enlists once, so the signature counts once.
    /// @param account who offers itself
    /// @param signature 65 bytes, the account's under the enlistment
    function enlistFor(bytes32 job, address account, bytes32 tip, bytes calldata signature) external {
        bytes32 inner = keccak256(abi.encode(ENLIST, job, account, tip));
        address signer = ECDSA.recover(_hashTypedDataV4(inner), signature);
        if (signer != account) revert WrongAccount(account, signer);
        _enlist(job, account, tip);
    }

    /// @notice Name the committee of the first round and begin; by the developer, once.
    function start(bytes32 job, address[] calldata committee) external {
        Job storage self = _running(job);
        if (msg.sender != self.developer) revert NotDeveloper(msg.sender);
        if (self.startedAt != 0) revert AlreadyStarted(job);
        _checkCommittee(job, committee);
        self.startedAt = uint64(block.timestamp);
        self.committee = keccak256(abi.encode(committee));
        emit Started(job, committee, self.startedAt);
    }

    /// @notice Record a round. Anyone may bring it: the committee's signatures are what counts.
    /// @param c what was signed
    /// @param committee the present committee in leader order
    /// @param next the committee of the next round in leader order; may be empty in the last round
    /// @param signatures 65 bytes each, in the order of the committee, at least a quorum
    function certify(
        Certificate calldata c,
        address[] calldata committee,
        address[] calldata next,
        bytes[] calldata signatures
    ) external {
        Job storage self = _running(c.job);
        _checkProgress(self, c);
        bytes32 hash = keccak256(abi.encode(committee));
        if (hash != self.committee) revert WrongCommittee(self.committee, hash);
        if (c.committee != hash) revert WrongCommittee(hash, c.committee);
        bytes32 nextHash = keccak256(abi.encode(next));
        if (nextHash != c.nextCommittee) revert WrongNextCommittee(c.nextCommittee, nextHash);
        if (!c.last || next.length != 0) _checkCommittee(c.job, next);
        _checkSignatures(digest(c), committee, signatures);
        self.certified = c.round + 1;
        self.model = c.modelRoot;
        self.committee = nextHash;
        emit Certified(c.job, c.round, c.attempt, c.lockRoot, c.verdictRoot, c.modelRoot, next, msg.sender);
    }

    /// @notice Move tokens from a job's escrow to the settlement, which alone may ask.
    function draw(bytes32 job, uint256 amount) external {
        if (msg.sender != registry.settlement()) revert NotSettlement(msg.sender);
        Job storage self = _get(job);
        if (amount == 0) return;
        uint256 left = _remaining(self);
        if (amount > left) revert OverBudget(job, left, amount);
        self.drawn += amount;
        emit Drawn(job, amount, self.drawn);
        _pay(msg.sender, amount);
    }

    /// @notice Send the rest of the budget to the developer and close the job: when its last round is certified and its
    /// last payments are settled, or when deadline and grace are over. Anyone may ask.
    function refund(bytes32 job) external {
        Job storage self = _get(job);
        if (self.closed) revert JobClosed(job);
        uint64 latest = self.deadline + grace;
        bool done = self.certified == self.rounds && ISettled(registry.settlement()).isSettled(job);
        if (!done && block.timestamp <= latest) revert TooEarly(latest);
        uint256 amount = _remaining(self);
        self.closed = true;
        self.refunded = amount;
        emit Refunded(job, self.developer, amount);
        if (amount != 0) _pay(self.developer, amount);
    }

    /// @notice Everything about a job.
    function get(bytes32 job) external view returns (Job memory) {
        return _get(job);
    }

    /// @notice What can still be drawn or refunded, in base units.
    function remaining(bytes32 job) external view returns (uint256) {
        return _remaining(_get(job));
    }

    /// @notice How many jobs were ever opened.
    function count() external view returns (uint256) {
        return _ids.length;
    }

    /// @notice The job that was opened as number `index`, from 0.
    function jobAt(uint256 index) external view returns (bytes32) {
        return _ids[index];
    }

    /// @notice The tip and the place of an account in a job; the place is 0 for those that did not enlist.
    function enlistment(bytes32 job, address account) external view returns (Enlistment memory) {
        return _enlistments[job][account];
    }

    /// @notice The accounts that enlisted, in order, and the tips of their hash chains.
    function enlisted(bytes32 job) external view returns (address[] memory accounts, bytes32[] memory tips) {
        accounts = _enlisted[job];
        tips = new bytes32[](accounts.length);
        for (uint256 i; i < tips.length; ++i) tips[i] = _enlistments[job][accounts[i]].tip;
    }

    /// @notice The EIP-712 digest that the members of a committee sign.
    function digest(Certificate calldata c) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(CERTIFICATE, c)));
    }

    function _enlist(bytes32 job, address account, bytes32 tip) private {
        Job storage self = _running(job);
        if (self.certified == self.rounds) revert AllCertified(job);
        if (!registry.isActive(account)) revert NotANode(account);
        if (tip == 0) revert NoTip();
        Enlistment storage theirs = _enlistments[job][account];
        if (theirs.place != 0) revert AlreadyEnlisted(account);
        _enlisted[job].push(account);
        theirs.tip = tip;
        theirs.place = uint32(_enlisted[job].length);
        theirs.validator = registry.isValidator(account);
        uint8 roles = registry.node(account).roles;
        if (!theirs.validator) roles &= ~registry.VALIDATOR();
        emit Enlisted(job, account, tip, roles);
    }

    function _get(bytes32 job) private view returns (Job storage self) {
        self = _jobs[job];
        if (self.developer == address(0)) revert UnknownJob(job);
    }

    function _running(bytes32 job) private view returns (Job storage self) {
        self = _get(job);
        if (self.closed) revert JobClosed(job);
        if (block.timestamp > self.deadline) revert PastDeadline(self.deadline);
    }

    function _remaining(Job storage self) private view returns (uint256) {
        return self.budget - self.drawn - self.refunded;
    }

    function _checkProgress(Job storage self, Certificate calldata c) private view {
        if (self.startedAt == 0) revert NotStarted(c.job);
        if (self.certified == self.rounds) revert AllCertified(c.job);
        if (c.round != self.certified) revert WrongRound(self.certified, c.round);
        bool ends = c.round + 1 == self.rounds;
        if (c.last ? !ends : ends && !_shortened[c.job]) revert WrongLast(c.round, self.rounds);
    }

    function _checkCommittee(bytes32 job, address[] calldata members) private view {
        if (members.length == 0 || members.length > MAX_COMMITTEE) revert BadCommitteeSize(members.length);
        for (uint256 i; i < members.length; ++i) {
            for (uint256 j; j < i; ++j) {
                if (members[i] == members[j]) revert TwiceInCommittee(members[i]);
            }
            if (_enlistments[job][members[i]].place == 0) revert NotEnlisted(members[i]);
            if (!_enlistments[job][members[i]].validator) revert NotAValidator(members[i]);
        }
    }

    /// Signatures in the committee's order: one pass shows that the signers are members and distinct.
    function _checkSignatures(bytes32 hash, address[] calldata committee, bytes[] calldata signatures) private pure {
        uint256 least = Quorum.needed(committee.length);
        if (signatures.length < least) revert NoQuorum(signatures.length, least);
        uint256 place;
        for (uint256 i; i < signatures.length; ++i) {
            address signer = ECDSA.recover(hash, signatures[i]);
            while (place < committee.length && committee[place] != signer) ++place;
            if (place == committee.length) revert SignerOutOfPlace(signer);
            ++place;
        }
    }
}
