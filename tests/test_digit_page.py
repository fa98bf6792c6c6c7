"""In headless Chromium the page reads as PyTorch does, whether a digit is drawn or given; and it asks for nothing."""

import re
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import labs.digit_page.__main__ as lab
from labs.digit_page.drawings import drawings
from labs.handwriting import CHOSEN
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
    next_frame(window)
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


def next_frame(page):
    """Waits until the page has answered."""
    page.evaluate("() => new Promise(requestAnimationFrame)")


def draw(page, strokes, pad="#pad"):
    for stroke in strokes:
        start, *others = places(page, stroke, pad)
        page.mouse.move(*start)
        page.mouse.down()
        for place in others:
            page.mouse.move(*place, steps=4)
        page.mouse.up()
    next_frame(page)


def answer(page):
    return page.locator("#answer").inner_text()


def picture(page):
    """What the page's network reads, [28, 28]; None where the pad is blank."""
    pixels = page.evaluate("picture && [...picture]")
    return pixels and np.array(pixels).reshape(28, 28)


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
    assert set(readings.values()) == {"7"}, readings


def test_a_finger_draws_too_and_does_not_move_the_page(open_page):
    page = open_page(viewport=PHONE, has_touch=True)
    touch = page.context.new_cdp_session(page)
    for kind, place in zip(["touchStart", "touchMove", "touchMove"], places(page, SEVENS["plain"][0]), strict=True):
        points = [dict(zip("xy", place, strict=True))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    next_frame(page)
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
    next_frame(page)
    shown = [float(line.removesuffix("%")) for line in page.locator("#probabilities span").all_text_contents()]
    assert sum(shown) == pytest.approx(100, abs=0.5)


def test_moving_the_mouse_without_its_button_draws_nothing(page):
    for place in places(page, SEVENS["plain"][0]):
        page.mouse.move(*place)
    next_frame(page)
    assert picture(page) is None


def test_clearing_leaves_no_ink_and_no_answer(page):
    draw(page, SEVENS["plain"])
    page.click("#clear")
    next_frame(page)
    assert picture(page) is None
    assert answer(page) == ""
    assert not page.locator("#probabilities span:visible").count()
    page.locator("#C1 canvas").first.hover()
    assert page.locator("#lens canvas").count() == 0


@pytest.mark.parametrize("undo", ["button", "keys"])
def test_undo_takes_the_last_stroke_away(page, undo):
    draw(page, SEVENS["crossed"][:1])
    before = picture(page)
    draw(page, SEVENS["crossed"][1:])
    assert not np.array_equal(picture(page), before)
    page.click("#undo") if undo == "button" else page.keyboard.press("Control+z")
    next_frame(page)
    np.testing.assert_array_equal(picture(page), before)


def test_a_fast_stroke_has_the_points_between_two_frames(page):
    bent = """() => {
      const pad = document.getElementById("pad");
      const { left, top, width } = pad.getBoundingClientRect();
      const at = (x, y) => ({ clientX: left + x * width, clientY: top + y * width, isPrimary: true, pointerId: 1 });
      pad.setPointerCapture = () => {};
      const coalescedEvents = [[0.8, 0.2], [0.4, 0.8]].map(([x, y]) => new PointerEvent("pointermove", at(x, y)));
      pad.dispatchEvent(new PointerEvent("pointerdown", at(0.2, 0.2)));
      pad.dispatchEvent(new PointerEvent("pointermove", { ...at(0.4, 0.8), coalescedEvents }));
      pad.dispatchEvent(new PointerEvent("lostpointercapture"));
      delete pad.setPointerCapture;
    }"""
    page.evaluate(bent)
    next_frame(page)
    assert answer(page) == "7"


def test_the_canvas_is_never_read_back(open_page):
    page = open_page()
    page.evaluate("() => { CanvasRenderingContext2D.prototype.getImageData = null; }")  # some browsers give noise
    draw(page, SEVENS["plain"])
    assert answer(page) == "7"


def test_a_dot_is_a_dot(page):
    page.mouse.click(*places(page, [(0.3, 0.6)])[0])
    next_frame(page)
    assert np.argwhere(picture(page) > 0.5).tolist() == [[13, 14], [14, 13], [14, 14], [14, 15], [15, 14]]


def test_what_lies_between_two_digits_is_perhaps_either(page):
    assert page.evaluate("named([0, 0.4, 0, 0, 0, 0, 0, 0.55, 0.05, 0])") == [7, 1]
    draw(page, SEVENS["plain"])
    page.evaluate("showAnswer([0, 0.4, 0, 0, 0, 0, 0, 0.55, 0.05, 0])")
    assert answer(page).split() == ["perhaps", "7,", "perhaps", "1"]


@pytest.mark.parametrize("shape", ["plain", "slanted", "large", "small, in a corner"])
def test_a_drawing_is_centred_by_its_mass_and_20_pixels_long(page, shape):
    draw(page, SEVENS[shape])
    drawn = picture(page)
    for axis in (0, 1):
        middle = np.average(np.arange(28), weights=drawn.sum(axis))
        assert middle == pytest.approx(14, abs=0.1)  # as MNIST's are, to half a pixel; what is beyond the edge is cut
    # 20 pixels that begin anywhere are parts of 21
    assert max(np.ptp(np.nonzero(drawn.sum(axis) > 0.01)[0]) + 1 for axis in (0, 1)) in (20, 21)


def test_a_digit_becomes_the_same_picture_wherever_and_however_large_it_is_drawn(page):
    digit_of = """([scale, x, y]) => {
      const seven = [[0, 0], [1, 0], [0.4, 1.4]];
      return [...digitOf([seven.map((point) => [scale * point[0] + x, scale * point[1] + y])])];
    }"""
    large, small = (np.array(page.evaluate(digit_of, place)) for place in ([0.6, 0.1, 0.1], [0.1, 0.7, 0.5]))
    np.testing.assert_allclose(small, large, atol=1e-5)


@torch.inference_mode()
def test_drawings_of_a_fifth_of_the_pad_are_read(page, network):
    drawn = drawings(seed=0)["a fifth of the pad"]
    pictures = page.evaluate("all => all.map((strokes) => [...digitOf(strokes)])", [strokes for _, strokes in drawn])
    read = network(torch.tensor(pictures).view(-1, 1, 28, 28)).argmax(dim=1).tolist()
    assert sum(answer == label for answer, (label, _) in zip(read, drawn, strict=True)) >= 57  # of 60


def test_mnists_ten_are_read_as_they_are_and_with_the_keyboard(page):
    images, readings = [], []
    for button in page.locator("#examples button").all():
        button.focus()
        page.keyboard.press("Enter")
        next_frame(page)
        images.append(picture(page))
        readings.append(answer(page).split())
    expected = load_mnist(ROOT / "data", train=False)[0][list(CHOSEN), 0]
    np.testing.assert_allclose(np.array(images), expected.numpy(), atol=1e-6)
    assert ["".join(reading) for reading in readings][:4] == ["0", "1", "2", "3"]
    assert [readings[digit] for digit in (4, 6, 8)] == [["9"], ["0"], ["3"]]


def test_drawing_takes_an_example_away(page):
    page.locator("#examples button").first.click()
    draw(page, SEVENS["plain"])
    assert answer(page) == "7"


def test_pointing_at_a_map_shows_the_sum_that_the_point_is(page, network):
    draw(page, SEVENS["plain"])
    page.locator("#C3 canvas").nth(5).hover()
    assert page.locator("#lens canvas").count() == 12  # 6 kernels and what each lies on
    page.locator("#C1 canvas").nth(2).hover()
    assert page.locator("#lens canvas").count() == 2
    assert page.locator(".seen i").is_visible()
    seen = np.array(page.evaluate("[...patches(picture, 1, 28, 12, 13)]")).reshape(5, 5)
    np.testing.assert_array_equal(seen, picture(page)[12:17, 13:18])


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


def test_without_chromium_the_drawings_are_one_error(written, monkeypatch):
    pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install -r labs/requirements-test.txt")
    monkeypatch.setattr("sys.argv", ["digit_page", "drawings"])
    monkeypatch.setattr("playwright.sync_api.sync_playwright", MagicMock())  # a second one beside `browser` may not be
    monkeypatch.setattr("shutil.which", lambda _: "nowhere")
    with pytest.raises(SystemExit, match="^error: this needs Chromium: apt install chromium, or playwright install "):
        lab.main()
