"""Draws scenes with Pillow: filled shapes only, no fonts, twice supersampled."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from lad_eval.tasks.sources.scenes_world import JITTER_ACROSS, JITTER_ALONG, Scene, Thing

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SIDE = 336
_OVER = 2
RADIUS = {"small": 38, "large": 62}
_CENTRES = {"vertical": ((168, 92), (168, 244)), "horizontal": ((92, 168), (244, 168))}
_PAINT = {
    "red": (214, 39, 40),
    "blue": (31, 78, 200),
    "yellow": (245, 215, 40),
    "purple": (126, 47, 160),
    "green": (30, 140, 60),
    "orange": (250, 130, 20),
    "cyan": (20, 190, 210),
    "pink": (245, 130, 190),
}
_GROUND = {
    "white": (250, 250, 250),
    "grey": (190, 190, 190),
    "sand": (232, 222, 200),
    "mist": (205, 222, 235),
    "slate": (60, 66, 76),
}


@lru_cache(maxsize=512)
def draw(scene: Scene) -> Image:
    """The picture, 336 x 336 RGB. The result is shared: copy it before changing it."""
    from PIL import Image as Pil
    from PIL import ImageDraw

    canvas = Pil.new("RGB", (SIDE * _OVER, SIDE * _OVER), _GROUND[scene.background])
    pen = ImageDraw.Draw(canvas)
    for thing, (x, y) in zip((scene.first, scene.second), centres(scene), strict=True):
        _paint(pen, thing, x * _OVER, y * _OVER)
    return canvas.reduce(_OVER)


def centres(scene: Scene) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixel (x, y) of the first and of the second thing's middle."""
    (ax, ay), (bx, by) = _CENTRES[scene.axis]
    # Along the axis the things keep clear of each other; across it they may move further.
    along = [value * JITTER_ALONG // JITTER_ACROSS for value in scene.jitter]
    if scene.axis == "vertical":
        return (ax + scene.jitter[0], ay + along[1]), (bx + scene.jitter[2], by + along[3])
    return (ax + along[0], ay + scene.jitter[1]), (bx + along[2], by + scene.jitter[3])


def _paint(pen: ImageDraw, thing: Thing, x: int, y: int) -> None:
    r = RADIUS[thing.size] * _OVER
    fill = _PAINT[thing.colour]
    if thing.shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif thing.shape == "square":
        h = r * 9 // 10
        pen.rectangle((x - h, y - h, x + h, y + h), fill=fill)
    elif thing.shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r * 8 // 10), (x + r, y + r * 8 // 10)], fill=fill)
    else:
        arm = r * 3 // 10
        pen.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
        pen.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
