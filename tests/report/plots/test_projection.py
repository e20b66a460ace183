"""The picture of sentences: principal components against an independent computation, and its drawing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import torch

from mlkd.report.plots.projection import HEIGHT, WIDTH, draw_points, project


def some_vectors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(12, 6, generator=generator) * torch.arange(1.0, 7.0) for name in ("en", "de", "fr", "ja")}


def some_texts(vectors: dict[str, torch.Tensor]) -> dict[str, list[str]]:
    return {name: [f"{name} <{i}>" for i in range(len(rows))] for name, rows in vectors.items()}


def test_components_equal_the_covariance_eigenvectors() -> None:
    vectors = some_vectors()
    found = project(vectors, some_texts(vectors))
    rows = np.concatenate([v.double().numpy() for v in vectors.values()])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows -= rows.mean(axis=0)
    variances, directions = np.linalg.eigh(rows.T @ rows)
    for i, axis in enumerate("xy"):
        expected = rows @ directions[:, -1 - i]
        got = np.array([point[axis] for point in found["points"]])
        sign = np.sign(expected @ got)
        np.testing.assert_allclose(got, sign * expected, atol=1e-6)
        np.testing.assert_allclose(found["explained"][i], variances[-1 - i] / variances.sum())


def test_same_input_same_picture_and_inputs_are_kept() -> None:
    vectors = some_vectors()
    copies = {name: rows.clone() for name, rows in vectors.items()}
    assert project(vectors, some_texts(vectors), vectors) == project(copies, some_texts(vectors), copies)
    assert all(torch.equal(copies[name], rows) for name, rows in vectors.items())


def test_points_name_language_sentence_and_text() -> None:
    vectors = some_vectors()
    found = project(vectors, some_texts(vectors), vectors)
    assert found["points"][13] == {**found["points"][13], "language": "de", "sentence": 1, "text": "de <1>"}
    assert found["before"] == found["points"]


def test_one_point_and_one_dimension_do_not_fail() -> None:
    single = project({"en": torch.ones(1, 4)}, {"en": ["a"]})
    assert (single["points"][0]["x"], single["explained"]) == (0.0, [0.0, 0.0])
    flat = project({"en": torch.tensor([[1.0], [-1.0]])}, {"en": ["a", "b"]})
    assert flat["explained"] == [1.0, 0.0]
    assert draw_points(single["points"], ["en"], "x", captions=True).startswith("<svg")


def test_drawing_joins_each_sentence_by_the_shortest_tree() -> None:
    vectors = some_vectors()
    points = project(vectors, some_texts(vectors))["points"]
    root = ElementTree.fromstring(draw_points(points, list(vectors), "all <of> them", captions=True))
    joins = root.findall("path[@class='join']")
    assert len(joins) == 12
    assert all(join.attrib["d"].count("M") == len(vectors) - 1 for join in joins)
    dots = root.findall("circle")
    assert len(dots) == 48
    assert dots[0].findtext("title") == "en: en <0>"
    assert all(0 <= float(d.attrib["cx"]) <= WIDTH and 0 <= float(d.attrib["cy"]) <= HEIGHT for d in dots)
    assert root.attrib["aria-label"] == "all <of> them"


def test_tree_takes_the_near_way() -> None:
    points = [{"x": x, "y": 0.0, "language": "en", "sentence": 0, "text": ""} for x in (0.0, 10.0, 1.0)]
    svg = draw_points(points, ["en"], "", captions=False)
    steps = re.findall(r"M([\d.]+) [\d.]+L([\d.]+)", svg)
    lengths = sorted(abs(float(a) - float(b)) for a, b in steps)
    assert np.allclose(lengths[0] * 9, lengths[1], rtol=0.02)


def test_more_languages_than_colours_change_the_shape() -> None:
    languages = [f"l{i}" for i in range(9)]
    points = [{"x": i, "y": 0, "language": name, "sentence": i, "text": name} for i, name in enumerate(languages)]
    root = ElementTree.fromstring(draw_points(points, languages, "", captions=False))
    assert (len(root.findall("circle")), len(root.findall("rect"))) == (7, 2)
