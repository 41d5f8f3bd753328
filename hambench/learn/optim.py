"""Optimisers of the recipes: Adam and AdamW of torch, and Muon for weight matrices.

Muon (K. Jordan et al., 2024): the momentum of a weight matrix is replaced by the nearest
orthogonal matrix before it is applied, found by five Newton-Schulz steps. Two variants:

* ``matrices``, ours: 2-D weights are matrices, and a 3-D weight is a stack of matrices along its
  first axis (one per degree l in an SO(3) linear layer), each made orthogonal by itself.
  Embedding tables, whose rows are seen one at a time, go to AdamW. Newton-Schulz runs in bfloat16
  on a GPU and in float32 on a CPU, where bfloat16 is slow.
* ``published``, as in the public HELM code: every parameter of two or more dimensions, embeddings
  too, flattened to (first axis, rest), so that the degrees l of one layer are mixed; bfloat16
  everywhere.

Parameters of fewer dimensions go to AdamW in both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hambench.learn import recipe

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # steepest at zero with five steps ending near 1
_STEPS = 5
_CHUNK = 2**26  # numbers orthogonalised in one batch: bounds the extra memory


def build_optimizers(model: nn.Module, options: recipe.Optimizer) -> list[Optimizer]:
    """The optimisers that together update every trainable parameter of ``model``.

    Each group keeps its full learning rate as ``group["initial_lr"]``, which schedules scale.

    Args:
        options: the recipe's optimiser section.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizers: list[Optimizer]
    if isinstance(options, recipe.Muon):
        matrices = list(muon_parameters(model, options.variant))
        chosen = {id(p) for p in matrices}
        rest = [p for p in trainable if id(p) not in chosen]
        optimizers = []
        if matrices:
            muon = Muon(
                matrices,
                lr=options.lr,
                momentum=options.momentum,
                nesterov=options.nesterov,
                weight_decay=options.weight_decay,
                published=options.variant == "published",
            )
            optimizers.append(muon)
        if rest:
            optimizers.append(
                torch.optim.AdamW(
                    rest,
                    lr=options.adamw_lr,
                    betas=options.betas,
                    eps=options.eps,
                    weight_decay=options.weight_decay,
                    fused=_fusable(rest),
                )
            )
    else:
        kind = torch.optim.AdamW if isinstance(options, recipe.AdamW) else torch.optim.Adam
        optimizers = [
            kind(
                trainable,
                lr=options.lr,
                betas=options.betas,
                eps=options.eps,
                weight_decay=options.weight_decay,
                amsgrad=options.amsgrad,
                fused=_fusable(trainable),
            )
        ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def set_capturable(group: dict[str, Any], capturable: bool) -> None:
    """Whether the steps of a group of parameters can be captured as a CUDA graph.

    Torch's optimisers want to be told so while that is done, and no longer; others need no word.
    """
    if "capturable" in group:
        group["capturable"] = capturable


def muon_parameters(model: nn.Module, variant: str) -> Iterator[nn.Parameter]:
    """The trainable parameters that Muon updates, by the rule of ``variant``."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for parameter in model.parameters():
        if not parameter.requires_grad or parameter.ndim < 2:
            continue
        if variant == "published" or (parameter.ndim <= 3 and id(parameter) not in tables):
            yield parameter


class Muon(Optimizer):
    """Momentum, made orthogonal; update ``-lr sqrt(max(1, rows / columns)) O``.

    Matrices of one shape are made orthogonal together, in batched products.

    Args:
        params: of two or more dimensions.
        lr: a number; later, in a group, perhaps a tensor of shape (), which stays where it is.
        published: flatten to (first axis, rest) and work in bfloat16; else the last two axes are
            matrices. See the module.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        published: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "published": published,
        }
        super().__init__(list(params), defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        gradients = [p.grad for p in params if p.grad is not None]
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in params]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        direction: Sequence[Tensor] = momenta
        if group["nesterov"]:
            direction = torch._foreach_add(gradients, momenta, alpha=group["momentum"])
        if group["weight_decay"]:
            kept = 1 - group["lr"] * group["weight_decay"]
            torch._foreach_mul_(params, kept.to(params[0]) if isinstance(kept, Tensor) else kept)
        published = group["published"]
        stacks = [d.reshape(1, len(d), -1) if published else _matrices(d) for d in direction]
        for members in _batches(stacks):
            rows, columns = stacks[members[0]].shape[1:]
            together = torch.cat([stacks[k] for k in members])
            half = published or together.is_cuda
            update = orthogonal(together, torch.bfloat16 if half else torch.float32)
            parts = update.to(together.dtype).contiguous().split([len(stacks[k]) for k in members])
            views = [part.view_as(params[k]) for part, k in zip(parts, members, strict=True)]
            torch._fused_sgd_(
                [params[k] for k in members], views, [],
                lr=group["lr"] * max(1.0, rows / columns) ** 0.5,
                weight_decay=0.0, momentum=0.0, dampening=0.0, nesterov=False, maximize=False,
                is_first_step=True,
            )  # fmt: skip


def orthogonal(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Approximately the orthogonal factor of each matrix's polar decomposition.

    Five Newton-Schulz steps with coefficients that take singular values to within about 0.3 of 1,
    which Muon does not mind, rather than exactly to 1.

    Args:
        matrices: (n, rows, columns).
        dtype: of the products.

    Returns:
        (n, rows, columns) in ``dtype``; a zero matrix stays zero.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _matrices(tensor: Tensor) -> Tensor:
    """(n, rows, columns) of a 2-D or 3-D weight."""
    return tensor[None] if tensor.ndim == 2 else tensor


def _batches(stacks: list[Tensor]) -> Iterator[list[int]]:
    """Positions of stacks whose matrices have one shape and type, at most `_CHUNK` numbers each."""
    alike: dict[Any, list[int]] = defaultdict(list)
    for k, stack in enumerate(stacks):
        alike[stack.shape[1:], stack.dtype, stack.device].append(k)
    for members in alike.values():
        batch: list[int] = []
        size = 0
        for k in members:
            if batch and size + stacks[k].numel() > _CHUNK:
                yield batch
                batch, size = [], 0
            batch.append(k)
            size += stacks[k].numel()
        yield batch


def _fusable(params: list[nn.Parameter]) -> bool:
    """Whether torch has a fused Adam for the device of these parameters."""
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
