"""A cat and a dog, drawn: two pictures to begin with that belong to nobody else."""

from PIL import Image, ImageDraw, ImageFilter

SIDE, SUPERSAMPLE = 400, 3
Points = list[tuple[float, float]]


class Sheet:
    """A picture to draw on in hundredths of its side, twice over: what is drawn is mirrored at the middle."""

    def __init__(self, ground: tuple[str, str]) -> None:
        side = SIDE * SUPERSAMPLE
        self.unit = side / 100
        self.picture = Image.new("RGB", (side, side), ground[0])
        self.pen = ImageDraw.Draw(self.picture)
        self.pen.rectangle((0, 0.8 * side, side, side), fill=ground[1])

    def both(self, points: Points) -> list[list[tuple[float, float]]]:
        return [[(self.unit * (50 + turn * (x - 50)), self.unit * y) for x, y in points] for turn in (1, -1)]

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: str) -> None:
        for (x0, y0), (x1, y1) in self.both([(x - rx, y - ry), (x + rx, y + ry)]):
            self.pen.ellipse((min(x0, x1), y0, max(x0, x1), y1), fill=colour)

    def polygon(self, points: Points, colour: str) -> None:
        for side in self.both(points):
            self.pen.polygon(side, fill=colour)

    def line(self, points: Points, colour: str, width: float) -> None:
        for side in self.both(points):
            self.pen.line(side, fill=colour, width=round(width * self.unit), joint="curve")

    def done(self) -> Image.Image:
        return self.picture.filter(ImageFilter.GaussianBlur(SUPERSAMPLE)).reduce(SUPERSAMPLE)


def draw_cat() -> Image.Image:
    sheet = Sheet(("#b9c4bd", "#8f8577"))
    fur, dark, light = "#8d8a86", "#4f4b48", "#e6e0d8"
    sheet.ellipse(50, 88, 24, 32, fur)  # the body
    sheet.ellipse(50, 92, 11, 24, light)
    sheet.polygon([(24, 42), (23, 7), (47, 24)], fur)  # ears
    sheet.polygon([(28, 34), (27, 15), (40, 25)], "#d9a3a0")
    sheet.ellipse(50, 44, 28, 24, fur)  # the head
    for x, y in ((50, 21), (43, 22)):  # stripes
        sheet.polygon([(x - 1.5, y), (x + 1.5, y), (x, y + 11)], dark)
    for y in (44, 50):
        sheet.polygon([(22, y - 1), (22.5, y + 2), (33, y + 1)], dark)
    sheet.ellipse(38, 42, 7, 6.5, "#c8c24a")  # eyes
    sheet.ellipse(38, 42, 2, 6, "#111111")
    sheet.ellipse(36.6, 39.6, 1.2, 1.2, "#ffffff")
    sheet.ellipse(45, 57, 6.5, 5.5, light)  # the muzzle
    sheet.polygon([(46, 51), (50.1, 51), (50.1, 55)], "#c97f7c")
    sheet.line([(50, 55), (50, 58), (45, 60)], dark, 0.7)
    for y in (54, 57, 60):  # whiskers
        sheet.line([(42, 56 + (y - 57) / 3), (14, y + (y - 57))], "#f4f1ec", 0.5)
    return sheet.done()


def draw_dog() -> Image.Image:
    sheet = Sheet(("#a8c2d6", "#7f9a5b"))
    fur, dark, light = "#b9803f", "#6e441d", "#f1dfc4"
    sheet.ellipse(50, 92, 27, 34, fur)  # the body
    sheet.ellipse(50, 96, 13, 28, light)
    sheet.ellipse(50, 40, 24, 27, fur)  # the head
    sheet.polygon([(30, 18), (20, 22), (13, 44), (16, 60), (24, 62), (30, 48), (34, 26)], dark)  # hanging ears
    sheet.ellipse(20, 54, 6.5, 10, dark)
    sheet.polygon([(47, 16), (50.1, 14), (50.1, 46), (46, 46)], light)  # the blaze
    sheet.ellipse(50, 56, 16, 15, light)  # the muzzle
    sheet.ellipse(39, 36, 4.2, 4.6, "#2a1a10")  # eyes
    sheet.ellipse(38, 34.4, 1.2, 1.2, "#ffffff")
    sheet.ellipse(50, 69, 5.5, 9, "#d8606a")  # the tongue
    sheet.line([(50, 66), (50, 74)], "#b04650", 0.6)
    sheet.ellipse(50, 62, 9, 4, light)
    sheet.ellipse(50, 48.5, 6.5, 4.8, "#1b1512")  # the nose
    sheet.ellipse(47.5, 46.8, 1.5, 1, "#777777")
    sheet.line([(50, 53), (50, 61), (44, 65), (38, 63)], dark, 0.8)
    return sheet.done()
