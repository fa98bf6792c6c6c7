"""Draw `car.jpg`: a picture in the manner of Carvana's photographs, and the car's exact mask.

    python -m report.draw_car                    # writes car.jpg and report/results/unet/car_mask.png
    python -m report.draw_car --sheet sheet.png  # a contact sheet of seeds 0 to 8 instead
    python -m report.draw_car --folder drawn     # seeds 1 to 200 and their masks, for `train_unet.py --extra drawn`

The first prints the picture's size, its bytes and the share of it that is car; the others what they wrote.

No photograph went into it. The car is described in centimetres (x from the front bumper backwards, y up from the
ground), as if seen from the side by a camera 5 degrees above it. Every surface is an outline and a colour, and the
colour is either constant or a function of the place on the car. The paint is the part that makes it look real: the
side of the body has a normal at every point, the normal gives the direction that the camera sees reflected, and
`studio_light` says how bright the studio is in that direction.

Drawing order: wall, letters and turntable; shadow on the floor; underbody; body; wheels; windows; lamps and small
parts; then what a camera does (soft lens, vignette, grain). All of it at twice the size, reduced at the end.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from report.tables import RESULTS
from training import ROOT, command, told, write_whole

PICTURE = ROOT / "car.jpg"
MASK = RESULTS / "unet" / "car_mask.png"
FOLDER_CARS = 200
SUPERSAMPLE = 2
CAMERA_ELEVATION = 5.0  # degrees above the horizontal
CROWN = 10.5  # how many centimetres of roof and bonnet show above the near edge, seen from that height
BLACK = (0.03, 0.03, 0.03)

Colour = tuple[float, float, float] | np.ndarray
Paint = Colour | Callable[[np.ndarray, np.ndarray], np.ndarray]


def points(text: str) -> tuple:
    """Points (or colours) from "x y, x y": an outline stays readable when it is one line."""
    return tuple(tuple(float(number) for number in point.split()) for point in text.split(","))


def around(x: float, y: float, text: str) -> np.ndarray:
    """`points(text)` as `[N, 2]`, meant relative to the place (x, y)."""
    return np.array(points(text)) + (x, y)


@dataclass(frozen=True)
class Car:
    """Proportions in centimetres, colours in sRGB from 0 to 1. The defaults are the car of `car.jpg`."""

    nose: tuple = points("30 18, 15 19, 6 22.5, 1.5 29, 0 38, 0 48, 0.8 57, 3 66, 8 73")
    bonnet: tuple = points("8 73, 25 80.5, 54 88, 92 94.5, 138 99.5")
    roof: tuple = points("138 99.5, 170 116, 202 131.5, 236 140.5, 272 143.5, 308 141.5, 342 134, 376 121.5, 410 110")
    boot: tuple = points("410 110, 430 107.8, 449 107, 464 107.5")
    tail: tuple = points(
        "464 107.5, 466 104, 466 97, 466.5 88, 467.5 79, 470 71, 471.5 62, 471 48, 467 36, 459 27, 445 21.5, 428 19"
    )
    belt: tuple = points("120 97, 160 99.5, 260 103, 360 106.5, 470 109")
    windows: tuple = (156.0, 394.0)  # front and rear corner
    pillars: tuple = (254.0, 346.0)
    axles: tuple = (91.0, 371.0)
    tyre: float = 33.0
    rim: float = 24.5
    spokes: int = 10
    sill: float = 19.0
    length: float = 471.5
    saloon: bool = True
    body: tuple = (0.02, 0.17, 0.44)
    trim: tuple = (0.86, 0.87, 0.88)
    glass: tuple = (0.62, 0.70, 0.69)


HATCHBACK = Car(
    roof=points("138 99.5, 168 118, 198 134.5, 232 144, 272 147.5, 318 146, 360 140, 392 131, 404 125"),
    boot=points("404 125, 412 119, 418 112, 421 106"),
    tail=points("421 106, 424 95, 428 80, 432 66, 433 52, 431 38, 425 28, 412 22, 400 20"),
    windows=(155.0, 384.0),
    pillars=(250.0, 338.0),
    axles=(88.0, 350.0),
    length=433.0,
    spokes=7,
    saloon=False,
)
SUV = Car(
    nose=points("22 27, 12 28, 5 34, 2 46, 1 62, 3 76, 8 86, 14 92"),
    bonnet=points("14 92, 30 98, 56 104, 92 109, 134 113"),
    roof=points("134 113, 160 132, 186 149, 218 160, 262 164.5, 320 164, 380 159.5, 424 153, 436 149"),
    boot=points("436 149, 444 140, 450 128, 453 118"),
    tail=points("453 118, 456 106, 460 92, 464 76, 465 62, 463 48, 457 38, 446 31, 430 28"),
    belt=points("120 110, 160 113, 260 116, 360 119.5, 470 124"),
    windows=(152.0, 424.0),
    pillars=(244.0, 340.0),
    axles=(92.0, 364.0),
    tyre=38.5,
    rim=25.0,
    spokes=6,
    sill=28.0,
    length=465.0,
    saloon=False,
)
BODY_COLOURS = points(
    "0.07 0.17 0.42, 0.04 0.04 0.045, 0.82 0.83 0.84, 0.60 0.61 0.63, 0.45 0.05 0.07, 0.27 0.28 0.30, "
    "0.93 0.93 0.92, 0.20 0.13 0.09, 0.62 0.57 0.47, 0.10 0.26 0.22, 0.75 0.35 0.08, 0.36 0.50 0.62"
)


def random_car(kind: int, rng: np.random.Generator) -> Car:
    """One of the three kinds of car, with its colour, height, wheels and window trim varied."""
    car = (Car(), HATCHBACK, SUV)[kind]
    body = np.clip(np.array(BODY_COLOURS[rng.integers(len(BODY_COLOURS))]) * rng.uniform(0.8, 1.2), 0, 0.95)
    taller = rng.uniform(0.95, 1.07)
    tall = {name: tuple((x, y * taller) for x, y in getattr(car, name)) for name in ("bonnet", "roof", "boot", "belt")}
    tall["nose"] = (*car.nose[:-1], tall["bonnet"][0])
    tall["tail"] = (tall["boot"][-1], *car.tail[1:])
    return replace(
        car,
        **tall,
        body=tuple(body),
        trim=((0.86, 0.87, 0.88), (0.05, 0.05, 0.05))[rng.integers(2)],
        glass=tuple(np.array(car.glass) * rng.uniform(0.35, 1.05)),
        rim=car.rim + rng.uniform(-1.5, 1.0),
        spokes=int(rng.integers(5, 12)),
    )


def curve(corners: tuple, steps: int = 16) -> np.ndarray:
    """A smooth (Catmull-Rom) curve through `corners`, as `[N, 2]` points."""
    p = np.array([corners[0], *corners, corners[-1]], dtype=np.float64)
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    return np.concatenate([*parts, p[-1:]])


def offset(line: np.ndarray, distance: float | np.ndarray) -> np.ndarray:
    """`line` moved sideways by `distance` (to the left of its direction: up, for a line from front to rear)."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    return line + np.stack([-along[:, 1], along[:, 0]], axis=1) * np.reshape(distance, (-1, 1))


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """The outline of an ellipse."""
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between them (`low` may be the larger)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Colour, b: Colour, share: float | np.ndarray) -> np.ndarray:
    """Colour `a` where `share` is 0, `b` where it is 1."""
    a, b, share = (np.asarray(value, dtype=np.float32) for value in (a, b, share))
    return a + (b - a) * share[..., None]


def fade(bottom: Colour, top: Colour, low: float, high: float) -> Paint:
    """A paint that goes from `bottom` at the height `low` to `top` at `high`."""
    return lambda x, y: mix(bottom, top, smoothstep(low, high, y))


def studio_light(elevation: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """How bright the studio is (linear, 0 to 1) in a direction, in degrees; (0, 0) is behind the camera.

    A lit floor that is darker near the car, a dark gap at the horizon where the camera stands, a white wall above.
    """
    floor = 0.04 + 0.86 * np.exp(np.minimum(elevation, 0) / 11)
    behind = 0.04 + 0.50 * smoothstep(35, 80, np.abs(azimuth))
    wall = behind + (0.95 - behind) * smoothstep(9, 24, elevation)
    wall = wall - 0.25 * smoothstep(45, 80, elevation)
    return floor + (wall - floor) * smoothstep(-2.0, 0.6, elevation)


def lacquer(body: tuple, tilt_x: np.ndarray, tilt_y: np.ndarray) -> np.ndarray:
    """Metallic paint under clear lacquer, seen from the camera: sRGB `[..., 3]` for normals tilted by these degrees."""
    tilt_x, tilt_y = np.float32(tilt_x), np.float32(tilt_y)
    n = np.stack([np.tan(np.radians(tilt_x)), np.tan(np.radians(tilt_y)), np.ones_like(tilt_x)])
    n /= np.linalg.norm(n, axis=0)
    view = np.radians(CAMERA_ELEVATION)
    facing = n[1] * np.sin(view) + n[2] * np.cos(view)
    reflected_y = 2 * facing * n[1] - np.sin(view)
    reflected_z = 2 * facing * n[2] - np.cos(view)
    elevation = np.degrees(np.arcsin(np.clip(reflected_y, -1, 1)))
    azimuth = np.degrees(np.arctan2(2 * facing * n[0], reflected_z))
    mirror = 0.06 + 0.94 * (1 - np.clip(facing, 0, 1)) ** 5
    pigment = np.array(body) ** 2.2
    matt = np.clip(0.50 + 0.90 * n[1], 0.10, 1)
    sparkle = 0.80 * np.exp(-(((tilt_y - 30) / 15) ** 2)) + 0.45 * np.exp(-(((tilt_y - 0) / 5) ** 2))
    light = pigment * (matt + sparkle)[..., None] + (mirror * studio_light(elevation, azimuth))[..., None]
    return np.clip(light, 0, 1) ** (1 / 2.2)


class Canvas:
    """A picture `[H, W, 3]` (0 to 1) and the mask `[H, W]` of the car in it, drawn on in the car's centimetres."""

    def __init__(self, image: np.ndarray, scale: float, left: float, ground: float, flip: bool, length: float):
        self.image, self.mask = image, np.zeros(image.shape[:2], dtype=np.uint8)
        self.scale, self.left, self.ground, self.flip, self.length = scale, left, ground, flip, length

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Centimetres to pixels."""
        x = self.length - points[:, 0] if self.flip else points[:, 0]
        return np.stack([self.left + x * self.scale, self.ground - points[:, 1] * self.scale], axis=1)

    def fill(
        self, outline: np.ndarray, paint: Paint, opacity: float = 1, soft: float = 0, clip: tuple = (), solid=False
    ):
        """Paint the inside of `outline`: `soft` centimetres of blur, only inside every outline in `clip`.

        `solid` parts belong to the car's mask; the others lie on solid parts, or on the floor.
        """
        outline, margin = self.pixels(np.asarray(outline, dtype=np.float64)), 2 + 3 * soft * self.scale
        height, width = self.mask.shape
        x0, y0 = np.maximum(np.floor(outline.min(axis=0) - margin), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(outline.max(axis=0) + margin), (width, height)).astype(int)
        if x0 >= x1 or y0 >= y1:
            return

        def stencil(points: np.ndarray) -> Image.Image:
            image = Image.new("L", (2 * int(x1 - x0), 2 * int(y1 - y0)))
            ImageDraw.Draw(image).polygon((2 * (points - (x0, y0))).ravel().tolist(), fill=255)
            return image.reduce(2)

        shape = stencil(outline)
        if solid:
            np.maximum(self.mask[y0:y1, x0:x1], np.asarray(shape), out=self.mask[y0:y1, x0:x1])
        if soft:
            shape = shape.filter(ImageFilter.GaussianBlur(soft * self.scale))
        alpha = np.asarray(shape, dtype=np.float32) * np.float32(opacity / 255)
        for points in clip:
            alpha = alpha * (np.asarray(stencil(self.pixels(points))) / np.float32(255))
        if callable(paint):
            x = (np.arange(x0, x1, dtype=np.float32) + 0.5 - self.left) / self.scale
            y = (self.ground - np.arange(y0, y1, dtype=np.float32) - 0.5) / self.scale
            paint = paint(*np.meshgrid(self.length - x if self.flip else x, y))
        self.image[y0:y1, x0:x1] = mix(self.image[y0:y1, x0:x1], paint, alpha)

    def stroke(self, line: np.ndarray, paint: Paint, width: float, **how):
        """Paint along `line`, `width` centimetres wide."""
        line = np.asarray(line, dtype=np.float64)
        self.fill(np.concatenate([offset(line, width / 2), offset(line, -width / 2)[::-1]]), paint, **how)


def studio(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """The empty studio `[H, W, 3]`: a white wall with letters above a grey one, the floor, the turntable in it."""
    x, y = np.meshgrid(np.linspace(-1, 1, width, dtype=np.float32), np.linspace(0, 1, height, dtype=np.float32))
    pixel = np.float32(1.0 / height)
    edge = 0.318 + 0.020 * x**2
    white = mix((0.905, 0.90, 0.90), (0.985, 0.985, 0.985), smoothstep(0.17, 0.0, edge - y))
    white = mix(white, (0.35, 0.35, 0.375), letters(width, height))
    grey = mix((0.70, 0.715, 0.73), (0.695, 0.703, 0.71), smoothstep(0.0, 0.22, y - edge))
    for seam in (-0.33, 0.47):
        white = mix(white, (0.6, 0.6, 0.6), 0.25 * np.exp(-(((x - seam) / 0.0012) ** 2)))
    room = mix(white, grey, smoothstep(-pixel, pixel, y - edge))
    floor = mix((0.675, 0.675, 0.672), (0.765, 0.765, 0.772), smoothstep(0.58, 1.0, y))
    room = mix(room, floor, smoothstep(0.45, 0.62, y))
    radius = np.hypot(x / 1.03, (y - 0.725) / 0.19)
    table = mix((0.665, 0.655, 0.635), (0.745, 0.74, 0.727), smoothstep(0.58, 0.92, y))
    room = mix(room, table, smoothstep(1 + 4 * pixel, 1 - 4 * pixel, radius))
    rim = np.exp(-(((radius - 1) / 0.0035) ** 2)) * (0.25 + 0.35 * smoothstep(0.6, 0.9, y))
    room = mix(room, (0.40, 0.39, 0.37), rim)
    room = mix(room, (0.90, 0.90, 0.89), 0.16 * np.exp(-(((radius - 0.991) / 0.004) ** 2)))
    wear = floor_wear(rng, width, height) * smoothstep(0.52, 0.66, y)
    return (room * (1 - wear[..., None])).astype(np.float32)


def letters(width: int, height: int) -> np.ndarray:
    """U-NET in large letters on the wall, ever thicker: how much of each pixel `[H, W]` they cover."""
    image = Image.new("L", (4 * width, 2 * height))  # the upper half of the wall is enough
    draw, size = ImageDraw.Draw(image), 4 * width
    strokes = (0.0090, 0.0090, 0.0115, 0.0145, 0.0165)
    top, foot = 0.116, 0.219
    u, dash, n, e, t = strokes
    boxes = [(0.140, top, 0.140 + u, 0.169), (0.240 - u, top, 0.240, 0.169), (0.295, 0.1665, 0.345, 0.1665 + dash)]
    boxes += [(0.400, top, 0.400 + n, foot), (0.505 - n, top, 0.505, foot), (0.575, top, 0.575 + e, foot)]
    boxes += [(0.575, y, 0.670, y + e) for y in (top, 0.160, foot - e)]
    boxes += [(0.725, top, 0.855, top + t), (0.790 - t / 2, top, 0.790 + t / 2, foot)]
    for box in boxes:
        draw.rectangle([place * size for place in box], fill=255)
    draw.arc([0.140 * size, 0.119 * size, 0.240 * size, foot * size], 0, 180, fill=255, width=round(u * size))
    diagonal = (0.400, top, 0.400 + 1.35 * n, top, 0.505, foot, 0.505 - 1.35 * n, foot)
    draw.polygon([place * size for place in diagonal], fill=255)
    cover = np.zeros((height, width), dtype=np.float32)
    cover[: height // 2] = np.asarray(image.reduce(4), dtype=np.float32)[: height // 2] / 255
    return cover


def floor_wear(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """How much darker `[H, W]` wear makes the floor: seams, scratches, stains."""
    marks = Image.new("L", (width, height))
    draw, thin = ImageDraw.Draw(marks), max(width // 900, 1)
    for turn in np.radians([8, 52, 97, 131, 173, 214, 262, 318]):
        inner, outer = rng.uniform(0.15, 0.4), rng.uniform(0.7, 0.98)
        line = [(0.5 + 0.51 * r * np.cos(turn), 0.725 + 0.19 * r * np.sin(turn)) for r in (inner, outer)]
        draw.line([(u * width, v * height) for u, v in line], fill=int(rng.integers(12, 28)), width=thin)
    for _ in range(70):
        u, v, long = rng.uniform(0.03, 0.97), rng.uniform(0.62, 0.98), rng.uniform(0.001, 0.02)
        line = [(u * width, v * height), ((u + long) * width, (v + rng.normal() * 0.002) * height)]
        draw.line(line, fill=int(rng.integers(8, 40)), width=thin)
    wear = np.asarray(marks.filter(ImageFilter.GaussianBlur(width / 1500)), dtype=np.float32) / 255
    for rows, strength in ((6, 0.006), (30, 0.004)):
        stains = Image.fromarray(rng.normal(0, strength, (rows, 2 * rows)).astype(np.float32))
        wear = wear + np.asarray(stains.resize((width, height), Image.Resampling.BICUBIC))
    return wear


def shadow(canvas: Canvas, car: Car) -> None:
    """The shadow that the car throws on the floor; no part of the car."""
    dark, middle, half = (0.14, 0.132, 0.122), car.length / 2, car.length / 2
    canvas.fill(ellipse(middle, 3, half * 1.15, 20), dark, opacity=0.26, soft=12)
    canvas.fill(ellipse(middle, 6, half * 1.03, 11), dark, opacity=0.50, soft=5)
    canvas.fill(ellipse(middle, 9, half * 0.90, 9), dark, opacity=0.85, soft=3)
    canvas.fill(ellipse(middle, -16, half * 0.9, 10), car.body, opacity=0.07, soft=9)
    for axle in car.axles:
        canvas.fill(ellipse(axle, 0.8, car.tyre * 0.62, 2.2), (0.05, 0.05, 0.05), opacity=0.8, soft=1.4)


def top_line(car: Car) -> np.ndarray:
    """The upper edge of the near side, from the nose to the tail."""
    return np.concatenate([curve(car.bonnet)[:-1], curve(car.roof)[:-1], curve(car.boot)])


def near_side(car: Car) -> np.ndarray:
    """The outline of the near side, wheel arches included."""
    return np.concatenate([curve(car.nose), top_line(car), curve(car.tail)])


def belt(car: Car, x: float | np.ndarray) -> float | np.ndarray:
    """The height of the belt line, where the doors end and the windows begin."""
    return np.interp(x, *zip(*car.belt, strict=True))


def arch(car: Car, axle: float) -> np.ndarray:
    """The wheel arch, a circle slightly larger than the tyre."""
    return ellipse(axle, car.tyre + 1, car.tyre + 4, car.tyre + 4)


def crown_line(car: Car) -> np.ndarray:
    """The highest that one sees of the car behind `top_line`, point for point."""
    line = top_line(car)
    return offset(line, CROWN * far_rise(line, line[:, 0]))


def far_rise(line: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Which share of `CROWN` shows above `line` at x: nothing at the nose and hardly anything at the tail."""
    return smoothstep(0, 90, x - line[0, 0]) * (0.03 + 0.97 * smoothstep(0, 70, line[-1, 0] - x))


def side_tilt(car: Car, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how many degrees the side's normal is turned to the rear and upwards at each place."""
    share = (y - car.sill) / (belt(car, x) - car.sill)
    knots = (0, 0.05, 0.06, 0.09, 0.20, 0.22, 0.265, 0.28, 0.36, 0.50, 0.60, 0.67, 0.785, 0.80, 0.86, 1.0, 1.1)
    tilts = (-36, -22, 24, -6, -12, 6, 16, -17, -11, -4, 0, 3, 6, 17, 15, 27, 28)
    up = np.interp(share + 0.018 * np.sin(x / 41 + 0.6), knots, tilts)
    line = top_line(car)
    up = up + 38 * np.exp(-np.maximum(np.interp(x, line[:, 0], line[:, 1]) - y, 0) / 3.5)
    back = 60 * (np.clip((x - car.length + 75) / 75, 0, 1) ** 2.2 - np.clip((70 - x) / 70, 0, 1) ** 2.2)
    for axle in car.axles:
        dx, dy = x - axle, y - car.tyre
        radius = np.hypot(dx, dy) + 1e-6
        flare = 17 * np.exp(-np.maximum(radius - car.tyre - 4, 0) / 7.5) * smoothstep(-25, 5, dy)
        up, back = up + flare * dy / radius, back + flare * dx / radius
    return back, up


def body(canvas: Canvas, car: Car) -> None:
    """Everything painted: the near side, then what shows of bonnet, windscreen, roof, rear window and boot."""
    near, top, crown = near_side(car), top_line(car), crown_line(car)
    canvas.fill(near, lambda x, y: lacquer(car.body, *side_tilt(car, x, y)), solid=True)
    shell = np.concatenate([top - (0, 0.4), crown[::-1]])
    canvas.fill(shell, lambda x, y: grazing(car, x, y), solid=True)
    cowl, boot = len(curve(car.bonnet)) - 1, len(top) - len(curve(car.boot))
    for start, stop, bulge in ((cowl + 3, cowl + 42, -5), (boot - 42, boot - 4, 5))[: 2 if car.saloon else 1]:
        edge = top[start:stop] + (0, 0.5)
        canvas.fill(np.concatenate([edge, crown[start + bulge : stop + bulge][::-1]]), screen_glass)
        canvas.stroke(edge, BLACK, 0.9)
        far = crown[start + bulge : stop + bulge]
        canvas.stroke(far - (0, 0.6), mix(car.body, (0, 0, 0), 0.45), 1.6, clip=(shell,))
    canvas.stroke(top[12:cowl] - (0, 0.8), mix(car.body, (0, 0, 0), 0.8), 0.6, opacity=0.8)
    canvas.stroke(top[cowl + 42 : boot - 42] + (0, 0.5), mix(car.body, (0, 0, 0), 0.8), 0.6, opacity=0.7)
    wiper = np.linspace(top[cowl] + (-5, 1.2), top[cowl] + (9, 7.5), 8)
    canvas.stroke(wiper, BLACK, 1.1, soft=0.2, clip=(shell,))


def grazing(car: Car, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bonnet, roof and boot: lit from above, and seen so flat that the lacquer mirrors the wall behind the car."""
    line = top_line(car)
    above = (y - np.interp(x, line[:, 0], line[:, 1])) / CROWN
    lit = np.clip(np.array(car.body) ** 2.2 * 1.35 + 0.03, 0, 1) ** (1 / 2.2)
    wave = above + 0.22 * np.sin(x / 31 + 1.0) + 0.10 * np.sin(x / 11)
    wall = mix((0.62, 0.65, 0.69), (0.90, 0.92, 0.94), smoothstep(0.35, 0.60, wave))
    shine = 0.14 + 0.62 * smoothstep(-0.05, 0.7, above) * smoothstep(0.05, 0.45, wave)
    far_edge = smoothstep(0.86, 1.0, above / (0.02 + far_rise(line, x)))
    return mix(mix(lit, wall, shine), np.array(car.body) * 0.8, 0.75 * far_edge)


def screen_glass(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Windscreen and rear window, seen flat: a dark pane that mirrors the wall."""
    shine = smoothstep(-0.15, 0.25, np.sin(x / 13 - y / 9 + 1.5))
    inside = mix((0.10, 0.12, 0.13), (0.36, 0.41, 0.42), smoothstep(98, 140, y))
    return mix(inside, (0.72, 0.76, 0.77), 0.22 + 0.36 * shine)


def shut_lines(canvas: Canvas, car: Car) -> None:
    """The gaps around doors and bumpers, each with the light that its edge catches."""
    front, rear = car.axles
    gap, near = mix(car.body, (0, 0, 0), 0.82), near_side(car)
    door, low = front + car.tyre + 27, car.sill + 5
    x1 = car.windows[0] - 3
    p, q = car.pillars
    arch_x, arch_y = rear - car.tyre - 3, car.tyre + 14
    behind = ((q + 18, belt(car, q)), (q + 14, belt(car, q) - 14), (q + 2, 68), (arch_x - 2, arch_y + 2))
    lines = [
        ((x1 - 8, belt(car, x1) + 1), (x1 - 4, belt(car, x1) - 12), (door, 60), (door, 38), (door + 3, low)),
        ((p + 4, belt(car, p)), (p + 3, 80), (p + 4, 50), (p + 5, low)),
        (*behind, (arch_x - 12, 36), (arch_x - 22, low)),
        ((door + 3, low), (p, low - 0.5), (arch_x - 22, low)),
        ((-2, car.bonnet[0][1] - 9), (26, car.bonnet[0][1] - 7), (front - car.tyre + 2, car.tyre + 20)),
        ((rear + car.tyre, car.tyre + 21), (rear + 62, car.tyre + 30), (car.length + 2, car.tyre + 38)),
    ]
    for line in lines:
        line = curve(line)
        canvas.stroke(line, gap, 0.75, clip=(near,))
        canvas.stroke(line + (0.7, -0.5), mix(car.body, (1, 1, 1), 0.35), 0.4, opacity=0.5, clip=(near,))


def wheel_face(car: Car, axle: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tyre, brake disc behind the spokes, rim and hub: functions of the distance from the axle and of the angle."""
    dx, dy = x - axle, y - car.tyre
    r, turn = np.hypot(dx, dy), np.arctan2(dy, dx)
    up, rim = dy / (r + 1e-6), car.rim
    wall = (r - rim) / (car.tyre - rim)
    bulge = np.cos(np.pi * np.clip(wall, 0, 1))
    tyre = 0.115 + 0.05 * (0.5 + 0.5 * up) + 0.045 * -bulge * up
    tyre = tyre + 0.02 * (np.abs(wall - 0.22) < 0.025) - 0.03 * (np.abs(wall - 0.62) < 0.02)
    letters = (np.abs(wall - 0.42) < 0.085) & (np.sin(turn * 60) > 0.1) & (np.sin(turn * 4 + 0.8) > 0.55)
    tyre = tyre + 0.03 * letters - 0.03 * smoothstep(0.86, 0.92, wall) * (np.sin(turn * 90) > 0)
    colour = mix((0, 0, 0), (1.0, 0.98, 0.97), tyre)
    colour = mix(colour, (0.05, 0.05, 0.055), smoothstep(rim + 0.2, rim - 0.2, r))
    barrel = 0.30 * smoothstep(0.0, -1.0, up) * smoothstep(15, 22, r) * (r < rim)
    colour = mix(colour, (0.80, 0.80, 0.81), barrel)
    disc = 0.38 + 0.14 * np.cos(2 * turn - 0.6) + 0.015 * np.sin(r * 9)
    colour = mix(colour, mix((0, 0, 0), (1, 0.97, 0.93), disc), smoothstep(15.2, 14.8, r) * 0.9)
    caliper = (np.abs(r - 12.5) < 3.4) & (np.abs(turn - (0.5 if axle < 200 else 2.6)) < 0.42)
    colour = mix(colour, (0.22, 0.22, 0.23), 0.95 * caliper)
    colour = mix(colour, BLACK, 0.5 * smoothstep(-0.1, 0.9, up) * (r < rim))
    sector = 2 * np.pi / car.spokes
    fold = (turn + axle % 1 + 0.3 + sector / 2) % sector - sector / 2
    middle = turn - fold
    across, half = r * np.sin(fold), 1.15 + 1.1 * np.abs(r / rim - 0.35) ** 1.2 * (10 / car.spokes)
    edge = np.clip(across / half, -1, 1)
    light = 0.74 + 0.16 * np.sin(middle) - 0.20 * edge**3 * np.sign(np.cos(middle)) + 0.06 * np.cos(3 * middle)
    light = light - 0.10 * smoothstep(0.6, 0.2, np.abs(edge)) - 0.10 * smoothstep(10, 5, r)
    shade = smoothstep(half + 1.5, half - 0.1, np.abs(across - 0.7 * np.cos(middle))) * (r < rim)
    colour = mix(colour, BLACK, 0.6 * shade)
    spoke = smoothstep(half + 0.15, half - 0.15, np.abs(across)) * (r < rim - 0.5)
    metal = np.array((1.0, 1.0, 1.01))
    colour = mix(colour, metal * light[..., None], spoke)
    lip = smoothstep(rim - 2.3, rim - 2.0, r) * smoothstep(rim, rim - 0.3, r)
    ring = 0.62 + 0.22 * np.sin(turn) * np.sign(r - rim + 1.1) + 0.10 * np.sin(2 * turn + 1)
    colour = mix(colour, metal * ring[..., None], lip)
    hub = 0.70 + 0.14 * up * smoothstep(4.0, 7.0, r)
    colour = mix(colour, metal * hub[..., None], smoothstep(6.6, 6.3, r))
    bolt = (turn + 0.6) % (2 * np.pi / 5) - np.pi / 5
    hole = np.hypot(4.7 * np.sin(bolt), r - 4.7 * np.cos(bolt))
    colour = mix(colour, (0.16, 0.16, 0.17), smoothstep(0.85, 0.6, hole))
    colour = mix(colour, (0.50, 0.50, 0.52), smoothstep(2.7, 2.5, r))
    return mix(colour, metal * 0.78, smoothstep(2.2, 2.0, r) * (0.6 + 0.4 * up))


def wheel(canvas: Canvas, car: Car, axle: float) -> None:
    """One wheel: the tyre's far edge, then its face, in the shade of the wheel arch at the top."""
    inward = 1 if axle < car.length / 2 else -1
    canvas.fill(ellipse(axle + 2.6 * inward, car.tyre + 0.9, car.tyre - 0.4, car.tyre - 0.6), (0.055,) * 3, solid=True)
    tyre = ellipse(axle, car.tyre, car.tyre, car.tyre)
    canvas.fill(tyre, lambda x, y: wheel_face(car, axle, x, y), solid=True)
    canvas.fill(ellipse(axle, car.tyre * 2 + 3, car.tyre, 9), (0.01, 0.01, 0.01), opacity=0.8, soft=3, clip=(tyre,))


def underside(canvas: Canvas, car: Car) -> None:
    """The floor pan between the wheels, and the far wheels in the dark."""
    front, rear = car.axles
    for axle in (front + 9, rear - 9):
        canvas.fill(ellipse(axle, car.tyre + 7, car.tyre - 3, car.tyre - 4), (0.04, 0.04, 0.04), solid=True)
    low = car.sill - 2.5
    pan = curve(((front, 24), (front + 40, low), (250, low + 0.5), (rear - 40, low), (rear, 24)))
    canvas.fill(pan, (0.05, 0.05, 0.052), solid=True)


def windows(canvas: Canvas, car: Car) -> None:
    """The side windows, what shows through them, the reflection on them, pillars and trim."""
    roof = offset(curve(car.roof), -6.0)
    roof = roof[(roof[:, 1] > belt(car, roof[:, 0]) + 1.2) & (roof[:, 0] < car.windows[1])]
    sill = np.linspace(roof[-1, 0], roof[0, 0], 40)
    opening = np.concatenate([roof, np.stack([sill, belt(car, sill) + 1.2], axis=1)])
    canvas.stroke(np.concatenate([opening, opening[:1]]), car.trim, 2.2)
    canvas.fill(opening, (0.035, 0.035, 0.04))
    inside = offset(opening, -1.5)
    canvas.fill(inside, fade((0.10, 0.11, 0.11), (0.25, 0.27, 0.27), 96, 132))

    p, q = car.pillars
    top = roof[:, 1].max() + 5
    panes = []
    for x0, x1, lean0, lean1 in ((0, p - 5, 0, 3), (p + 5, q - 2, 4, -13), (q + 2, 999, -13, 0)):
        low = 80
        panes.append([(x0, low), (x0 + lean0, top), (x1 + lean1, top), (x1, low)])
    for pane in panes:
        interior(canvas, car, (inside, np.array(pane)))


def interior(canvas: Canvas, car: Car, clip: tuple) -> None:
    """What one sees through one pane: far windows and the wall beyond, seats, steering wheel; then the reflection."""
    p, q = car.pillars
    beyond = np.array(car.glass)
    dark, seat = beyond * 0.16, beyond * 0.30
    base, top = belt(car, p) + 1.2, np.array(car.roof)[:, 1].max()
    canvas.fill(clip[1], fade(dark, beyond * 0.42, base - 6, top - 8), clip=clip)
    for x0, x1, lean0, lean1 in ((168, p - 7, 26, 2), (p + 3, q - 8, 2, -10), (q + 4, car.windows[1] - 4, -10, -30)):
        pane = [(x0, base + 9), (x0 + lean0, top - 11), (x1 + lean1, top - 11), (x1, base + 9)]
        canvas.fill(pane, fade(beyond * 0.98, beyond * 1.12, base, top), clip=clip, soft=0.3)
    canvas.stroke([(160, base + 8), (p - 5, base + 9.5), (q, base + 10)], beyond * 0.55, 0.9, clip=clip, soft=0.2)
    for x in (p - 14, q - 16):
        back = curve(around(x, base, "4 -25, -3 4, 1 14, 9 16, 15 8, 18 -25"))
        canvas.fill(back, seat, clip=clip, soft=0.3)
        rest = ellipse(x + 9, base + 21, 5.2, 7.0)
        canvas.fill(rest, fade(seat * 0.9, seat * 1.5, base + 12, base + 30), clip=clip, soft=0.3)
    dash = curve(((150, 80), (152, base + 3), (168, base + 6), (186, base + 4), (196, 80)))
    canvas.fill(dash, dark * 0.8, clip=clip, soft=0.4)
    canvas.stroke(ellipse(193, base + 3, 6, 12), dark * 0.5, 1.8, clip=clip, soft=0.2)
    sky = [(150, base), (235, top), (285, top), (205, base - 8)]
    canvas.fill(sky, (0.90, 0.95, 0.97), opacity=0.10, soft=2, clip=clip)
    canvas.fill(clip[0], fade((0.5, 0.54, 0.56), (0.9, 0.93, 0.95), base, top), 0.14, clip=clip)


def headlamp(canvas: Canvas, car: Car) -> None:
    """A dark lens with two projectors, a strip of daytime light and an amber reflector."""
    near, (x, y) = near_side(car), car.bonnet[0]
    upper, lower = curve(around(x, y, "-8 -8, -3 -3.5, 6 1, 22 5.5, 42 9.5")), "42 9.5, 30 1, 14 -5, -8 -8"
    lens = np.concatenate([upper, curve(around(x, y, lower))])
    canvas.fill(lens, fade((0.10, 0.11, 0.12), (0.40, 0.43, 0.46), y - 3, y + 14), clip=(near,))
    for at, up in ((5, -2.8), (15.5, 1.0)):
        canvas.fill(ellipse(x + at, y + up, 3.4, 3.4), (0.62, 0.65, 0.68), clip=(lens,))
        canvas.fill(ellipse(x + at, y + up, 2.9, 2.9), (0.10, 0.11, 0.13), clip=(lens,))
        canvas.fill(ellipse(x + at - 0.6, y + up + 0.9, 1.5, 1.1), (0.88, 0.92, 0.97), soft=0.3, clip=(lens,))
    amber = around(x, y, "24 -2, 29 2, 40 8.5, 31 5.8, 23 3")
    canvas.fill(amber, fade((0.70, 0.25, 0.04), (0.98, 0.55, 0.20), y, y + 8), clip=(lens,), soft=0.2)
    strip = curve(around(x, y, "-6 -7.2, 12 -4.6, 24 -1.2"))
    canvas.stroke(strip, (0.95, 0.97, 1.0), 0.8, opacity=0.65, soft=0.2, clip=(lens,))
    canvas.stroke(lens, BLACK, 0.6, clip=(near,))
    canvas.stroke(upper[6:58] - (0, 1.0), (1, 1, 1), 0.7, opacity=0.55, soft=0.3, clip=(lens,))


def rear_lamp(canvas: Canvas, car: Car) -> None:
    """A red lens with a bright loop and a white reversing light, and the reflector in the bumper below it."""
    near, (x, y) = near_side(car), car.boot[-1]
    upper, lower = curve(around(x, y, "3 -5, -14 -6.5, -34 -9")), "-34 -9, -33 -13, -26 -18, -12 -22, 6 -23"
    lens = np.concatenate([upper, curve(around(x, y, lower))])
    canvas.fill(lens, fade((0.33, 0.01, 0.02), (0.66, 0.06, 0.07), y - 22, y - 7), clip=(near,))
    loop = curve(around(x, y, "4 -9, -16 -10, -29 -12, -22 -16.5, -8 -19.5, 6 -20"))
    canvas.stroke(loop, (0.97, 0.24, 0.20), 1.9, soft=0.35, clip=(near, lens))
    reversing = curve(around(x, y, "6 -14.2, -8 -14.2, -18 -13.6"))
    canvas.stroke(reversing, (0.90, 0.80, 0.79), 2.4, opacity=0.9, soft=0.4, clip=(near, lens))
    canvas.stroke(upper[3:30] - (0, 1.2), (1, 0.75, 0.72), 0.7, opacity=0.6, soft=0.3, clip=(near, lens))
    canvas.stroke(np.concatenate([lens, lens[:1]]), (0.05, 0.01, 0.01), 0.6, clip=(near,))
    reflector = around(car.length - 20, car.sill + 17, "0 0, 13 1.5, 13 4.5, 0 3")
    canvas.fill(reflector, (0.62, 0.06, 0.06), clip=(near,))


def bumpers(canvas: Canvas, car: Car) -> None:
    """The edge of the grille, the air intake, and the black lower lips in front and behind."""
    near, (x, y) = near_side(car), car.nose[4]
    canvas.stroke(curve(car.nose)[66:112] + (0.8, 0), BLACK, 4.5, clip=(near,), soft=0.15)
    vent = curve(around(x, y, "-3 -1, 8 0, 24 1, 21 -5, 12 -8, -3 -8.5"))
    canvas.fill(vent, lambda u, v: mix(BLACK, (0.12,) * 3, smoothstep(0.2, 0.9, np.sin(v * 2.6))), clip=(near,))
    canvas.stroke(vent[:40] - (0, 0.2), car.trim, 0.45, opacity=0.5, clip=(near,))
    front, rear = car.axles
    for x0, x1, up in ((-5, front - car.tyre, 5.0), (rear + car.tyre, car.length + 5, 8.0)):
        up += car.sill
        lip = np.array([(x0, 0), (x0, up), (x1, up), (x1, 0)])
        canvas.fill(lip, fade(BLACK, (0.13, 0.13, 0.135), car.sill - 3, car.sill + 8), clip=(near,))


def small_parts(canvas: Canvas, car: Car) -> None:
    """Door handles, filler cap, the mirror and its reflection in the door, the aerial."""
    near = near_side(car)
    dark = mix(car.body, (0, 0, 0), 0.8)
    for x in (car.pillars[0] - 16, car.pillars[1] - 2):
        y = belt(car, x) - 15
        canvas.fill(ellipse(x, y + 0.4, 9, 3.6), dark, opacity=0.55, soft=0.8)
        bar = curve(around(x, y, "-11 0, -8 1.8, 0 2.3, 9 1.7, 11 0, 8 -1.5, -8 -1.5"))
        canvas.fill(bar - (0, 1.8), dark, opacity=0.5, soft=0.9)
        canvas.fill(bar, lambda u, v, y=y: lacquer(car.body, u * 0, 16 + 24 * (v - y)))
        canvas.stroke(bar[8:56] - (0, 0.7), mix(car.body, (1, 1, 1), 0.75), 0.5, opacity=0.5, soft=0.2)

    x, y = car.length - 64, belt(car, car.length - 64) - 15
    cap = curve(around(x, y, "-9 0, -7.5 6.5, 0 7.3, 7.5 6.5, 9 0, 7.5 -6.5, 0 -7.3, -7.5 -6.5, -9 0"))
    canvas.stroke(cap, dark, 0.6, opacity=0.8)

    x, y = car.windows[0] + 14, belt(car, car.windows[0]) + 4.5
    canvas.fill(ellipse(x - 1, y - 15, 10, 4), dark, opacity=0.35, soft=1.5, clip=(near,))
    canvas.fill(around(x, y, "-15 -4, 2 -5, 4 -1, -8 7"), BLACK)
    housing = curve(around(x, y, "-10 0, -8 6.5, -1 9, 7 8.5, 11 5, 11.5 -2, 8 -5, -4 -5, -10 0"))
    canvas.fill(housing, lambda u, v: lacquer(car.body, 4.5 * (u - x), 7 * (v - y - 1.5)))
    canvas.fill(ellipse(x, y - 5, 11, 2.6), BLACK, clip=(housing,))

    crown = crown_line(car)
    x, y = crown[np.argmin(np.abs(crown[:, 0] - car.pillars[1] + 18))]
    fin = curve(around(x, y, "-10 -1, -4 1, 2 4.2, 4 3.8, 5 -2"))
    canvas.fill(fin, lambda u, v: lacquer(car.body, u * 0, 10 + 6 * (v - y)), solid=True)


def finish(image: np.ndarray, rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """What a lens and a sensor do: reduce to the final size, slightly soft, darker corners, grain."""
    small = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    small = small.reduce(SUPERSAMPLE).filter(ImageFilter.GaussianBlur(width / 1918 * 0.65))
    x, y = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in (width, height)))
    picture = np.asarray(small, dtype=np.float32) * (1 - 0.05 * (x**2 + y**2) ** 1.5)[..., None]
    normal = rng.standard_normal((height, width, 4), dtype=np.float32)
    grain = 1.1 * normal[..., :1] + 0.5 * normal[..., 1:]
    return Image.fromarray(np.clip(picture + grain + 0.5, 0, 255).astype(np.uint8))


def draw_car(
    seed: int = 0, width: int = 1918, height: int = 1280, empty: bool = False
) -> tuple[Image.Image, Image.Image]:
    """Draw a car in the studio.

    Args:
        seed: 0 is the car of `car.jpg`; any other varies kind, colour, proportions, place, size, direction and light.
        width, height: size of the picture in pixels, best in the ratio 3:2.
        empty: leave out the car and its shadow, everything else the same to the pixel.

    Returns:
        The picture (RGB), and the car's mask of the same size ("L", 0 or 255). Windows, wheels and mirror are car, the
        shadow is not. The same arguments always give the same pictures.
    """
    rng = np.random.default_rng(seed)
    car, flip, room, middle, ground, light, shade = Car(), False, 0.80, 0.5, 0.70, np.ones(3), 1.0
    if seed:
        car, flip = random_car(seed % 3, rng), bool(rng.integers(2))
        room, middle, ground = rng.uniform(0.70, 0.86), rng.uniform(0.47, 0.53), rng.uniform(0.66, 0.74)
        shade = rng.uniform(0.75, 1.35)
        light = rng.uniform(0.90, 1.04) * (1 + rng.normal(0, 0.012, 3))
    w, h = width * SUPERSAMPLE, height * SUPERSAMPLE
    scale = room * w / car.length
    image = studio(np.random.default_rng(seed + 1), width, height)
    image = (image**shade).repeat(SUPERSAMPLE, axis=0).repeat(SUPERSAMPLE, axis=1)
    canvas = Canvas(image, scale, middle * w - room * w / 2, ground * h, flip, car.length)
    if not empty:
        shadow(canvas, car)
        underside(canvas, car)
        body(canvas, car)
        shut_lines(canvas, car)
        for axle in car.axles:
            canvas.fill(arch(car, axle), (0.02, 0.02, 0.022), clip=(near_side(car),))
            wheel(canvas, car, axle)
        windows(canvas, car)
        headlamp(canvas, car)
        rear_lamp(canvas, car)
        bumpers(canvas, car)
        small_parts(canvas, car)
    picture = finish(canvas.image * light.astype(np.float32), np.random.default_rng(seed + 2), width, height)
    mask = Image.fromarray(canvas.mask).reduce(SUPERSAMPLE)
    return picture, mask.point(lambda value: 255 if value >= 128 else 0)


def save(image: Image.Image, path: Path, **how) -> None:
    """Write `path` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        image.save(part, **how)


def draw_folder(folder: Path, seeds: Iterable[int], width: int, height: int) -> None:
    """Draw a car for each seed, the pictures into `folder/imgs`, their masks into `folder/masks`."""
    for seed in seeds:
        picture, mask = draw_car(seed, width, height)
        save(picture, folder / "imgs" / f"drawn{seed:03}_01.jpg", quality=92)
        save(mask.convert("1"), folder / "masks" / f"drawn{seed:03}_01.png", optimize=True)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of nine seeds to this file instead")
    parser.add_argument("--folder", type=Path, help=f"write {FOLDER_CARS} other cars and their masks there instead")
    args = parser.parse_args()
    with told():
        if args.folder:
            draw_folder(args.folder, range(1, FOLDER_CARS + 1), 858, 572)
            print(f"{args.folder}: seeds 1 to {FOLDER_CARS}")
            return
        if args.sheet:
            sheet = Image.new("RGB", (3 * 640, 3 * 427))
            for seed in range(9):
                sheet.paste(draw_car(seed, 640, 427)[0], (seed % 3 * 640, seed // 3 * 427))
            save(sheet, args.sheet)
            print(f"{args.sheet}: seeds 0 to 8")
            return
        picture, mask = draw_car()
        save(picture, PICTURE, quality=92, optimize=True)
        save(mask.convert("1"), MASK, optimize=True)
    share = np.asarray(mask).mean() / 255
    print(f"{PICTURE.name}: {picture.width}x{picture.height}, {PICTURE.stat().st_size} bytes; {share:.1%} is car")


if __name__ == "__main__":
    main()
