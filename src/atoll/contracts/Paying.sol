// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title Taking tokens from the caller and paying them out again.
/// @notice The token must not charge fees on transfers: what is asked for is what is counted as received.
abstract contract Paying {
    using SafeERC20 for IERC20;

    /// @notice An EIP-2612 approval by the caller for this contract.
    struct Permit {
        uint256 amount;
        uint256 deadline;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    /// @notice An amount of zero moves nothing and is refused.
    error ZeroAmount();

    /// @notice The token that this contract holds.
    IERC20 public immutable token;

    constructor(IERC20 token_) {
        token = token_;
    }

    function _pull(uint256 amount) internal {
        if (amount == 0) revert ZeroAmount();
        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    function _pay(address to, uint256 amount) internal {
        token.safeTransfer(to, amount);
    }

    /// A permit may have been used already by somebody who saw it in flight; then the allowance stands, and the
    /// transfer that follows decides. So a failure here is not a reason to stop.
    function _permit(Permit calldata permit) internal {
        try IERC20Permit(address(token)).permit(
            msg.sender, address(this), permit.amount, permit.deadline, permit.v, permit.r, permit.s
        ) {} catch {}
    }
}
