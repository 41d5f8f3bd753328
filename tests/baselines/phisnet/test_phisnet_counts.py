"""PhiSNet's parameters: as many as published, module by module, and which of them are unused."""

from __future__ import annotations

import pytest
import torch

import hambench
from hambench.baselines.phisnet.model import PhiSNet
from hambench.baselines.phisnet.names import entries
from hambench.chem.orbitals import OrbitalBasis

NABLA = [1, 6, 7, 8, 9, 16, 17, 35]

PUBLISHED = {  # preset, elements, molecule: trainable, all (phisnet section 6 of the public code)
    "water": ("phisnet_md17", [1, 8], "O H H", 17_000_474, 17_017_114),
    "ethanol": ("phisnet_md17_ethanol", [1, 6, 8], None, 17_187_026, 17_217_106),
    "malondialdehyde": ("phisnet_md17_malondialdehyde", [1, 6, 8], None, 17_227_409, 17_257_489),
    "aspirin": ("phisnet_md17_aspirin", [1, 6, 8], None, 17_227_409, 17_257_489),
    "uracil": ("phisnet_md17_uracil", [1, 6, 7, 8], None, 17_494_727, 17_538_247),
    "nabla": ("phisnet_nabla2dft", NABLA, None, 20_747_454, None),
    "nabla, no like pairs": (
        "phisnet_nabla2dft", NABLA, "H C N O F S Cl Br", 20_251_320, None
    ),
    "nabla without bromine": ("phisnet_nabla2dft", NABLA[:-1], None, 19_269_860, None),
    "water of nablaDFT": ("phisnet_nabla2dft", [1, 8], "O H H", 17_017_243, None),
    "ethanol of nablaDFT": (
        "phisnet_nabla2dft", [1, 6, 8], "C C O H H H H H H", 17_203_795, None
    ),
    "malondialdehyde of nablaDFT": ("phisnet_nabla2dft", [1, 6, 8], None, 17_244_178, None),
    "uracil of nablaDFT": ("phisnet_nabla2dft", [1, 6, 7, 8], None, 17_511_496, None),
}  # fmt: skip


def published(case: str) -> PhiSNet:
    preset, elements, molecule, *_ = PUBLISHED[case]
    options = {} if molecule is None else {"molecule": molecule.split()}
    with torch.device("meta"):  # counts need no memory
        return hambench.build_model(preset, OrbitalBasis.load("def2-svp", elements), **options)


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_parameter_counts(case: str) -> None:
    model, (*_, trainable, everything) = published(case), PUBLISHED[case]
    assert model.count_parameters() == trainable
    if everything is not None:
        assert sum(p.numel() for p in model.parameters()) == everything


MODULES = {
    "embedding": 13_184,
    "radial_basis_functions": 1,
    **{f"module.{k}": 2_436_736 for k in range(5)},
    "module.0.interaction": 1_921_408,
    "module.0.interaction.mixing": 1_064_960,
    "module.3.interaction.mixing": 1_064_960,
    "module.3.interaction.radial_fn": 81_920,
    "module.3.interaction.angular_fn1": 768,
    "module.3.interaction.angular_fn2": 768,
    "module.0.interaction.linear_i": 85_632,
    "module.4.interaction.linear_v": 85_632,
    "module.0.residual_pre_x": 171_776,
    "angular_fn": 768,
    "mix_s": 1_064_960,
    "mix_ij": 1_064_960,
    "radial_ii": 81_920,
    "radial_ij": 81_920,
    **{f"residual_{name}": 171_776 for name in ("pc", "pn", "ii", "ij")},
    **{
        f"residual_{name}": 343_552
        for name in ("full_ii", "full_ij", "core_ii", "core_ij", "over_ij")
    },
    "activation_full_ii": 256,
    "output_full_ii": 3584 + 641 * 26,
    "output_full_ij": 3584 + 641 * 25,
    "output_core_ij": 3584 + 641 * 25,
    "output_over_ij": 3584 + 641 * 25,
    "output_over_ii": 3584 + 26,
}
UNUSED = {  # parameters that nothing depends on, of water
    "module.0.interaction.mixing": 60 * 128**2,
    "module.1": 0,
    "mix_s": 60 * 128**2,
    "mix_ij": 0,
    "angular_fn": 256,
    "residual_core_ii": 343_552,
    "output_over_ii": 3584 + 26 - 10,
    "output_full_ii": 128 * (5 * 26 - 62) + 26 - 19,
    "output_full_ij": 128 * (5 * 25 - 59) + 25 - 21 + 7 * 128,
}


def test_parameters_of_every_module() -> None:
    """Those that live and those listed as unused are the public code's, module by module."""
    model = published("water")
    live = {id(p): p.numel() for p in model.parameters()}
    spare = model.unused.by_name()
    assert all(id(p) in live for p in spare.values())
    total, unused = dict.fromkeys(MODULES, 0), dict.fromkeys(MODULES, 0)
    taken: dict[int, int] = {}
    for entry in entries(model):
        used, rest = 0, 0
        if entry.parameter is not None:
            used = entry.parameter[entry.index].numel()
            taken[id(entry.parameter)] = taken.get(id(entry.parameter), 0) + used
        if entry.unused is not None and not entry.frozen:
            rest = spare[entry.name].numel()
        for module in MODULES:
            if entry.name.startswith(f"{module}."):
                total[module] += used + rest
                unused[module] += rest
    assert total == MODULES
    assert {k: unused[k] for k in UNUSED} == UNUSED
    # every parameter of ours is in the list, in full
    taken |= {id(p): p.numel() for p in spare.values()}
    assert taken == live


def test_recommended_presets_carry_nothing_unused() -> None:
    basis = OrbitalBasis.load("def2-svp", NABLA)
    with torch.device("meta"):
        model = hambench.build_model("phisnet", basis)
    lean = model.count_parameters()
    assert model.unused is None
    assert model.overlap is None
    whole = published("nabla")
    spare = sum(p.numel() for p in whole.unused.parameters() if p.requires_grad)
    overlap = sum(p.numel() for p in whole.overlap.parameters())
    assert lean + spare + overlap == whole.count_parameters()
