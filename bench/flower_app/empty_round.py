"""A Flower app in which a client returns what it got plus noise: the time of a round without any training.

The server writes down when each round began and when its aggregate was there (Unix seconds, one JSON object).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Arrays plus noise."""
    values = message.content["arrays"]["vector"].numpy()
    noise = np.random.default_rng().normal(0, 1e-3, values.shape).astype(np.float32)
    content = {
        "arrays": ArrayRecord({"vector": Array(values + noise)}),
        "metrics": MetricRecord({"num-examples": 1}),
    }
    return Message(RecordDict(content), reply_to=message)


class Timed(FedAvg):
    """FedAvg that remembers when each round began and ended."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.began: list[float] = []
        self.ended: list[float] = []
        self.replies: list[int] = []

    def configure_train(self, *arguments: Any) -> Any:
        """The beginning of a round."""
        self.began.append(time.time())
        return super().configure_train(*arguments)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        """The end of a round."""
        answers = list(replies)
        self.replies.append(sum(not answer.has_error() for answer in answers))
        found = super().aggregate_train(server_round, answers)
        self.ended.append(time.time())
        return found


@server.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds, then the times."""
    settings = context.run_config
    clients = int(settings["clients"])
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    started = time.time()
    while len(list(grid.get_node_ids())) < clients:  # so that no round waits for nodes that still start
        time.sleep(0.2)
    first = ArrayRecord({"vector": Array(np.zeros(int(settings["parameters"]), np.float32))})
    strategy.start(grid, first, num_rounds=int(settings["rounds"]))
    found = {"started": started, "began": strategy.began, "ended": strategy.ended, "replies": strategy.replies}
    path = Path(str(settings["times"]))
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(found))
    aside.replace(path)
