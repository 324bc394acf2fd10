// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title How many of a group must sign: more than two thirds.
library Quorum {
    /// @notice floor(2 * members / 3) + 1, so that any two quorums share an honest member while fewer than a third lie.
    function needed(uint256 members) internal pure returns (uint256) {
        return (2 * members) / 3 + 1;
    }
}
