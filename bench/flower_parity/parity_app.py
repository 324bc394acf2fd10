"""A Flower app that trains the CNN of Atoll's zoo with FedAvg: the same first parameters, samples and hyper-parameters.

Everything comes from the folder `data`: `client-N.npz` (x uint8 [n, 1, 28, 28], y int64 [n]), `held_out.npz`,
`first.npz` (the first parameters by name) and `job.json` (steps, batch, learning rate, momentum, clip). The server
writes down when each round began and ended, how good each model was, and the bytes of all packed arrays both ways.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn
from torch.nn import functional

PIXEL_MEAN, PIXEL_SCALE = 33.3184, 78.5675
EVALUATE_BATCH = 500

client = ClientApp()
server = ServerApp()


class CNN(nn.Module):
    """The `cnn` of `atoll.graph.zoo`, written down once more: this environment has no Atoll."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.linear = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 28, 28] uint8 -> scores [batch, 10]."""
        x = (x.float() - PIXEL_MEAN) * (1 / PIXEL_SCALE)
        x = functional.max_pool2d(self.conv1(x).relu(), 2)
        x = functional.max_pool2d(self.conv2(x).relu(), 2)
        scores: Tensor = self.linear(x.flatten(1))
        return scores


def _load(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _model(arrays: ArrayRecord) -> CNN:
    torch.set_num_threads(1)
    model = CNN()
    model.load_state_dict({name: torch.from_numpy(array.numpy().copy()) for name, array in arrays.items()})
    return model


def _pack(model: nn.Module) -> ArrayRecord:
    return ArrayRecord({name: Array(value.detach().numpy()) for name, value in model.state_dict().items()})


@client.train()
def train(message: Message, context: Context) -> Message:
    """Some steps of SGD from the server's parameters, its momentum starting at zero."""
    settings = context.run_config
    folder, number = Path(str(settings["data"])), int(context.node_config["partition-id"])
    job = json.loads((folder / "job.json").read_text())
    samples, model = _load(folder / f"client-{number}.npz"), _model(message.content["arrays"])
    round_number = int(message.content["config"]["server-round"])
    generator = np.random.default_rng([int(settings["seed"]), round_number, number])
    optimizer = torch.optim.SGD(model.parameters(), lr=job["learning_rate"], momentum=job["momentum"])
    for rows in _batches(generator, len(samples["y"]), job["steps"], job["batch"]):
        optimizer.zero_grad()
        functional.cross_entropy(model(samples["x"][rows]), samples["y"][rows]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), job["clip"])
        optimizer.step()
    content = {"arrays": _pack(model), "metrics": MetricRecord({"num-examples": len(samples["y"])})}
    return Message(RecordDict(content), reply_to=message)


def _batches(generator: np.random.Generator, count: int, steps: int, batch: int) -> Tensor:
    """Shuffles of all samples one after another, cut into batches: int64 [steps, batch]."""
    epochs = -(-steps * batch // count)
    order = np.concatenate([generator.permutation(count) for _ in range(epochs)])
    return torch.from_numpy(order[: steps * batch].reshape(steps, batch))


class Noted(FedAvg):
    """FedAvg that remembers when each round began and ended, and what was packed for and by the clients."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.began: list[float] = []
        self.ended: list[float] = []
        self.replies: list[int] = []
        self.down, self.up = 0, 0

    def configure_train(self, *arguments: Any) -> Any:
        """The beginning of a round."""
        self.began.append(time.time())
        messages = list(super().configure_train(*arguments))
        self.down += sum(_bytes(message) for message in messages)
        return messages

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        """The end of a round."""
        answers = [answer for answer in replies if not answer.has_error()]
        self.replies.append(len(answers))
        self.up += sum(_bytes(answer) for answer in answers)
        found = super().aggregate_train(server_round, answers)
        self.ended.append(time.time())
        return found


def _bytes(message: Message) -> int:
    return sum(len(array.data) for array in message.content["arrays"].values())


@server.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds; after each one the model is graded on the held-out samples here."""
    settings = context.run_config
    clients, folder = int(settings["clients"]), Path(str(settings["data"]))
    held_out, scores = _load(folder / "held_out.npz"), []

    def evaluate(_: int, arrays: ArrayRecord) -> None:
        model, loss, right = _model(arrays), 0.0, 0
        with torch.no_grad():
            for x, y in zip(*(held_out[name].split(EVALUATE_BATCH) for name in ("x", "y")), strict=True):
                found = model(x)
                loss += float(functional.cross_entropy(found, y, reduction="sum"))
                right += int((found.argmax(1) == y).sum())
        scores.append({"loss": loss / len(held_out["y"]), "accuracy": right / len(held_out["y"])})

    strategy = Noted(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    while len(list(grid.get_node_ids())) < clients:
        time.sleep(0.2)
    first = ArrayRecord({name: Array(value.numpy()) for name, value in _load(folder / "first.npz").items()})
    strategy.start(grid, first, num_rounds=int(settings["rounds"]), evaluate_fn=evaluate)
    found = {
        "began": strategy.began, "ended": strategy.ended, "replies": strategy.replies,
        "down": strategy.down, "up": strategy.up, "scores": scores, "finished": time.time(),
    }  # fmt: skip
    path = Path(str(settings["times"]))
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(found))
    aside.replace(path)
