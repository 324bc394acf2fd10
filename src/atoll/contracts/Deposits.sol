// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Paying} from "./Paying.sol";

/// @title Deposits: tokens that payers lock for services, and vouchers that pay for them.
/// @notice A payer signs vouchers off the chain, each over all that it ever owed one payee: the latest replaces those
/// before it, and none can be paid twice. What was paid in is always withdrawn + redeemed + what is still here.
/// @dev One deposit serves all payees of a payer: whoever redeems first is paid first, and the payer can pay itself
/// through another account. So a deposit guarantees nothing. A payee redeems before more is owed than it is ready to
/// lose; the delay of a withdrawal is the time in which it can.
contract Deposits is Paying, EIP712 {
    /// @notice What a payer has here: usable, and on its way out (still usable until it is withdrawn).
    struct Deposit {
        uint256 amount;
        uint256 leaving;
        uint64 withdrawableAt;
    }

    bytes32 private constant VOUCHER = keccak256("Voucher(address payer,address payee,uint256 cumulative)");

    event Deposited(address indexed account, uint256 amount, uint256 deposit);
    event WithdrawalRequested(address indexed account, uint256 amount, uint256 deposit, uint64 withdrawableAt);
    event DepositWithdrawn(address indexed account, uint256 amount);
    event Redeemed(
        address indexed payer, address indexed payee, uint256 amount, uint256 cumulative, uint256 deposit
    );

    /// @notice The account has less deposited than it asks back.
    error DepositTooSmall(uint256 deposit, uint256 asked);
    /// @notice No part of the deposit is on its way out.
    error NoWithdrawal(address account);
    /// @notice The deposit can be withdrawn from this time on.
    error DepositLocked(uint64 withdrawableAt);
    /// @notice The payer did not sign this voucher.
    error WrongPayer(address payer, address signer);
    /// @notice The payee has received this much from the payer already, which the voucher does not exceed.
    error NothingToRedeem(uint256 redeemed, uint256 cumulative);
    /// @notice The payer has nothing deposited.
    error NothingDeposited(address payer);

    /// @notice Seconds between asking for a part of a deposit and receiving it.
    uint64 public immutable delay;
    /// @notice What a payee has received from a payer in all.
    mapping(address payer => mapping(address payee => uint256)) public redeemed;

    mapping(address payer => Deposit) private _deposits;

    constructor(IERC20 token_, uint64 delay_) Paying(token_) EIP712("Atoll", "1") {
        delay = delay_;
    }

    /// @notice Deposit tokens, which must be approved for this contract.
    function deposit(uint256 amount) public {
        _pull(amount);
        Deposit storage mine = _deposits[msg.sender];
        mine.amount += amount;
        emit Deposited(msg.sender, amount, mine.amount);
    }

    /// @notice Approve by signature and deposit in one transaction.
    function depositWithPermit(uint256 amount, Permit calldata permit) external {
        _permit(permit);
        deposit(amount);
    }

    /// @notice Ask for a part of the deposit back. Vouchers are paid out of it until it is withdrawn; a later request
    /// restarts the delay for all of it.
    function requestWithdrawal(uint256 amount) external {
        if (amount == 0) revert ZeroAmount();
        Deposit storage mine = _deposits[msg.sender];
        if (mine.amount < amount) revert DepositTooSmall(mine.amount, amount);
        mine.amount -= amount;
        mine.leaving += amount;
        mine.withdrawableAt = uint64(block.timestamp) + delay;
        emit WithdrawalRequested(msg.sender, amount, mine.amount, mine.withdrawableAt);
    }

    /// @notice Receive what was asked back and was not redeemed meanwhile, once the delay is over.
    function withdraw() external {
        Deposit storage mine = _deposits[msg.sender];
        uint256 amount = mine.leaving;
        if (amount == 0) revert NoWithdrawal(msg.sender);
        if (block.timestamp < mine.withdrawableAt) revert DepositLocked(mine.withdrawableAt);
        mine.leaving = 0;
        emit DepositWithdrawn(msg.sender, amount);
        _pay(msg.sender, amount);
    }

    /// @notice Pay a payee what a voucher adds to what it has received, or as much of it as the payer still has here:
    /// first of what is on its way out. The rest can be redeemed later. Anyone may bring the voucher.
    /// @param payer who signed the voucher
    /// @param payee who is paid
    /// @param cumulative base units that the payer has owed the payee in all
    /// @param signature 65 bytes, the payer's under the voucher
    /// @return amount what was paid now
    function redeem(address payer, address payee, uint256 cumulative, bytes calldata signature)
        external
        returns (uint256 amount)
    {
        address signer = ECDSA.recover(digest(payer, payee, cumulative), signature);
        if (signer != payer) revert WrongPayer(payer, signer);
        uint256 before = redeemed[payer][payee];
        if (cumulative <= before) revert NothingToRedeem(before, cumulative);
        Deposit storage theirs = _deposits[payer];
        uint256 held = theirs.amount + theirs.leaving;
        if (held == 0) revert NothingDeposited(payer);
        amount = cumulative - before < held ? cumulative - before : held;
        uint256 first = amount < theirs.leaving ? amount : theirs.leaving;
        theirs.leaving -= first;
        theirs.amount -= amount - first;
        redeemed[payer][payee] = before + amount;
        emit Redeemed(payer, payee, amount, before + amount, theirs.amount);
        _pay(payee, amount);
    }

    /// @notice What an account has deposited: usable, on its way out, and from when on that can be withdrawn.
    function depositOf(address account) external view returns (Deposit memory) {
        return _deposits[account];
    }

    /// @notice The EIP-712 digest that a payer signs.
    function digest(address payer, address payee, uint256 cumulative) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(VOUCHER, payer, payee, cumulative)));
    }
}
