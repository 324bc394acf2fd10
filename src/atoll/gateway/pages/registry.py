"""Every page of the dashboard, in one table: a new feature adds a row, a function and a template. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atoll.gateway.pages import answers, jobs, money, network, store
from atoll.gateway.pages.facts import Snapshot

Json = Any
Show = Callable[[Snapshot, Mapping[str, str]], Json]
"""(facts, what the address names) -> the page's JSON twin; raises Missing."""


@dataclass(frozen=True)
class Page:
    """One page and its JSON twin. `topics` name the events after which it should be looked at again.

    In `path` and `topics`, braces stand for what the address names. `menu` is its entry in the menu, empty for none.
    """

    path: str
    template: str
    summary: str
    show: Show | None
    topics: tuple[str, ...]
    menu: str = ""
    paged: bool = False

    @property
    def twin(self) -> str:
        """Where the JSON twin is."""
        return "/index.json" if self.path == "/" else f"{self.path}.json"


PAGES: tuple[Page, ...] = (
    Page("/", "network.html", "The network: nodes by role and place, what they lend, how to join",
         network.network_page, ("network", "jobs"), "Network"),
    Page("/join", "join.html", "Train in this browser tab and earn (docs/protocol/tabs.md)", network.join_page, ()),
    Page("/jobs", "jobs.html", "All jobs", jobs.jobs_page, ("jobs",), "Jobs"),
    Page("/jobs/{job}", "job.html", "One job: accuracy and loss by round, workers, cost, chain of certificates",
         jobs.job_page, ("job/{job}",)),
    Page("/jobs/{job}/rounds/{round}", "round.html", "One round: who did what, verdicts and reasons, hashes",
         jobs.round_page, ("job/{job}",)),
    Page("/models", "models.html", "Trained models that the network stores", store.models_page, ("models",), "Models"),
    Page("/models/{model}", "model.html", "One model: its card, who trained it, how to run it; try it in the browser",
         None, ("models",)),
    Page("/answers", "answers.html", "Servers that answer questions: record, speed, price, payment; models offered",
         answers.answers_page, ("network", "settlement"), "Answers"),
    Page("/nodes/{account}", "node.html", "One node: resources, record, earnings by kind, refusals and why",
         network.node_page, ("network", "settlement")),
    Page("/accounts/{account}", "account.html", "Statement of an account: every receipt, to be recomputed",
         money.account_page, ("settlement",), paged=True),
    Page("/blobs", "blobs.html", "Stored blobs and pieces", store.blobs_page, ("blobs",), "Storage"),
    Page("/settlement", "settlement.html", "Epochs, roots, totals and claims",
         money.settlement_page, ("settlement",), "Settlement", paged=True),
    Page("/settlement/{epoch}", "epoch.html", "One epoch as the chain holds it", money.epoch_page, ("settlement",)),
)  # fmt: skip
"""In the order in which they are described."""
