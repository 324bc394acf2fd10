// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Paying} from "./Paying.sol";

/// @title Who takes part: nodes, the roles that they take, where they can be reached, and what they stake.
/// @notice This address is the root of a network: the token, the job escrow and the settlement are found through it.
/// Nodes are keyed by their account. The endpoint id is only stored: peers check that the Ed25519 key behind it signed
/// the account (`binding`), which the EVM cannot do cheaply, so claiming somebody else's endpoint id gains nothing.
/// @dev Nobody has powers over the nodes. The deployer names the other contracts once. Stake that is on its way out
/// stays here for `unstakeDelay`, so that slashing, when it comes, still finds it.
contract Registry is Paying, EIP712 {
    /// @notice Everything that is known about a node.
    struct Node {
        bytes32 endpointId;
        uint8 roles;
        bool active;
        uint64 registeredAt;
        uint64 withdrawableAt;
        uint256 stake;
        uint256 unstaking;
        string hints;
        bytes binding;
    }

    /// @notice The role flag of those that audit, aggregate and settle.
    uint8 public constant VALIDATOR = 2;
    uint256 private constant MAX_HINTS = 256;
    uint256 private constant BINDING_BYTES = 64;
    bytes32 private constant REGISTRATION =
        keccak256("Registration(address account,bytes32 endpointId,uint8 roles,bytes32 hints,uint256 nonce)");

    event Registered(address indexed account, bytes32 indexed endpointId, uint8 roles, string hints, bytes binding);
    event ActiveSet(address indexed account, bool active);
    event Staked(address indexed account, uint256 amount, uint256 stake);
    event UnstakeRequested(address indexed account, uint256 amount, uint256 stake, uint64 withdrawableAt);
    event Withdrawn(address indexed account, uint256 amount);
    event ValidatorSet(address indexed account, bool validator, uint256 validators);
    event Wired(address jobs, address settlement, address deposits);

    /// @notice Only the account that deployed the registry may name the other contracts.
    error NotDeployer(address caller);
    /// @notice The other contracts were named already.
    error AlreadyWired();
    /// @notice An endpoint id of zero names no node.
    error NoEndpoint();
    /// @notice A node takes at least one role.
    error NoRoles();
    /// @notice Address hints may have this many bytes at most.
    error HintsTooLong(uint256 length, uint256 limit);
    /// @notice The binding must be one Ed25519 signature.
    error BadBinding(uint256 length, uint256 expected);
    /// @notice The account did not sign this registration with its present nonce.
    error WrongAccount(address account, uint256 nonce, address signer);
    /// @notice The account is not in the registry; register it first.
    error NotRegistered(address account);
    /// @notice The account has less at stake than it asks back.
    error StakeTooSmall(uint256 stake, uint256 asked);
    /// @notice Nothing is on its way out.
    error NothingToWithdraw(address account);
    /// @notice The stake can be withdrawn from this time on.
    error StillLocked(uint64 withdrawableAt);

    /// @notice The stake from which on the validator role counts, in base units.
    uint256 public immutable minStake;
    /// @notice Seconds between asking for stake and receiving it.
    uint64 public immutable unstakeDelay;
    address private immutable _deployer;

    /// @notice The job escrow of this network.
    address public jobs;
    /// @notice The settlement of this network.
    address public settlement;
    /// @notice The deposits of this network, out of which services are paid.
    address public deposits;
    /// @notice How many times the account's entry was written, by itself or by signature. A signed registration counts
    /// for one nonce only.
    mapping(address account => uint256) public nonces;
    /// @notice How many accounts are validators now: registered as such, active, and with enough at stake.
    uint256 public validatorCount;
    /// @notice Whether the account is one of them.
    mapping(address account => bool) public isValidator;

    mapping(address account => Node) private _nodes;
    address[] private _accounts;

    constructor(IERC20 token_, uint256 minStake_, uint64 unstakeDelay_) Paying(token_) EIP712("Atoll", "1") {
        minStake = minStake_;
        unstakeDelay = unstakeDelay_;
        _deployer = msg.sender;
    }

    /// @notice Name the other contracts of the network, once.
    function wire(address jobs_, address settlement_, address deposits_) external {
        if (msg.sender != _deployer) revert NotDeployer(msg.sender);
        if (jobs != address(0)) revert AlreadyWired();
        jobs = jobs_;
        settlement = settlement_;
        deposits = deposits_;
        emit Wired(jobs_, settlement_, deposits_);
    }

    /// @notice Join, or change what is registered. A node that joins is active.
    /// @param endpointId the Ed25519 public key that names the node on the network
    /// @param roles the flags of the roles that it takes
    /// @param hints where it can be reached, at most 256 bytes
    /// @param binding the endpoint key's signature over the account, 64 bytes
    function register(bytes32 endpointId, uint8 roles, string calldata hints, bytes calldata binding) external {
        ++nonces[msg.sender];
        _register(msg.sender, endpointId, roles, hints, binding);
    }

    /// @notice Write the entry of an account that signed it; anyone may bring it. For accounts without coins.
    /// @dev The binding is not signed: it is the endpoint key's word, and peers check it. Whoever sends the signature
    /// first with a broken binding spends the nonce, no more; the account then signs again.
    /// @param account whose entry it is
    /// @param signature 65 bytes, the account's under the registration with `nonces(account)`
    function registerFor(
        address account,
        bytes32 endpointId,
        uint8 roles,
        string calldata hints,
        bytes calldata binding,
        bytes calldata signature
    ) external {
        uint256 nonce = nonces[account]++;
        bytes32 inner =
            keccak256(abi.encode(REGISTRATION, account, endpointId, roles, keccak256(bytes(hints)), nonce));
        address signer = ECDSA.recover(_hashTypedDataV4(inner), signature);
        if (signer != account) revert WrongAccount(account, nonce, signer);
        _register(account, endpointId, roles, hints, binding);
    }

    /// @notice Leave (false) or come back (true); the stake stays where it is.
    function setActive(bool active) external {
        Node storage self = _nodes[msg.sender];
        if (self.registeredAt == 0) revert NotRegistered(msg.sender);
        self.active = active;
        emit ActiveSet(msg.sender, active);
        _count(msg.sender, self);
    }

    /// @notice Put tokens at stake; they must be approved for this contract.
    function stake(uint256 amount) public {
        _pull(amount);
        Node storage self = _nodes[msg.sender];
        self.stake += amount;
        emit Staked(msg.sender, amount, self.stake);
        _count(msg.sender, self);
    }

    /// @notice Approve by signature and put tokens at stake in one transaction.
    function stakeWithPermit(uint256 amount, Permit calldata permit) external {
        _permit(permit);
        stake(amount);
    }

    /// @notice Ask for stake back. It stops counting now; a later request restarts the delay for all of it.
    function requestUnstake(uint256 amount) external {
        if (amount == 0) revert ZeroAmount();
        Node storage self = _nodes[msg.sender];
        if (self.stake < amount) revert StakeTooSmall(self.stake, amount);
        self.stake -= amount;
        self.unstaking += amount;
        self.withdrawableAt = uint64(block.timestamp) + unstakeDelay;
        emit UnstakeRequested(msg.sender, amount, self.stake, self.withdrawableAt);
        _count(msg.sender, self);
    }

    /// @notice Receive what was asked back, once the delay is over.
    function withdraw() external {
        Node storage self = _nodes[msg.sender];
        uint256 amount = self.unstaking;
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        if (block.timestamp < self.withdrawableAt) revert StillLocked(self.withdrawableAt);
        self.unstaking = 0;
        emit Withdrawn(msg.sender, amount);
        _pay(msg.sender, amount);
    }

    /// @notice How many accounts ever registered.
    function count() external view returns (uint256) {
        return _accounts.length;
    }

    /// @notice The nodes from number `start` on, at most `limit`, in the order of registration.
    function nodes(uint256 start, uint256 limit)
        external
        view
        returns (address[] memory accounts, Node[] memory entries)
    {
        uint256 rest = start < _accounts.length ? _accounts.length - start : 0;
        uint256 size = rest < limit ? rest : limit;
        accounts = new address[](size);
        entries = new Node[](size);
        for (uint256 i; i < size; ++i) {
            accounts[i] = _accounts[start + i];
            entries[i] = _nodes[accounts[i]];
        }
    }

    /// @notice The account that registered as number `index`, from 0.
    function accountAt(uint256 index) external view returns (address) {
        return _accounts[index];
    }

    /// @notice Everything about an account; `registeredAt` is 0 for those that never registered.
    function node(address account) external view returns (Node memory) {
        return _nodes[account];
    }

    /// @notice What the account has at stake, in base units.
    function stakeOf(address account) external view returns (uint256) {
        return _nodes[account].stake;
    }

    /// @notice Whether the account is registered and active.
    function isActive(address account) external view returns (bool) {
        return _nodes[account].active;
    }

    function _register(
        address account,
        bytes32 endpointId,
        uint8 roles,
        string calldata hints,
        bytes calldata binding
    ) private {
        if (endpointId == 0) revert NoEndpoint();
        if (roles == 0) revert NoRoles();
        if (bytes(hints).length > MAX_HINTS) revert HintsTooLong(bytes(hints).length, MAX_HINTS);
        if (binding.length != BINDING_BYTES) revert BadBinding(binding.length, BINDING_BYTES);
        Node storage self = _nodes[account];
        if (self.registeredAt == 0) {
            self.registeredAt = uint64(block.timestamp);
            self.active = true;
            _accounts.push(account);
        }
        self.endpointId = endpointId;
        self.roles = roles;
        self.hints = hints;
        self.binding = binding;
        emit Registered(account, endpointId, roles, hints, binding);
        _count(account, self);
    }

    function _count(address account, Node storage self) private {
        bool now_ = self.active && self.roles & VALIDATOR != 0 && self.stake >= minStake;
        if (now_ == isValidator[account]) return;
        isValidator[account] = now_;
        validatorCount = now_ ? validatorCount + 1 : validatorCount - 1;
        emit ValidatorSet(account, now_, validatorCount);
    }
}
