"""What a developer takes away: weights as safetensors, the model as ONNX, a model card for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy

from atoll.errors import MachineError
from atoll.graph.archive import ModelFile
from atoll.graph.standalone import standalone
from atoll.ledger.receipts import TOKEN, amount_text

Json = Any

WEIGHTS, MODEL, CARD, FACTS = "model.safetensors", "model.onnx", "README.md", "card.json"
ARCHIVE = "model.atoll"


def write_result(folder: Path, archive: bytes, model: ModelFile, card: Mapping[str, Json]) -> None:
    """Write the files of a trained model into `folder`; raises MachineError when the disk refuses."""
    frozen = dict(model.frozen.tensors) if model.frozen else {}
    tensors = {**frozen, **model.tensors}
    files = {
        WEIGHTS: safetensors.numpy.save({name: tensors[name] for name in sorted(tensors)}),
        MODEL: standalone(model.predict, tensors),
        ARCHIVE: archive,
        CARD: card_text(card).encode(),
        FACTS: (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            draft = folder / f".{name}.part"
            draft.write_bytes(content)
            draft.replace(folder / name)
    except OSError as error:
        raise MachineError(f"The trained model cannot be written to {folder} ({error.strerror}).") from error


def card_text(card: Mapping[str, Json]) -> str:
    """The model card as Markdown."""
    data, verdicts = card["data"], card["verdicts"]
    scores = "\n".join(f"| {name} | {value:.4f} |" for name, value in card["scores"].items())
    refused = ", ".join(f"{reason} {count}" for reason, count in verdicts["refused"].items()) or "none"
    lines = [
        f"# {card['name']}",
        "",
        f"Trained in the Atoll network by {card['workers']} workers in {card['rounds']} rounds "
        f"({card['steps']} steps of {card['batch']} samples a unit of work).",
        "",
        "| on held-out data | |",
        "|---|---|",
        scores,
        "",
        "## Data",
        "",
        f"{data['name']}: {data['count']:,} samples for training, {data['held_out_count']:,} held out. "
        f"Licence: {data['licence']}. Origin: {data['origin']}. Merkle root {data['root']}.",
        "",
        "## How it was checked",
        "",
        f"{verdicts['accepted']} units of work were accepted; refused: {refused}. Every round's result is certified by "
        "a quorum of validators; anyone can recompute it from public data and receipts.",
        "",
        "## Privacy",
        "",
        "Public lane: the training samples could be read by every node that took part, and nothing was added to hide "
        "single samples in the model. Do not train on private data this way.",
        "",
        "## Files",
        "",
        f"- `{WEIGHTS}`: all weights, float32",
        f"- `{MODEL}`: the model for any ONNX runtime; input `x`, output `scores`",
        f"- `{ARCHIVE}`: the model as the network stores it (id {card['model']})",
        "",
        f"Job {card['job']}, job file {card['job_file']}. Cost: {amount_text(int(card['cost']))} {TOKEN}.",
        "",
    ]
    return "\n".join(lines)
