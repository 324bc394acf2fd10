"""The embedded chain: py-evm behind Ethereum JSON-RPC, kept in SQLite. Run it with `python -m atoll.ledger.devnet`."""
