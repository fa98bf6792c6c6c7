"""Digits, and what is none, as somebody might draw them on the pad: strokes by a seed, in several styles.

Points (x, y), the pad from (0, 0) to (1, 1). Shapes were drawn by hand, two for each digit, and none of them
was chosen or changed for what a network made of it.
"""

import math

import numpy as np

Strokes = list[list[tuple[float, float]]]


def arc(x: float, y: float, width: float, height: float, start: float, end: float) -> list[tuple[float, float]]:
    """Part of an ellipse, in degrees; 0 is to the right, 90 below."""
    angles = np.radians(np.linspace(start, end, 24))
    return [(x + width / 2 * math.cos(angle), y + height / 2 * math.sin(angle)) for angle in angles]


SHAPES: dict[int, list[Strokes]] = {
    0: [
        [arc(0.5, 0.5, 0.44, 0.7, -90, 270)],
        [arc(0.5, 0.5, 0.6, 0.66, -60, 290)],
    ],
    1: [
        [[(0.5, 0.15), (0.5, 0.85)]],
        [[(0.56, 0.15), (0.46, 0.85)]],
    ],
    2: [
        [[*arc(0.5, 0.34, 0.44, 0.38, 190, 390), (0.28, 0.85), (0.75, 0.85)]],
        [[*arc(0.48, 0.36, 0.4, 0.4, 200, 400), *arc(0.36, 0.76, 0.18, 0.16, 270, 60), (0.78, 0.84)]],
    ],
    3: [
        [[*arc(0.48, 0.32, 0.4, 0.34, 200, 450), *arc(0.48, 0.67, 0.46, 0.36, -90, 160)]],
        [[(0.28, 0.16), (0.7, 0.16), (0.46, 0.44), *arc(0.48, 0.65, 0.44, 0.42, -90, 150)]],
    ],
    4: [
        [[(0.36, 0.15), (0.28, 0.56), (0.76, 0.56)], [(0.64, 0.3), (0.62, 0.86)]],
        [[(0.6, 0.86), (0.6, 0.14), (0.24, 0.6), (0.78, 0.6)]],
    ],
    5: [
        [[(0.36, 0.16), (0.34, 0.45), *arc(0.5, 0.64, 0.44, 0.42, -130, 140)], [(0.36, 0.16), (0.72, 0.16)]],
        [[(0.72, 0.16), (0.36, 0.16), (0.32, 0.46), *arc(0.48, 0.64, 0.48, 0.42, -110, 150)]],
    ],
    6: [
        [[(0.62, 0.14), (0.42, 0.36), *arc(0.5, 0.66, 0.4, 0.38, -170, 200)]],
        [[*arc(0.7, 0.6, 0.8, 0.9, 260, 180), *arc(0.48, 0.66, 0.38, 0.36, 180, 540)]],
    ],
    7: [
        [[(0.27, 0.17), (0.74, 0.17), (0.45, 0.85)]],
        [[(0.27, 0.2), (0.5, 0.17), (0.74, 0.19), (0.58, 0.48), (0.5, 0.85)]],
    ],
    8: [
        [[*arc(0.5, 0.32, 0.34, 0.32, 90, -270), *arc(0.5, 0.67, 0.42, 0.38, -90, 270)]],
        [[*arc(0.5, 0.33, 0.36, 0.34, -30, -270), *arc(0.5, 0.67, 0.4, 0.34, -90, 180), (0.64, 0.26)]],
    ],
    9: [
        [[*arc(0.48, 0.34, 0.38, 0.36, 0, -360), (0.66, 0.5), (0.6, 0.86)]],
        [[*arc(0.48, 0.34, 0.38, 0.36, -20, -360), *arc(0.44, 0.6, 0.46, 0.52, -10, 120)]],
    ],
}
EUROPEAN_1: list[Strokes] = [[[(0.3, 0.38), (0.56, 0.15), (0.56, 0.85)]], [[(0.36, 0.3), (0.55, 0.15), (0.53, 0.85)]]]
CROSSED_7: list[Strokes] = [[[(0.27, 0.17), (0.74, 0.17), (0.45, 0.85)], [(0.38, 0.5), (0.72, 0.5)]]]
SLASHED_0: list[Strokes] = [[arc(0.5, 0.5, 0.44, 0.7, -90, 270), [(0.66, 0.24), (0.34, 0.76)]]]
SERIFED_1: list[Strokes] = [[[(0.4, 0.26), (0.5, 0.15), (0.5, 0.85)], [(0.34, 0.85), (0.66, 0.85)]]]
NOTHING: list[Strokes] = [
    [[(0.25, 0.85), (0.5, 0.15), (0.75, 0.85)], [(0.34, 0.6), (0.66, 0.6)]],  # A
    [[(0.3, 0.15), (0.3, 0.85)], [(0.3, 0.17), (0.7, 0.17)], [(0.3, 0.5), (0.6, 0.5)], [(0.3, 0.84), (0.7, 0.84)]],  # E
    [[(0.25, 0.2), (0.75, 0.8)], [(0.75, 0.2), (0.25, 0.8)]],  # X
    [[(0.25, 0.85), (0.25, 0.15), (0.5, 0.55), (0.75, 0.15), (0.75, 0.85)]],  # M
    [[(0.3, 0.15), (0.3, 0.85)], [(0.7, 0.15), (0.7, 0.85)], [(0.3, 0.5), (0.7, 0.5)]],  # H
    [[(0.2, 0.55), (0.42, 0.8), (0.82, 0.2)]],  # a tick
    [[(0.5, 0.2), (0.5, 0.8)], [(0.2, 0.5), (0.8, 0.5)]],  # +
    [[(0.22, 0.22), (0.78, 0.22), (0.78, 0.78), (0.22, 0.78), (0.22, 0.22)]],  # a square
    [[(0.5, 0.12), (0.73, 0.85), (0.13, 0.4), (0.87, 0.4), (0.27, 0.85), (0.5, 0.12)]],  # a star
    [arc(0.5, 0.5, 0.8, 0.8, 0, 360), [(0.38, 0.4)], [(0.62, 0.4)], arc(0.5, 0.55, 0.4, 0.3, 20, 160)],  # a face
    [[(0.5, 0.85), *arc(0.33, 0.36, 0.36, 0.36, 140, 360), *arc(0.67, 0.36, 0.36, 0.36, 180, 400), (0.5, 0.85)]],  # ♥
    [[(0.1, 0.5), (0.3, 0.3), (0.5, 0.6), (0.7, 0.3), (0.9, 0.6)]],  # a wave
    [[(0.5, 0.5)]],  # a dot
]


def turned(
    strokes: Strokes, scale: tuple[float, float], slant: float, angle: float, to: tuple[float, float]
) -> Strokes:
    """Scaled around the middle, slanted (x by so many y), turned (radians), and moved to have its middle at `to`."""
    cos, sin = math.cos(angle), math.sin(angle)

    def moved(point: tuple[float, float]) -> tuple[float, float]:
        x, y = (point[0] - 0.5) * scale[0], (point[1] - 0.5) * scale[1]
        x -= slant * y
        return to[0] + cos * x - sin * y, to[1] + sin * x + cos * y

    return [[moved(point) for point in stroke] for stroke in strokes]


def along(stroke: list[tuple[float, float]], step: float) -> list[tuple[float, float]]:
    """The stroke with points about `step` apart, as a pen gives them."""
    points = [stroke[0]]
    for start, end in zip(stroke, stroke[1:], strict=False):
        count = max(1, round(math.dist(start, end) / step))
        points += [tuple(np.add(start, np.subtract(end, start) * part / count)) for part in range(1, count + 1)]
    return points


def trembling(strokes: Strokes, random: np.random.Generator, size: float) -> Strokes:
    """Every point moved by about `size`, neighbours together."""
    shaken = []
    for stroke in strokes:
        points = np.array(along(stroke, 0.03))
        noise = random.normal(0, size, (len(points) + 4, 2))
        smooth = sum(noise[start : start + len(points)] for start in range(5)) / 5**0.5
        shaken.append([(float(x), float(y)) for x, y in points + smooth])
    return shaken


def drawings(seed: int) -> dict[str, list[tuple[int | None, Strokes]]]:
    """For each style its drawings, with the digit that each is meant to be, None for none."""
    random = np.random.default_rng(seed)
    usual = {"scale": (1, 1), "slant": 0, "angle": 0, "to": (0.5, 0.5), "tremble": 0.004}
    styles: dict[str, tuple[dict, dict]] = {
        "plain": (SHAPES, {}),
        "large": (SHAPES, {"scale": (1.35, 1.3)}),
        "a fifth of the pad": (SHAPES, {"scale": (0.28, 0.28), "tremble": 0.001}),
        "small, in a corner": (SHAPES, {"scale": (0.45, 0.45), "to": (0.8, 0.78), "tremble": 0.002}),
        "narrow": (SHAPES, {"scale": (0.55, 1)}),
        "wide": (SHAPES, {"scale": (1.4, 0.8)}),
        "slanted to the right": (SHAPES, {"slant": 0.4}),
        "slanted to the left": (SHAPES, {"slant": -0.3}),
        "turned by 20 degrees": (SHAPES, {"angle": math.radians(20)}),
        "trembling": (SHAPES, {"tremble": 0.015}),
        "1 with an upstroke": ({1: EUROPEAN_1 * 3}, {}),
        "1 with upstroke and foot": ({1: SERIFED_1 * 6}, {}),
        "crossed 7": ({7: CROSSED_7 * 6}, {}),
        "slashed 0": ({0: SLASHED_0 * 6}, {}),
        "no digit": ({None: NOTHING}, {}),
    }
    drawn: dict[str, list[tuple[int | None, Strokes]]] = {}
    for style, (shapes, changes) in styles.items():
        how = usual | changes
        drawn[style] = []
        for digit, ways in shapes.items():
            for way in ways * 3:
                a, b, c, d = random.uniform(-1, 1, 4)
                scale = (how["scale"][0] * (1 + 0.08 * a), how["scale"][1] * (1 + 0.08 * b))
                strokes = turned(way, scale, how["slant"] + 0.06 * c, how["angle"] + 0.06 * d, how["to"])
                drawn[style].append((digit, trembling(strokes, random, how["tremble"])))
    return drawn
