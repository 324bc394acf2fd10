"""Back to PyTorch: the weights that `atoll train` leaves, into the model that they were trained for (needs torch)."""

from __future__ import annotations

import os
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from atoll.errors import BadInput
from atoll.graph.tracing.inventory import graph_name


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Copy trained weights into `model`: `path` is a folder that `atoll train` wrote, or its `model.safetensors`.

    Raises BadInput, and changes nothing, unless every tensor of the file has its place in the model, every parameter
    of the model is in the file, and the shapes agree.
    """
    file = Path(path)
    file = file / "model.safetensors" if file.is_dir() else file
    try:
        found = safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadInput(f"{file} cannot be read ({error}): expected weights that `atoll train` wrote.") from error
    places = {graph_name(name): value for name, value in (*model.named_parameters(), *model.named_buffers())}
    needed = {graph_name(name) for name, _ in model.named_parameters()}
    different = sorted((set(found) - set(places)) | (needed - set(found)))
    if different:
        raise BadInput(f"{file} is of another model: {', '.join(different[:3])} stand in one of the two only.")
    for name, value in found.items():
        if value.shape != places[name].shape:
            shapes = f"{list(value.shape)} there, {list(places[name].shape)} in the model"
            raise BadInput(f"{file} is of another model: {name} has shape {shapes}.")
    with torch.no_grad():
        for name, value in found.items():
            places[name].copy_(value)
