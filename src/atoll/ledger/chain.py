"""The ledger as the rest of Atoll sees it: every call to the contracts, typed, over any Ethereum JSON-RPC endpoint.

One `Chain` belongs to one thread. Reading needs no key; sending does. Accounts and addresses are 20 bytes, ids and
hashes 32, amounts base units (10^18 = 1 ATL), times Unix seconds. Raises ChainDown when the endpoint stays away,
WrongChain when it is not the network that was asked for, TransactionFailed (with the name of the contract's error as
`reason`) when a contract says no.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from atoll.ledger.caller import Caller
from atoll.ledger.epoch import Claim, JobTotal, Post
from atoll.ledger.events import Opened
from atoll.ledger.records import (
    Certificate,
    DepositRecord,
    Enlistment,
    EpochRecord,
    JobRecord,
    NodeRecord,
    Terms,
    Tx,
    in_committee_order,
)
from atoll.ledger.wallet import Call

CLAIMS_PER_CALL = 100


class Chain(Caller):
    """The contracts of one network, found through the registry. Use `Chain.connect`."""

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

    def register_for(
        self, account: bytes, endpoint_id: bytes, roles: int, hints: str, binding: bytes, signature: bytes
    ) -> Tx:
        """Write another account's entry; `signature` is its own, 65 bytes, under `eip712.REGISTRATION`."""
        return self.transact("Registry", "registerFor", account, endpoint_id, roles, hints, binding, signature)

    def registration_nonce(self, account: bytes) -> int:
        """The nonce that the account's next signed registration must carry."""
        return int(self.read("Registry", "nonces", account))

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
            deposit_delay=self.read("Deposits", "delay"),
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

    def enlist_for(self, job: bytes, account: bytes, tip: bytes, signature: bytes) -> Tx:
        """Offer another account to a job; `signature` is its own, 65 bytes, under `eip712.ENLIST`."""
        return self.transact("Jobs", "enlistFor", job, account, tip, signature)

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

    # Deposits

    def deposit(self, amount: int) -> Tx:
        """Deposit tokens, out of which vouchers of this account are paid."""
        permit = self._permit(self.addresses.deposits, amount)
        return self.transact("Deposits", "depositWithPermit", amount, permit)

    def request_withdrawal(self, amount: int) -> Tx:
        """Ask for a part of the deposit back; it can be withdrawn after the delay, and pays vouchers until then."""
        return self.transact("Deposits", "requestWithdrawal", amount)

    def withdraw_deposit(self) -> Tx:
        """Receive what was asked back and was not redeemed meanwhile."""
        return self.transact("Deposits", "withdraw")

    def deposit_of(self, account: bytes) -> int:
        """What the account has deposited and did not ask back."""
        return self.deposit_record(account).amount

    def deposit_record(self, account: bytes) -> DepositRecord:
        """What the account has deposited, and what of it is on its way out."""
        return DepositRecord(*self.read("Deposits", "depositOf", account))

    def redeem(self, payer: bytes, payee: bytes, cumulative: int, signature: bytes) -> Tx:
        """Have a payee paid by the payer's voucher; `signature` is the payer's, 65 bytes, under `eip712.VOUCHER`.

        Pays what the voucher adds, or as much of it as the payer still has deposited (`Redeemed.amount`).
        """
        return self.transact("Deposits", "redeem", payer, payee, cumulative, signature)

    def redeemed(self, payer: bytes, payee: bytes) -> int:
        """What the payee has received from the payer's deposit in all."""
        return int(self.read("Deposits", "redeemed", payer, payee))
