// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Jobs} from "./Jobs.sol";
import {Merkle} from "./Merkle.sol";
import {Paying} from "./Paying.sol";
import {Quorum} from "./Quorum.sol";
import {Registry} from "./Registry.sol";

/// @title Settlement: what each account has earned in all, posted once an epoch under a bond, then claimed.
/// @notice A quorum of the validators signs the root over (account, cumulative amount), the root over the receipts, and
/// the cumulative total of every job. The increase of the totals is drawn from the jobs' escrow at once; accounts claim
/// after the window. Amounts are cumulative, so one claim of the latest epoch covers all before it.
contract Settlement is Paying, EIP712 {
    /// @notice What a job has paid in all, and whether this is the job's last payment.
    struct JobTotal {
        bytes32 job;
        uint256 total;
        bool settled;
    }

    /// @notice What the validators sign, except for the totals, which follow as a list and are signed as
    /// keccak256(abi.encode(JobTotal[])).
    struct Post {
        uint64 epoch;
        bytes32 root;
        bytes32 receiptsRoot;
        uint64 accounts;
        uint64 receipts;
    }

    /// @notice A posted epoch. `voided` is what a successful challenge sets.
    struct Epoch {
        bytes32 root;
        bytes32 receiptsRoot;
        uint64 accounts;
        uint64 receipts;
        uint64 postedAt;
        address poster;
        bool bondHeld;
        bool voided;
    }

    /// @notice A claim for an account: leaf `index` of the epoch's tree is abi.encode(account, cumulative).
    struct Claim {
        address account;
        uint256 cumulative;
        uint64 index;
        bytes32[] proof;
    }

    uint256 private constant MAX_URI = 256;
    bytes32 private constant POST = keccak256(
        "Post(uint64 epoch,bytes32 root,bytes32 receiptsRoot,uint64 accounts,uint64 receipts,bytes32 totals)"
    );

    event BondDeposited(address indexed account, uint256 amount, uint256 bond);
    event BondWithdrawn(address indexed account, uint256 amount, uint256 bond);
    event BondReleased(uint64 indexed epoch, address indexed poster, uint256 amount);
    event Posted(
        uint64 indexed epoch,
        address indexed poster,
        bytes32 root,
        bytes32 receiptsRoot,
        uint64 accounts,
        uint64 receipts,
        uint256 drawn,
        string uri
    );
    event TotalPosted(uint64 indexed epoch, bytes32 indexed job, uint256 total, bool settled);
    event Claimed(uint64 indexed epoch, address indexed account, uint256 amount, uint256 cumulative);

    /// @notice The account has less free bond than it asks back.
    error BondTooSmall(uint256 bond, uint256 needed);
    /// @notice Only a validator may post.
    error NotAValidator(address account);
    /// @notice This is not the epoch that comes next.
    error WrongEpoch(uint64 expected, uint64 got);
    /// @notice The address of the receipts may have this many bytes at most.
    error UriTooLong(uint256 length, uint256 limit);
    /// @notice Fewer signatures than a quorum of the validators.
    error NoQuorum(uint256 signatures, uint256 needed);
    /// @notice The signer is not a validator, or its address does not follow in ascending order.
    error SignerOutOfPlace(address signer);
    /// @notice The job does not follow in ascending order of ids.
    error JobOutOfPlace(bytes32 job);
    /// @notice A job's total never falls.
    error TotalFell(bytes32 job, uint256 before, uint256 got);
    /// @notice The job was declared settled; its total stands.
    error AlreadySettled(bytes32 job);
    /// @notice No epoch has this number.
    error UnknownEpoch(uint64 epoch);
    /// @notice The epoch was voided by a challenge.
    error EpochVoided(uint64 epoch);
    /// @notice The epoch can be challenged up to this time, and claimed after it.
    error WindowOpen(uint64 until);
    /// @notice The leaf is not in the epoch's tree at this place.
    error BadProof(address account, uint64 index);
    /// @notice The account has claimed this much already.
    error NothingToClaim(address account, uint256 claimed);
    /// @notice The claim exceeds what was drawn from escrow and not paid yet.
    error ExceedsDrawn(uint256 left, uint256 asked);

    /// @notice Where validators are listed.
    Registry public immutable registry;
    /// @notice Where the budgets are.
    Jobs public immutable jobs;
    /// @notice What a poster risks with each epoch, in base units.
    uint256 public immutable bond;
    /// @notice Seconds in which an epoch can be challenged.
    uint64 public immutable window;

    /// @notice The number of posted epochs, which is the number of the next one.
    uint64 public epochs;
    /// @notice What was drawn from escrow in all.
    uint256 public drawn;
    /// @notice What was paid to accounts in all.
    uint256 public paid;
    /// @notice The bond of an account that no epoch holds.
    mapping(address account => uint256) public bondOf;
    /// @notice What the account has claimed in all.
    mapping(address account => uint256) public claimed;
    /// @notice What the job has paid in all, as last posted.
    mapping(bytes32 job => uint256) public totalOf;

    mapping(uint64 epoch => Epoch) private _epochs;
    /// The number of the epoch that declared the job settled, plus one.
    mapping(bytes32 job => uint64) private _settledIn;

    constructor(Registry registry_, Jobs jobs_, uint256 bond_, uint64 window_)
        Paying(registry_.token())
        EIP712("Atoll", "1")
    {
        registry = registry_;
        jobs = jobs_;
        bond = bond_;
        window = window_;
    }

    /// @notice Deposit bond; the tokens must be approved for this contract.
    function depositBond(uint256 amount) public {
        _pull(amount);
        bondOf[msg.sender] += amount;
        emit BondDeposited(msg.sender, amount, bondOf[msg.sender]);
    }

    /// @notice Approve by signature and deposit bond in one transaction.
    function depositBondWithPermit(uint256 amount, Permit calldata permit) external {
        _permit(permit);
        depositBond(amount);
    }

    /// @notice Take back bond that no epoch holds.
    function withdrawBond(uint256 amount) external {
        if (amount == 0) revert ZeroAmount();
        _takeBond(amount);
        emit BondWithdrawn(msg.sender, amount, bondOf[msg.sender]);
        _pay(msg.sender, amount);
    }

    /// @notice Post an epoch under a bond.
    /// @param p what was signed
    /// @param totals the jobs whose totals are new, ascending by id
    /// @param uri where the receipts are, at most 256 bytes; not signed, since the receipts root is
    /// @param signatures 65 bytes each, ascending by the signers' addresses, at least a quorum of the validators
    function post(Post calldata p, JobTotal[] calldata totals, string calldata uri, bytes[] calldata signatures)
        external
    {
        if (!registry.isValidator(msg.sender)) revert NotAValidator(msg.sender);
        if (p.epoch != epochs) revert WrongEpoch(epochs, p.epoch);
        if (bytes(uri).length > MAX_URI) revert UriTooLong(bytes(uri).length, MAX_URI);
        _checkSignatures(digest(p, totals), signatures);
        _takeBond(bond);
        ++epochs;
        _epochs[p.epoch] = Epoch({
            root: p.root,
            receiptsRoot: p.receiptsRoot,
            accounts: p.accounts,
            receipts: p.receipts,
            postedAt: uint64(block.timestamp),
            poster: msg.sender,
            bondHeld: true,
            voided: false
        });
        uint256 before = drawn;
        _bookTotals(p.epoch, totals);
        emit Posted(p.epoch, msg.sender, p.root, p.receiptsRoot, p.accounts, p.receipts, drawn - before, uri);
    }

    /// @notice Pay an account what it has earned and not claimed yet; anyone may ask for it.
    function claim(uint64 epoch, address account, uint256 cumulative, uint64 index, bytes32[] calldata proof)
        external
    {
        Epoch storage e = _final(epoch);
        if (_claim(e, epoch, account, cumulative, index, proof) == 0) {
            revert NothingToClaim(account, claimed[account]);
        }
    }

    /// @notice Many claims of one epoch; those that were paid already are passed over.
    function claimMany(uint64 epoch, Claim[] calldata claims) external {
        Epoch storage e = _final(epoch);
        for (uint256 i; i < claims.length; ++i) {
            Claim calldata c = claims[i];
            _claim(e, epoch, c.account, c.cumulative, c.index, c.proof);
        }
    }

    /// @notice Give the bond of an epoch back to its poster, once the window is over. Claims do so as well.
    function releaseBond(uint64 epoch) external {
        _final(epoch);
    }

    /// @notice A posted epoch.
    function epochAt(uint64 epoch) external view returns (Epoch memory) {
        return _get(epoch);
    }

    /// @notice Whether claims of this epoch are paid.
    function isFinal(uint64 epoch) public view returns (bool) {
        Epoch storage e = _get(epoch);
        return !e.voided && block.timestamp > e.postedAt + window;
    }

    /// @notice Whether the job's last payments are posted and can no longer be challenged.
    function isSettled(bytes32 job) external view returns (bool) {
        uint64 plusOne = _settledIn[job];
        return plusOne != 0 && isFinal(plusOne - 1);
    }

    /// @notice Whether (account, cumulative) is leaf `index` of the tree of `accounts` leaves with this root.
    function isIncluded(
        bytes32 root,
        uint64 accounts,
        address account,
        uint256 cumulative,
        uint64 index,
        bytes32[] calldata proof
    ) public pure returns (bool) {
        return Merkle.verify(root, accounts, index, abi.encode(account, cumulative), proof);
    }

    /// @notice The EIP-712 digest that the validators sign.
    function digest(Post calldata p, JobTotal[] calldata totals) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(POST, p, keccak256(abi.encode(totals)))));
    }

    function _get(uint64 epoch) private view returns (Epoch storage e) {
        if (epoch >= epochs) revert UnknownEpoch(epoch);
        e = _epochs[epoch];
    }

    /// The epoch, if its window is over; its bond is given back on the way.
    function _final(uint64 epoch) private returns (Epoch storage e) {
        e = _get(epoch);
        if (e.voided) revert EpochVoided(epoch);
        if (block.timestamp <= e.postedAt + window) revert WindowOpen(e.postedAt + window);
        if (e.bondHeld) {
            e.bondHeld = false;
            bondOf[e.poster] += bond;
            emit BondReleased(epoch, e.poster, bond);
        }
    }

    function _takeBond(uint256 amount) private {
        if (bondOf[msg.sender] < amount) revert BondTooSmall(bondOf[msg.sender], amount);
        bondOf[msg.sender] -= amount;
    }

    function _bookTotals(uint64 epoch, JobTotal[] calldata totals) private {
        bytes32 previous;
        for (uint256 i; i < totals.length; ++i) {
            JobTotal calldata t = totals[i];
            if (t.job <= previous) revert JobOutOfPlace(t.job);
            previous = t.job;
            if (_settledIn[t.job] != 0) revert AlreadySettled(t.job);
            uint256 before = totalOf[t.job];
            if (t.total < before) revert TotalFell(t.job, before, t.total);
            totalOf[t.job] = t.total;
            if (t.settled) _settledIn[t.job] = epoch + 1;
            emit TotalPosted(epoch, t.job, t.total, t.settled);
            drawn += t.total - before;
            jobs.draw(t.job, t.total - before);
        }
    }

    function _claim(
        Epoch storage e,
        uint64 epoch,
        address account,
        uint256 cumulative,
        uint64 index,
        bytes32[] calldata proof
    ) private returns (uint256 amount) {
        if (!isIncluded(e.root, e.accounts, account, cumulative, index, proof)) revert BadProof(account, index);
        uint256 before = claimed[account];
        if (cumulative <= before) return 0;
        amount = cumulative - before;
        if (amount > drawn - paid) revert ExceedsDrawn(drawn - paid, amount);
        claimed[account] = cumulative;
        paid += amount;
        emit Claimed(epoch, account, amount, cumulative);
        _pay(account, amount);
    }

    /// Signers in ascending order: one pass shows that they are validators and distinct.
    function _checkSignatures(bytes32 hash, bytes[] calldata signatures) private view {
        uint256 least = Quorum.needed(registry.validatorCount());
        if (signatures.length < least) revert NoQuorum(signatures.length, least);
        address previous;
        for (uint256 i; i < signatures.length; ++i) {
            address signer = ECDSA.recover(hash, signatures[i]);
            if (signer <= previous || !registry.isValidator(signer)) revert SignerOutOfPlace(signer);
            previous = signer;
        }
    }
}
