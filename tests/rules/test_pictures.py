"""The pictures in docs/images: as large as their dashboards, and no panel of them blank."""

from __future__ import annotations

import json

import pytest
from matplotlib.image import imread

from grafana.pictures.__main__ import DASHBOARDS, IMAGES, MARGIN, TITLE, UNIT, WIDTH, height

HEADING, LEGEND = 44, 0.3
"""Of a panel: pixels of its title, and the share of its height that its legend may take."""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("dashboard", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_no_panel_of_a_picture_is_blank(dashboard, theme):
    picture = imread(IMAGES / f"{dashboard.stem}-{theme}.png")
    assert picture.shape[:2] == (height(dashboard), WIDTH)
    blank = [
        panel["title"]
        for panel in json.loads(dashboard.read_text())["panels"]
        if panel["type"] != "row" and is_blank(picture, **panel["gridPos"])
    ]
    assert not blank


def is_blank(picture, x, y, w, h):
    """Whether nothing is drawn between a panel's title and its legend."""
    column = (WIDTH - 2 * MARGIN) / 24
    left, right = (round(MARGIN + column * at) for at in (x, x + w))
    top = MARGIN + TITLE + UNIT * y
    inside = picture[top + HEADING : top + round(UNIT * h * (1 - LEGEND)), left + 8 : right - 16]
    assert inside.size
    return bool((inside == inside[0, 0]).all())
