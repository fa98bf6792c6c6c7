"""In headless Chromium the page reads as PyTorch does, whether a digit is drawn or given; and it asks for nothing."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import labs.digit_page.__main__ as lab
from labs.weights import NETWORKS, load
from train_lenet import load_mnist

ROOT = Path(__file__).parent.parent
DESKTOP, PHONE = {"width": 1366, "height": 768}, {"width": 390, "height": 844}

# Strokes of points (x, y); the pad goes from (0, 0) to (1, 1)
SEVENS = {
    "plain": [[(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)]],
    "crossed": [[(0.25, 0.2), (0.75, 0.18), (0.4, 0.85)], [(0.35, 0.52), (0.7, 0.5)]],
    "with a serif": [[(0.25, 0.32), (0.26, 0.2), (0.74, 0.2), (0.48, 0.85)]],
    "bent": [[(0.25, 0.22), (0.5, 0.19), (0.75, 0.21), (0.62, 0.42), (0.52, 0.6), (0.48, 0.85)]],
    "upright": [[(0.3, 0.18), (0.68, 0.18), (0.64, 0.88)]],
    "slanted": [[(0.35, 0.2), (0.85, 0.22), (0.25, 0.85)]],
    "falling": [[(0.22, 0.16), (0.74, 0.26), (0.42, 0.88)]],
    "in two strokes": [[(0.25, 0.2), (0.73, 0.2)], [(0.73, 0.2), (0.42, 0.86)]],
    "large": [[(0.08, 0.08), (0.92, 0.06), (0.4, 0.95)]],
    "small, in a corner": [[(0.68, 0.65), (0.9, 0.65), (0.78, 0.95)]],
}


@pytest.fixture(scope="module")
def open_page(browser):
    """Opens the page in a window of its own; at the end no error has happened in its code."""
    errors = []

    def open_page(**options):
        page = browser.new_context(**{"viewport": DESKTOP, "locale": "en-US", **options}).new_page()
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(lab.PAGE.as_uri())
        return page

    yield open_page
    assert not errors


@pytest.fixture(scope="module")
def window(open_page):
    return open_page()


@pytest.fixture
def page(window):
    """The page with a blank pad, whatever the test before has done to it."""
    window.mouse.up()
    window.click("#clear")
    return window


@pytest.fixture(scope="module")
def digits():
    """100 test digits, [100, 1, 28, 28]."""
    return load_mnist(ROOT / "data", train=False)[0][:100]


@pytest.fixture(scope="module")
def network():
    return load("lenet")


def places(page, stroke, pad="#pad"):
    """Where the points of a stroke are in the window."""
    box = page.locator(pad).bounding_box()
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def draw(page, strokes, pad="#pad"):
    for stroke in strokes:
        start, *others = places(page, stroke, pad)
        page.mouse.move(*start)
        page.mouse.down()
        for place in others:
            page.mouse.move(*place, steps=4)
        page.mouse.up()


def answer(page):
    return page.locator("#answer").text_content()


def reading(page, digits, *names):
    """What the page's `read` makes of digits [N, 1, 28, 28]: its results of these names, flat, one after another."""
    read = """([pictures, names]) => pictures.map((picture) => {
      const reading = read(Float32Array.from(picture), weights);
      return names.flatMap((name) => [...reading[name]]);
    })"""
    return torch.tensor(page.evaluate(read, [digits.flatten(1).tolist(), names]))


# The network


@torch.inference_mode()
def test_scores_and_probabilities_of_100_test_digits_are_pytorchs(page, network, digits):
    scores = network(digits)
    expected = torch.cat([scores, scores.softmax(dim=1)], dim=1)
    torch.testing.assert_close(reading(page, digits, "scores", "probabilities"), expected, atol=1e-3, rtol=0)


@torch.inference_mode()
def test_the_maps_are_pytorchs(page, network, digits):
    C1 = F.relu(network.C1((digits[:5] - 0.1307) / 0.3081))
    C3 = F.relu(network.C3(network.S2(C1)))
    expected = torch.cat([C1.flatten(1), C3.flatten(1)], dim=1)
    torch.testing.assert_close(reading(page, digits[:5], "C1", "C3"), expected, atol=1e-3, rtol=0)


# The drawing


def test_a_seven_drawn_with_the_mouse_is_read_as_7(page):
    readings = {}
    for shape, strokes in SEVENS.items():
        draw(page, strokes)
        readings[shape] = answer(page)
        page.click("#clear")
    assert list(readings.values()).count("7") >= 9, readings


def test_a_finger_draws_too_and_does_not_move_the_page(open_page):
    page = open_page(viewport=PHONE, has_touch=True)
    touch = page.context.new_cdp_session(page)
    for kind, place in zip(["touchStart", "touchMove", "touchMove"], places(page, SEVENS["plain"][0]), strict=True):
        points = [dict(zip("xy", place, strict=True))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert (answer(page), page.evaluate("scrollY")) == ("7", 0)


def test_a_stroke_is_drawn_though_all_text_of_the_page_is_selected(page):
    page.keyboard.press("Control+A")
    draw(page, SEVENS["plain"])
    assert answer(page) == "7"


def test_the_probabilities_appear_while_the_pen_is_down(page):
    start, corner, _ = places(page, SEVENS["plain"][0])
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*corner, steps=4)
    shown = [float(line.removesuffix("%")) for line in page.locator("#probabilities span").all_text_contents()]
    assert sum(shown) == pytest.approx(100, abs=0.5)


def test_moving_the_mouse_without_its_button_draws_nothing(page):
    for place in places(page, SEVENS["plain"][0]):
        page.mouse.move(*place)
    assert not page.evaluate("inkOfPad().some(Boolean)")


def test_clearing_leaves_no_ink_and_no_answer(page):
    draw(page, SEVENS["plain"])
    page.click("#clear")
    assert not page.evaluate("inkOfPad().some(Boolean)")
    assert answer(page) == ""
    assert not page.locator("#probabilities span:visible").count()


@pytest.mark.parametrize("shape", ["plain", "slanted", "large", "small, in a corner"])
def test_a_drawing_is_centred_by_its_mass_and_20_pixels_long(page, shape):
    draw(page, SEVENS[shape])
    picture = np.array(page.evaluate("Array.from(centredDigit(inkOfPad(), SIDE))")).reshape(28, 28)
    for axis in (0, 1):
        middle = np.average(np.arange(28), weights=picture.sum(axis))
        assert middle == pytest.approx(14, abs=0.1)  # as MNIST's are, to half a pixel
    # 20 pixels that begin anywhere are parts of 21
    assert max(np.ptp(np.nonzero(picture.sum(axis))[0]) + 1 for axis in (0, 1)) in (20, 21)


@torch.inference_mode()
def test_mnists_digits_enlarged_and_moved_become_what_they_were(page, network, digits):
    enlarge = """pictures => pictures.map((picture) => {
      const ink = new Float32Array(200 * 200);
      const pixel = (y, x) => picture[Math.floor(y / 6) * 28 + Math.floor(x / 6)];
      for (let y = 0; y < 6 * 28; y++) for (let x = 0; x < 6 * 28; x++) ink[(y + 30) * 200 + x + 5] = pixel(y, x);
      return Array.from(centredDigit(ink, 200));
    })"""
    again = torch.tensor(page.evaluate(enlarge, digits.flatten(1).tolist())).view(-1, 1, 28, 28)
    assert (again - digits).abs().mean() < 0.05  # they move by up to half a pixel
    assert (network(again).argmax(dim=1) == network(digits).argmax(dim=1)).sum() >= 99


# The page


def test_the_page_requests_nothing_but_itself(open_page):
    page = open_page()
    requests = []
    page.context.on("request", lambda request: requests.append(request.url))
    page.reload()
    draw(page, SEVENS["plain"])
    page.click("#clear")
    page.click("#language")
    page.wait_for_load_state("networkidle")
    assert requests == [lab.PAGE.as_uri()]


def test_the_browser_refuses_what_the_page_might_request(page):
    assert page.evaluate("fetch('data:,').then(() => false, () => true)")


@pytest.mark.parametrize(("locale", "first", "second"), [("en-US", "en", "zh"), ("zh-CN", "zh", "en")])
def test_the_switch_changes_the_language_from_the_browsers_to_the_other(open_page, locale, first, second):
    page = open_page(locale=locale)
    title = {"en": "Draw a digit", "zh": "写一个数字"}
    assert page.locator("h1").inner_text() == title[first]
    page.click("#language")
    assert page.locator("h1").inner_text() == title[second]


def test_every_text_is_in_both_languages():
    languages = re.findall(r'<(?:span|p) lang="(\S+)">', lab.TEMPLATE.read_text(encoding="utf-8"))
    assert languages == ["en", "zh-CN"] * (len(languages) // 2)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_nothing_is_wider_than_the_window(open_page, viewport, locale):
    page = open_page(viewport=viewport, locale=locale)
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]


def test_a_laptops_window_shows_all_of_it(page):
    assert page.evaluate("document.documentElement.scrollHeight") <= DESKTOP["height"]


# The command


@pytest.fixture
def written(monkeypatch, tmp_path):
    """The command's page, in another folder than the committed one."""
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    monkeypatch.setattr(lab, "PAGE", tmp_path / "digit.html")
    monkeypatch.setattr("sys.argv", ["digit_page"])
    return lab.PAGE


def test_the_command_writes_the_page_in_the_repository(written, capsys):
    lab.main()
    committed = (ROOT / "labs" / "digit.html").read_text(encoding="utf-8")
    assert written.read_text(encoding="utf-8") == committed, "make it anew: python -m labs.digit_page"
    assert capsys.readouterr().out == f"digit.html: 61,706 weights, {len(committed.encode()) / 1000:.0f} KB\n"


def test_the_page_is_under_400_kb():
    assert lab.PAGE.stat().st_size < 400_000


@pytest.mark.parametrize("weights", [None, b"", "labs/weights/lenet_original.pth"])
def test_without_the_networks_weights_no_page_is_written(written, monkeypatch, weights):
    path = written.with_name("lenet.pth")
    if weights is not None:
        path.write_bytes(weights if isinstance(weights, bytes) else (ROOT / weights).read_bytes())
    monkeypatch.setitem(NETWORKS, "lenet", NETWORKS["lenet"]._replace(path=path))
    with pytest.raises(SystemExit) as stop:
        lab.main()
    assert re.fullmatch("error: [^\n]+", stop.value.code)
    assert not written.exists()
