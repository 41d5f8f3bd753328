"""The picture: the same for the same seed, clusters stay clusters, files that can be opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import silhouette_score

from hambench.analysis.atoms import Atoms
from hambench.analysis.numbers import examine
from hambench.analysis.picture import SHOWN, Panel, draw_panels, project
from hambench.errors import DataError
from hambench.registry import load_task
from hambench.scoring import format_score


@pytest.mark.slow
def test_umap_is_seeded_and_keeps_clusters(rng: np.random.Generator):
    names = rng.integers(3, size=120)
    vectors = 5 * rng.normal(size=(3, 8))[names] + rng.normal(size=(120, 8))
    places = project(vectors, 1)
    assert places.shape == (120, 2)
    assert silhouette_score(places, names) > 0.6
    np.testing.assert_array_equal(places, project(vectors, 1))
    assert np.abs(places - project(vectors, 2)).max() > 0.1


def test_too_few_atoms_for_a_picture(rng: np.random.Generator):
    with pytest.raises(DataError, match=r"15 atoms are too few .* choose a larger split"):
        project(rng.normal(size=(15, 4)), 0)


def test_panels_stand_side_by_side_with_their_numbers(tmp_path: Path, rng: np.random.Generator):
    molecules = load_task("organic_mini").geometries(80)
    atoms = Atoms.of(molecules, [m.id.rpartition("-")[0] for m in molecules])
    assert len(set(atoms.environment.tolist())) > SHOWN
    vectors = rng.normal(size=(len(atoms), 6))
    findings = examine(vectors, atoms, vectors[:, 0], 0)
    panels = [Panel(name, vectors[:, :2], findings) for name in ("one run", "another run")]
    png, svg = draw_panels(panels, atoms, tmp_path / "new")
    text = svg.read_text()
    for said in ("one run", "another run", "silhouette", "others", "H(C)", "on-site energy R2"):
        assert said in text
    assert all(format_score(found) in text for found in findings[:5])
    wide = Image.open(png).size[0]
    alone = draw_panels(panels[:1], atoms, tmp_path / "alone")
    assert Image.open(alone[0]).size[0] < wide
    again = draw_panels(panels, atoms, tmp_path / "again")
    assert [p.read_bytes() for p in again] == [png.read_bytes(), svg.read_bytes()]
