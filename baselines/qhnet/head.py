"""From features to coupled block vectors, with weights that the elements decide."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from hambench.chem.blocks import BlockLayout
from hambench.o3.expansion import OrbitalExpansion
from hambench.o3.scalars import DegreeLinear, perceptron


class BlockHead(nn.Module):
    """Fewer channels, then the orbital expansion (arXiv 2306.04922, section 3.3).

    Args:
        blocks: of the basis.
        lmax: largest degree of the features.
        channels: C.
        bottleneck: W, channels that are expanded.
        elements: 1 for on-site blocks, 2 for those of pairs.
    """

    def __init__(
        self, blocks: BlockLayout, lmax: int, channels: int, bottleneck: int, elements: int
    ) -> None:
        super().__init__()
        self.reduce = DegreeLinear(lmax, channels, bottleneck, bias=False)
        self.expansion = OrbitalExpansion(blocks.slots, lmax, bottleneck)
        inputs = elements * channels
        self.weights = perceptron(inputs, channels, self.expansion.weights)
        self.biases = perceptron(inputs, channels, self.expansion.biases)

    def forward(self, reduced: Tensor, of_species: Callable[[nn.Module], Tensor]) -> Tensor:
        """Expand.

        Args:
            reduced: (R, S, W), by `reduce`.
            of_species: evaluates a network on the elements of every row.

        Returns:
            (R, K^2) coupled vectors, not yet symmetric.
        """
        vectors: Tensor = self.expansion(reduced, of_species(self.weights), of_species(self.biases))
        return vectors
