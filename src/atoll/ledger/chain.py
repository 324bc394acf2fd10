"""The ledger as the rest of Atoll sees it: every call to the contracts, typed, over any Ethereum JSON-RPC endpoint.

One `Chain` belongs to one thread. Reading needs no key; sending does. Accounts and addresses are 20 bytes, ids and
hashes 32, amounts base units (10^18 = 1 ATL), times Unix seconds. Raises ChainDown when the endpoint stays away,
WrongChain when it is not the network that was asked for, TransactionFailed (with the name of the contract's error as
`reason`) when a contract says no.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from atoll.errors import ChainDown, RpcRefused, TransactionFailed, UserError, WrongChain
from atoll.ledger import abi
from atoll.ledger.epoch import Claim, JobTotal, Post
from atoll.ledger.events import Event, Opened, event_of
from atoll.ledger.link import Block, Link, Log, Receipt, Requester, failure, over_http
from atoll.ledger.records import (
    Addresses,
    Certificate,
    Enlistment,
    EpochRecord,
    GasUse,
    JobRecord,
    NodeRecord,
    Terms,
    Tx,
    in_committee_order,
)
from atoll.ledger.wallet import Call, Wallet
from atoll.wire.eip712 import PERMIT, Value, Verifier
from atoll.wire.identity import AccountKey

PERMIT_SECONDS = 3600
CLAIMS_PER_CALL = 100


class Chain:
    """The contracts of one network, found through the registry. Use `Chain.connect`."""

    def __init__(self, link: Link, addresses: Addresses, key: AccountKey | None = None) -> None:
        self.link = link
        self.addresses = addresses
        self.account = None if key is None else key.address
        self._key = key
        self._wallet = None if key is None else Wallet(link, key, addresses.chain_id)
        self._names = {
            addresses.registry: "Registry",
            addresses.token: "Token",
            addresses.jobs: "Jobs",
            addresses.settlement: "Settlement",
        }

    @classmethod
    def connect(
        cls,
        rpc: str | Requester,
        registry: bytes,
        chain_id: int | None = None,
        key: AccountKey | None = None,
        patience: float = 20.0,
    ) -> Chain:
        """Open a network: `rpc` is a URL, or a function from (method, parameters) to a JSON-RPC answer.

        `patience`: seconds for which requests are repeated while the endpoint is down (not while connecting). Raises
        ChainDown, or WrongChain if the chain id is another or there is no registry at the address.
        """
        link = Link(over_http(rpc) if isinstance(rpc, str) else rpc, patience=0.0)
        found = link.chain_id()
        if chain_id is not None and found != chain_id:
            raise WrongChain(f"the endpoint serves chain {found}, but the network is on chain {chain_id}; check --rpc")
        try:
            parts = [
                abi.result("Registry", name, link.call(registry, abi.call_data("Registry", name)))
                for name in ("token", "jobs", "settlement")
            ]
        except (TransactionFailed, abi.BadData) as error:
            raise WrongChain(
                f"there is no Atoll registry at 0x{registry.hex()} on chain {found}; check the address and the endpoint"
            ) from error
        if not any(parts[1]):
            raise WrongChain(f"the registry at 0x{registry.hex()} was never wired to its contracts")
        link.patience = patience
        return cls(link, Addresses(found, registry, *parts), key)

    # The chain itself

    def head(self) -> Block:
        """The latest block: rounds act on it."""
        block = self.link.block("latest")
        if block is None:
            raise ChainDown("the endpoint knows no latest block")
        return block

    def finalized(self) -> Block:
        """The latest block that cannot be undone: money acts on it. The latest, where a chain has no such tag."""
        return self.link.block("finalized") or self.head()

    def block(self, number: int) -> Block | None:
        """A block by its number."""
        return self.link.block(number)

    def logs(self, first: int, last: int) -> list[Log]:
        """Logs of the network's contracts in blocks `first` to `last`."""
        where = self.addresses
        return self.link.logs(first, last, (where.registry, where.token, where.jobs, where.settlement))

    def decode(self, log: Log) -> Event | None:
        """The event that a log of one of the contracts means."""
        name = self._names.get(log.address)
        return None if name is None else event_of(abi.raw_event(name, log.topics, log.data))

    @property
    def gas_by_call(self) -> dict[str, GasUse]:
        """Gas of the transactions that were sent from here, by name of the call."""
        return {} if self._wallet is None else dict(self._wallet.gas_by_call)

    def verifier(self, contract: str) -> Verifier:
        """What EIP-712 statements for `jobs` or `settlement` are bound to."""
        return Verifier(self.addresses.chain_id, getattr(self.addresses, contract))

    def has_faucet(self) -> bool:
        """Whether the chain gives newcomers coins and tokens: embedded chains do."""
        return self.link.offers("atoll_fund")

    def fund(self, account: bytes) -> None:
        """On an embedded chain: receive the newcomer's gift, once, and wait for it. TransactionFailed elsewhere."""
        try:
            names = self.link.ask("atoll_fund", "0x" + account.hex())
        except RpcRefused as error:
            raise failure("the request for coins", error) from error
        end = self.link.now() + 60.0
        while any(self.link.receipt(bytes.fromhex(name[2:])) is None for name in names):
            if self.link.now() > end:
                raise ChainDown("the chain did not mine the gift of coins within a minute")
            self.link.sleep(0.1)

    # Sending

    def _send(self, *calls: Call) -> list[Tx]:
        if self._wallet is None:
            raise UserError("this needs an account's key: the chain was opened for reading only")
        return [self._tx(call.name, receipt) for call, receipt in zip(calls, self._wallet.send(*calls), strict=True)]

    def transact(self, contract: str, function: str, *arguments: Any) -> Tx:
        """Send any call to a contract; structs are tuples in the order of their fields."""
        return self._send(self._call(contract, function, *arguments))[0]

    def _tx(self, name: str, receipt: Receipt) -> Tx:
        events = [event for event in map(self.decode, receipt.logs) if event is not None]
        return Tx(name, receipt.transaction, receipt.gas_used, receipt.block, receipt.block_hash, tuple(events))

    def _call(self, contract: str, function: str, *arguments: Any) -> Call:
        to = getattr(self.addresses, contract.lower())
        return Call(f"{contract}.{function}", to, abi.call_data(contract, function, *arguments))

    def read(self, contract: str, function: str, *arguments: Any) -> Any:
        """The result of any view of a contract; what has no method of its own is asked this way."""
        call = self._call(contract, function, *arguments)
        answer = self.link.call(call.to, call.data)
        try:
            return abi.result(contract, function, answer)
        except abi.BadData as error:
            raise WrongChain(
                f"0x{call.to.hex()} is not the {contract} contract of this version of Atoll; check the registry address"
            ) from error

    def _permit(self, spender: bytes, amount: int) -> tuple[int, int, int, bytes, bytes]:
        """An EIP-2612 approval by this account, signed: (amount, deadline, v, r, s)."""
        if self._key is None:
            raise UserError("this needs an account's key: the chain was opened for reading only")
        nonce = self.read("Token", "nonces", self._key.address)
        deadline = max(self.head().timestamp, int(time.time())) + PERMIT_SECONDS
        values: dict[str, Value] = {"owner": self._key.address, "spender": spender, "value": amount}
        digest = PERMIT.digest(self.verifier("token"), {**values, "nonce": nonce, "deadline": deadline})
        signature = self._key.sign_digest(digest)
        return amount, deadline, signature[64], signature[:32], signature[32:64]

    # Token

    def balance(self, account: bytes) -> int:
        """Tokens of an account."""
        return int(self.read("Token", "balanceOf", account))

    def coins(self, account: bytes) -> int:
        """The chain's own coin, in wei, which pays for transactions."""
        return self.link.balance(account)

    def transfer(self, to: bytes, amount: int) -> Tx:
        """Send tokens."""
        return self.transact("Token", "transfer", to, amount)

    def send_coins(self, gifts: Mapping[bytes, int]) -> list[Tx]:
        """Send wei to several accounts at once; the amounts by account."""
        return self._send(*(Call("coins", account, b"", value=wei) for account, wei in gifts.items()))

    def send_tokens(self, gifts: Mapping[bytes, int]) -> list[Tx]:
        """Send tokens to several accounts at once; the amounts, in base units, by account."""
        return self._send(*(self._call("Token", "transfer", account, amount) for account, amount in gifts.items()))

    # Registry

    def register(self, endpoint_id: bytes, roles: int, hints: str, binding: bytes) -> Tx:
        """Join the network or change the entry; `binding` is the endpoint key's signature, 64 bytes."""
        return self.transact("Registry", "register", endpoint_id, roles, hints, binding)

    def set_active(self, active: bool) -> Tx:
        """Leave, or come back."""
        return self.transact("Registry", "setActive", active)

    def stake(self, amount: int) -> Tx:
        """Put tokens at stake."""
        permit = self._permit(self.addresses.registry, amount)
        return self.transact("Registry", "stakeWithPermit", amount, permit)

    def request_unstake(self, amount: int) -> Tx:
        """Ask for stake back; it can be withdrawn after the delay."""
        return self.transact("Registry", "requestUnstake", amount)

    def withdraw_stake(self) -> Tx:
        """Receive what was asked back."""
        return self.transact("Registry", "withdraw")

    def node(self, account: bytes) -> NodeRecord:
        """What the registry says about an account."""
        return NodeRecord(account, *self.read("Registry", "node", account))

    def nodes(self, page: int = 50) -> list[NodeRecord]:
        """All nodes, in the order in which they registered, fetched `page` at a time."""
        found: list[NodeRecord] = []
        while True:
            accounts, entries = self.read("Registry", "nodes", len(found), page)
            found += [NodeRecord(account, *entry) for account, entry in zip(accounts, entries, strict=True)]
            if len(accounts) < page:
                return found

    def validator_count(self) -> int:
        """How many validators there are now."""
        return int(self.read("Registry", "validatorCount"))

    def is_validator(self, account: bytes) -> bool:
        """Whether the account is a validator now: role, enough at stake, active."""
        return bool(self.read("Registry", "isValidator", account))

    def terms(self) -> Terms:
        """What the network was set up with."""
        return Terms(
            min_stake=self.read("Registry", "minStake"),
            unstake_delay=self.read("Registry", "unstakeDelay"),
            bond=self.read("Settlement", "bond"),
            window=self.read("Settlement", "window"),
            grace=self.read("Jobs", "grace"),
        )

    # Jobs

    def open(self, manifest: bytes, budget: int, rounds: int, deadline: int, seed: bytes) -> tuple[bytes, Tx]:
        """Open a job and pay its budget into escrow; returns its id."""
        permit = self._permit(self.addresses.jobs, budget)
        call = self._call("Jobs", "openWithPermit", manifest, budget, rounds, deadline, seed, permit)
        tx = self._send(call)[0]
        return next(event.job for event in tx.events if isinstance(event, Opened)), tx

    def top_up(self, job: bytes, amount: int) -> Tx:
        """Add to a job's budget."""
        # The second call cannot be estimated before the first is mined.
        top_up = self._call("Jobs", "topUp", job, amount)
        allowing = self._call("Token", "approve", self.addresses.jobs, amount)
        return self._send(allowing, Call(top_up.name, top_up.to, top_up.data, gas=200_000))[1]

    def shorten(self, job: bytes, rounds: int) -> Tx:
        """End a job after `rounds` rounds, at least two more than are certified on the chain."""
        return self.transact("Jobs", "shorten", job, rounds)

    def enlist(self, job: bytes, tip: bytes) -> Tx:
        """Offer this node to a job with the tip of its hash chain."""
        return self.transact("Jobs", "enlist", job, tip)

    def start(self, job: bytes, committee: Sequence[bytes]) -> Tx:
        """Name the first committee, in leader order, and begin."""
        return self.transact("Jobs", "start", job, list(committee))

    def certify(self, certificate: Certificate, signatures: Mapping[bytes, bytes]) -> Tx:
        """Record a round; `signatures` maps members of the committee to their 65 bytes."""
        ordered = in_committee_order(certificate.committee, signatures)
        committees = list(certificate.committee), list(certificate.next_committee)
        return self.transact("Jobs", "certify", certificate.values(), *committees, ordered)

    def refund(self, job: bytes) -> Tx:
        """Send the rest of a job's budget to its developer, when the job is over."""
        return self.transact("Jobs", "refund", job)

    def job(self, job: bytes) -> JobRecord:
        """A job's account and progress; TransactionFailed (reason UnknownJob) if there is none."""
        return JobRecord(job, *self.read("Jobs", "get", job))

    def jobs(self) -> list[bytes]:
        """The ids of all jobs, in the order in which they were opened."""
        return [self.read("Jobs", "jobAt", index) for index in range(self.read("Jobs", "count"))]

    def enlisted(self, job: bytes) -> list[Enlistment]:
        """Who enlisted for a job, in order."""
        rows = zip(*self.read("Jobs", "enlisted", job), strict=True)
        return [Enlistment(account, tip, place) for place, (account, tip) in enumerate(rows, 1)]

    def enlistment(self, job: bytes, account: bytes) -> Enlistment:
        """What an account enlisted with; its place is 0 if it did not."""
        tip, place, _ = self.read("Jobs", "enlistment", job, account)
        return Enlistment(account, tip, place)

    # Settlement

    def deposit_bond(self, amount: int) -> Tx:
        """Deposit bond, of which every post takes a part until its window is over."""
        permit = self._permit(self.addresses.settlement, amount)
        return self.transact("Settlement", "depositBondWithPermit", amount, permit)

    def withdraw_bond(self, amount: int) -> Tx:
        """Take back bond that no epoch holds."""
        return self.transact("Settlement", "withdrawBond", amount)

    def release_bond(self, epoch: int) -> Tx:
        """Give an epoch's bond back to its poster, once the window is over; claims do so as well."""
        return self.transact("Settlement", "releaseBond", epoch)

    def bond(self, account: bytes) -> int:
        """The bond of an account that no epoch holds."""
        return int(self.read("Settlement", "bondOf", account))

    def post(self, post: Post, totals: Sequence[JobTotal], uri: str, signatures: Mapping[bytes, bytes]) -> Tx:
        """Post an epoch; `signatures` maps validators to their 65 bytes."""
        header = post.epoch, post.root, post.receipts_root, post.accounts, post.receipts
        rows = [(total.job, total.total, total.settled) for total in totals]
        ordered = [signatures[account] for account in sorted(signatures)]
        return self.transact("Settlement", "post", header, rows, uri, ordered)

    def claim(self, claim: Claim) -> Tx:
        """Have an account paid what it earned and did not claim yet."""
        arguments = claim.epoch, claim.account, claim.cumulative, claim.index, list(claim.proof)
        return self.transact("Settlement", "claim", *arguments)

    def claim_many(self, claims: Iterable[Claim]) -> list[Tx]:
        """Have many accounts paid from one epoch, in as few transactions as fit; those paid already are passed over."""
        waiting = list(claims)
        sent = []
        for start in range(0, len(waiting), CLAIMS_PER_CALL):
            part = waiting[start : start + CLAIMS_PER_CALL]
            rows = [(one.account, one.cumulative, one.index, list(one.proof)) for one in part]
            sent += self._send(self._call("Settlement", "claimMany", part[0].epoch, rows))
        return sent

    def claimed(self, account: bytes) -> int:
        """What the account has claimed in all."""
        return int(self.read("Settlement", "claimed", account))

    def unclaimed(self) -> int:
        """What was drawn from escrow in all and not paid to accounts yet."""
        return int(self.read("Settlement", "drawn") - self.read("Settlement", "paid"))

    def next_epoch(self) -> int:
        """The number of the epoch that is posted next."""
        return int(self.read("Settlement", "epochs"))

    def epoch(self, epoch: int) -> EpochRecord:
        """A posted epoch; TransactionFailed (reason UnknownEpoch) if there is none."""
        return EpochRecord(epoch, *self.read("Settlement", "epochAt", epoch))

    def is_final(self, epoch: int) -> bool:
        """Whether claims of this epoch are paid."""
        return bool(self.read("Settlement", "isFinal", epoch))

    def is_settled(self, job: bytes) -> bool:
        """Whether the job's last payments are posted and can no longer be challenged."""
        return bool(self.read("Settlement", "isSettled", job))

    def total(self, job: bytes) -> int:
        """What the job has paid in all, as last posted."""
        return int(self.read("Settlement", "totalOf", job))
