"""The zoo's models of pictures: 28 x 28 grey pixels, ten classes (needs torch)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

# Mean and standard deviation of MNIST's pixels, 0 to 255. Fashion-MNIST's are 73.0 and 90.0: close enough to learn.
PIXEL_MEAN = 33.3184
PIXEL_SCALE = 78.5675


class Pixels(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """uint8 pixels to float32 of mean 0 and deviation 1; part of the graph, so every node does the same."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, ...] uint8 -> the same shape, float32."""
        return (x.float() - PIXEL_MEAN) * (1 / PIXEL_SCALE)


class Softmax(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Logistic regression over 784 pixels: the smallest job that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.linear = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 28, 28] uint8 -> scores [batch, 10]."""
        scores: Tensor = self.linear(self.pixels(x).flatten(1))
        return scores


class MLP(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """One hidden layer of 64."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.hidden = nn.Linear(784, 64)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 28, 28] uint8 -> scores [batch, 10]."""
        scores: Tensor = self.linear(self.hidden(self.pixels(x).flatten(1)).relu())
        return scores


class CNN(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Two 3x3 convolutions of 16 and 32 channels with max-pools, and a linear layer: 20,490 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.linear = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 28, 28] uint8 -> scores [batch, 10]."""
        x = functional.max_pool2d(self.conv1(self.pixels(x)).relu(), 2)
        x = functional.max_pool2d(self.conv2(x).relu(), 2)
        scores: Tensor = self.linear(x.flatten(1))
        return scores


class Separable(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A depthwise 3x3 convolution, a pointwise one, each followed by ReLU.

    The block of MobileNet, https://arxiv.org/abs/1704.04861, without its normalisation: a network this shallow learns
    without, and there are no running statistics that many workers would have to agree on.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, height, width] -> [batch, outputs, height, width]."""
        found: Tensor = self.pointwise(self.depthwise(x).relu()).relu()
        return found


class Depthwise(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A small MobileNet: a 3x3 convolution, two separable blocks, max-pools, and a linear layer over what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.block1 = Separable(16, 32)
        self.block2 = Separable(32, 32)
        self.linear = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1, 28, 28] uint8 -> scores [batch, 10]."""
        x = functional.max_pool2d(self.stem(self.pixels(x)).relu(), 2)
        x = self.block2(functional.max_pool2d(self.block1(x), 2))
        scores: Tensor = self.linear(x.flatten(1))
        return scores
