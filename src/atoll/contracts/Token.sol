// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title The token in which work is paid: a plain ERC-20 with permit, of fixed supply, owned by nobody.
contract Token is ERC20, ERC20Permit {
    /// @param holder the account that receives the whole supply
    /// @param supply the supply in base units (1 ATL = 10^18)
    constructor(address holder, uint256 supply) ERC20("Atoll", "ATL") ERC20Permit("Atoll") {
        _mint(holder, supply);
    }
}
