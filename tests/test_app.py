"""The page answers, in real headless Chromium, what it is given: drawn digits, cars, pets, and what is no picture."""

import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from photographs_of_digits import KINDS, photographs
from PIL import Image
from test_digit_page import DESKTOP, PHONE, SEVENS, draw

import labs.app.__main__ as lab
from labs.app import answers, paper
from labs.weights import load
from train_lenet import load_mnist
from training import pick_device

ROOT = Path(__file__).parent.parent
PAD = "#pad .pad canvas"
READ = ".reading tr:has(.best) th"  # the digits that the networks take the drawing for


# The answers, without the page


def test_a_digit_of_mnist_comes_back_as_it_was_wherever_and_however_large_it_was_drawn():
    for digit in load_mnist(ROOT / "data", train=False)[0][:50, 0]:
        drawn = np.zeros((400, 500), dtype=np.float32)
        large = Image.fromarray(digit.numpy()).resize((280, 280), Image.Resampling.NEAREST)
        drawn[100:380, 200:480] = np.asarray(large)
        again = paper.centred_digit(drawn)[0, 0]
        for axis in (0, 1):
            assert np.average(np.arange(28), weights=again.sum(axis)) == pytest.approx(14, abs=0.1)  # or cut
        assert (again - digit).abs().mean() < 0.05  # MNIST moved it by whole pixels, so it moves by up to half of one


def test_an_empty_pad_is_no_digit_and_what_is_no_picture_of_28x28_is_refused():
    assert answers.digit_of_pad("") is None
    with pytest.raises(ValueError):
        answers.digit_of_pad("AAAA")


@pytest.mark.parametrize(("dark", "light"), [(0, 255), (90, 230)])
@pytest.mark.parametrize("inverted", [False, True])
def test_ink_may_be_darker_or_lighter_than_paper(dark, light, inverted):
    seen = np.full((300, 300, 3), dark if inverted else light, dtype=np.uint8)
    seen[60:240, 140:160] = light if inverted else dark
    digit = paper.centred_digit(paper.thickened(paper.digit_ink(Image.fromarray(seen))))
    assert digit[0, 0, 5:23, 13:16].min() > 0.7
    assert digit.sum() < 70


def test_a_pencil_is_as_thick_as_mnists_pen_and_a_brush_stays():
    areas = []
    for width in (3, 24):
        seen = np.full((300, 300, 3), 240, dtype=np.uint8)
        seen[60:240, 150 - width // 2 : 150 - width // 2 + width] = 30
        areas.append(paper.centred_digit(paper.thickened(paper.digit_ink(Image.fromarray(seen)))).sum().item())
    assert areas == pytest.approx([50, 53], abs=8)  # 20 x 2.5 pixels


@torch.inference_mode()
def test_digits_on_paper_are_read_in_uneven_light_on_lines_and_near_an_edge():
    network = load("lenet")
    read = dict.fromkeys(KINDS, 0)
    for kind, label, photo in photographs(*load_mnist(ROOT / "data", train=False), seed=0):
        ink = paper.digit_ink(photo)
        if ink is not None:
            read[kind] += network(paper.centred_digit(paper.thickened(ink))).argmax().item() == label
    assert min(read.values()) >= 9, read  # of ten each


def test_blank_paper_has_no_digit(tmp_path):
    noise = np.random.default_rng(0).integers(225, 240, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "blank.png")
    with pytest.raises(ValueError, match="no digit is found in .*blank.png"):
        answers.digit_of_photo(tmp_path / "blank.png")


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (4000, 3), (27, 30)])
def test_a_picture_of_any_size_is_looked_at(size):
    assert paper.digit_ink(Image.new("RGB", size, "white")) is None


# The page


@pytest.fixture(scope="module")
def app():
    return pytest.importorskip(
        "labs.app.page", reason="no Gradio: pip install -r labs/requirements.txt", exc_type=ImportError
    )


@pytest.fixture(scope="module")
def address(app):
    networks = answers.load_networks(ROOT / "model.pth", None, pick_device("cpu"))
    page = app.build(networks, answers.example_cars(app.FILES.name), answers.example_pets(app.FILES.name))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    app.serve(page, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    page.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page in a window of its own; at the end it has asked nobody else for anything."""
    asked, windows = [], []

    def open_page(**options):
        windows.append(browser.new_context(**{"viewport": DESKTOP, "locale": "en-US", **options}))
        page = windows[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.locator(PAD).hover()  # waits until nothing moves or covers it any more
        return page

    yield open_page
    for window in windows:
        window.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.fixture
def page(open_page):
    return open_page()


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()
    return page.locator("[role=tabpanel]:visible")


def upload(page, name, *files):
    tab(page, name).locator("input[type=file]").set_input_files([str(file) for file in files])


def message(page):
    """What the page says in a message, which it is then rid of."""
    toast = page.locator(".toast-body")
    text = toast.inner_text()
    toast.get_by_test_id("toast-close").click()
    return text


def share_of_car(page):
    return float(page.get_by_text("of the picture").inner_text().split()[2].rstrip("%"))


def test_a_seven_drawn_with_the_mouse_is_read_as_7_by_both_networks(page, expect):
    for shape, strokes in SEVENS.items():
        draw(page, strokes, PAD)
        page.wait_for_timeout(500)  # the last stroke is on its way
        expect(page.locator(".reading .best"), shape).to_have_count(2)
        expect(page.locator(READ), shape).to_have_text(["7"])
        page.get_by_role("button", name="Clear").click()
        page.wait_for_selector(".reading .best", state="detached")


def test_a_stroke_is_drawn_though_all_text_of_the_page_is_selected(page, expect):
    page.keyboard.press("Control+A")
    draw(page, SEVENS["plain"], PAD)
    expect(page.locator(READ)).to_have_text(["7"])


def test_what_1998s_network_does_not_know_it_says_so(page, expect):
    for place in ((0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)):
        draw(page, [[place, (0.5, 0.5)]], PAD)
    draw(page, [[(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8), (0.2, 0.2)]], PAD)
    expect(page.locator(".reading th").last).to_have_text(re.compile("none"))
    expect(page.locator(".reading tr").last.locator("td.best")).to_have_count(1)
    expect(page.locator(".reading th[scope=col]").last).to_contain_text("none of these, if I may say so")


def test_undo_takes_the_last_stroke_away_and_a_blank_pad_has_no_answer(page, expect):
    draw(page, SEVENS["plain"], PAD)
    expect(page.locator(READ)).to_have_text(["7"])
    page.keyboard.press("Control+z")
    expect(page.locator(".reading")).to_have_count(0)
    expect(page.get_by_text("Draw a digit here")).to_be_visible()


def test_an_example_is_read_without_drawing(page, expect):
    page.get_by_role("button", name="2", exact=True).press("Enter")
    expect(page.locator(READ)).to_have_text(["2"])


def test_the_drawing_is_read_again_when_the_photograph_is_taken_away(page, expect, tmp_path):
    page.get_by_role("button", name="2", exact=True).click()
    expect(page.locator(READ)).to_have_text(["2"])
    digit = (255 - load_mnist(ROOT / "data", train=False)[0][0, 0] * 255).byte().numpy()
    Image.fromarray(digit).resize((200, 200)).save(tmp_path / "seven.png")
    upload(page, "A digit", tmp_path / "seven.png")
    expect(page.locator(READ)).to_have_text(["7"])
    page.get_by_role("button", name="Remove this file").or_(page.get_by_label("Clear", exact=True)).last.click()
    expect(page.locator(READ)).to_have_text(["2"])


def test_the_maps_of_c1_are_shown_on_request(page):
    draw(page, SEVENS["plain"], PAD)
    assert not page.locator(".maps img").first.is_visible()
    page.get_by_text("six maps").click()
    page.locator(".maps img").first.wait_for(state="visible")
    assert page.locator(".maps img").count() == 6


def test_a_photograph_of_a_digit_is_read(page, expect, tmp_path):
    digit = (255 - load_mnist(ROOT / "data", train=False)[0][0, 0] * 255).byte().numpy()
    Image.fromarray(digit).resize((200, 200)).save(tmp_path / "seven.png")
    upload(page, "A digit", tmp_path / "seven.png")
    expect(page.locator(READ)).to_have_text(["7"])


def test_the_slider_changes_the_share_of_the_car_and_the_mask_has_the_photographs_size(page):
    upload(page, "A car", ROOT / "car.jpg")
    page.wait_for_selector("text=of the picture")
    assert 21 < share_of_car(page) < 23
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the mask").click()
    with Image.open(download.value.path()) as mask:
        assert (mask.size, sorted(set(mask.tobytes()))) == ((1918, 1280), [0, 255])
    before = share_of_car(page)
    slider = page.get_by_role("slider")
    slider.focus()
    for _ in range(40):
        slider.press("ArrowRight")
    page.wait_for_function(f"() => !document.body.innerText.includes('Car on {before}%')")
    assert share_of_car(page) < before


def test_an_example_is_found_by_a_click(page):
    tab(page, "A car").get_by_role("button", name="Example 1").click()
    page.wait_for_selector("text=of the picture")
    assert 20 < share_of_car(page) < 24


def test_a_picture_without_a_whole_car_is_doubted_in_the_pages_language(page, expect, tmp_path):
    Image.open(ROOT / "car.jpg").crop((800, 510, 1110, 790)).save(tmp_path / "door.png")
    upload(page, "A car", tmp_path / "door.png")
    expect(page.get_by_text("This can be no whole car")).to_be_visible()
    page.get_by_text("中文").click()
    expect(page.get_by_text("这不可能是一辆完整的汽车")).to_be_visible()


def test_where_no_car_is_found_the_page_says_so(page, expect, tmp_path):
    Image.new("RGB", (300, 200), "white").save(tmp_path / "white.png")
    upload(page, "A car", tmp_path / "white.png")
    expect(page.get_by_text("No car found")).to_be_visible()


def test_several_pets_are_answered_at_once_and_what_is_no_picture_is_named(page, expect, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    upload(page, "A cat or a dog", ROOT / "car.jpg", tmp_path / "text.jpg", ROOT / "car.jpg")
    assert "text.jpg is not a picture" in message(page)
    expect(page.locator(".pets figure")).to_have_count(2)
    assert page.locator(".pets span").first.inner_text().startswith("cat ")


@pytest.mark.parametrize("number", [0, 1])
def test_the_drawn_cat_is_a_cat_and_the_drawn_dog_a_dog(page, expect, number):
    tab(page, "A cat or a dog").locator("button img").nth(number).click()
    expect(page.locator(".pets .best")).to_have_text(re.compile(f"^{['cat', 'dog'][number]} "))


def png(side, path):
    """A black picture of side x side pixels that was never whole in memory."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(side + 1)) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = b""
    for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def test_what_cannot_be_read_is_a_message_and_the_page_goes_on(page, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    png(30_000, tmp_path / "bomb.png")
    (tmp_path / "large.jpg").write_bytes(bytes(21_000_000))
    wanted = {"text.jpg": "is not a picture", "bomb.png": "89 million pixels", "large.jpg": "maximum allowed size"}
    for name, words in wanted.items():
        upload(page, "A car", tmp_path / name)
        assert words in message(page)
        page.reload()
        page.locator(PAD).hover()
    upload(page, "A car", ROOT / "car.jpg")
    page.wait_for_selector("text=of the picture")


def test_fifty_uploads_at_once_are_refused_in_a_message(page):
    upload(page, "A cat or a dog", *[ROOT / "car.jpg"] * 50)
    assert "At most 20 pictures" in message(page)


def test_two_windows_at_once_get_each_its_own_answer(open_page, expect):
    one, other = open_page(), open_page()
    draw(one, SEVENS["plain"], PAD)
    upload(other, "A car", ROOT / "car.jpg")
    other.wait_for_selector("text=of the picture")
    expect(one.locator(READ)).to_have_text(["7"])
    assert other.locator(".reading .best").count() == 0


def test_the_switch_makes_the_page_chinese(page, expect):
    page.get_by_text("中文").click()
    page.wait_for_selector("text=试试这些网络")
    expect(page.get_by_role("tab")).to_have_text(["数字", "汽车", "猫还是狗"])  # they change after the title


def test_a_chinese_browser_begins_in_chinese(open_page, expect):
    page = open_page(locale="zh-CN")
    expect(page.get_by_role("tab")).to_have_text(["数字", "汽车", "猫还是狗"])
    expect(page.get_by_text("在这里写一个数字")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "zh-CN"


def test_a_message_changes_its_language_with_the_page(page, expect, tmp_path):
    (tmp_path / "<b>text.jpg").write_text("no picture")
    upload(page, "A digit", tmp_path / "<b>text.jpg")
    expect(page.locator(".toast-body")).to_contain_text("text.jpg is not a picture")
    page.get_by_role("radio", name="中文").press("Space")  # the message lies on it
    expect(page.locator(".toast-body").get_by_text("无法处理这张图片")).to_be_visible()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["laptop", "phone"])
def test_nothing_is_wider_than_the_screen(open_page, viewport):
    page = open_page(viewport=viewport)
    for name in ("A digit", "A car", "A cat or a dog"):
        tab(page, name)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= viewport["width"]


def test_on_a_phone_every_pet_and_both_its_probabilities_are_on_the_screen(open_page, expect):
    page = open_page(viewport=PHONE)
    upload(page, "A cat or a dog", *[ROOT / "car.jpg"] * 5)
    expect(page.locator(".pets span")).to_have_count(10)
    whole = "at => at.scrollWidth <= at.clientWidth && at.getBoundingClientRect().right <= innerWidth"
    assert [answer.evaluate(whole) for answer in page.locator(".pets span").all()] == [True] * 10


# Who may ask it


def status(address, method, path, body=None, **headers):
    """What the server answers to a request with these headers; its own address is the Host, if none is given."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    connection.request(method, path, body, headers)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def send_file(address, **headers):
    kind = "multipart/form-data; boundary=line"
    part = '--line\r\nContent-Disposition: form-data; name="files"; filename="sent.txt"\r\n\r\nsent\r\n--line--\r\n'
    return status(address, "POST", "/gradio_api/upload", part, **{"Content-Type": kind}, **headers)


def files_of(app):
    return {path.name for path in Path(app.FILES.name).rglob("*")}


def test_a_name_that_is_not_this_machines_is_refused(address):
    port = address.rpartition(":")[2]
    assert status(address, "GET", "/", Host=f"somebody.example:{port}") == 403
    assert status(address, "GET", "/", Host="[::1") == 403
    for own in ("localhost", "127.0.0.1", "[::1]", "192.168.1.7", socket.gethostname()):
        assert status(address, "GET", "/", Host=f"{own}:{port}") == 200, own


@pytest.mark.parametrize("sender", ["http://somebody.example", "http://127.0.0.1:1", "null", None])
def test_another_page_can_store_nothing_here_and_read_nothing(app, address, sender):
    origin = {} if sender is None else {"Origin": sender}
    assert send_file(address, **origin) == 403
    assert "sent.txt" not in files_of(app)
    assert status(address, "GET", "/config", **origin) == (200 if sender is None else 403)


def test_the_page_itself_can_store_files_until_too_many_are_held(app, address, monkeypatch):
    assert send_file(address, Origin=address) == 200
    assert "sent.txt" in files_of(app)
    monkeypatch.setattr(app.guard, "MOST_HELD", app.guard.bytes_in(Path(app.FILES.name)))
    assert send_file(address, Origin=address) == 413


def test_a_file_that_does_not_say_its_length_is_refused(address):
    assert status(address, "POST", "/gradio_api/upload", iter([b"sent"]), Origin=address) == 413


def test_when_too_many_files_are_held_the_page_says_so(app, page, monkeypatch):
    monkeypatch.setattr(app.guard, "MOST_HELD", 0)
    upload(page, "A car", ROOT / "car.jpg")
    assert "Too many files are held" in message(page)


@pytest.mark.parametrize("path", ["run/read_drawing", "call/read_drawing", "api/read_drawing", "run/predict"])
def test_what_the_page_does_for_itself_cannot_be_called_by_its_name_or_past_the_queue(address, path):
    body = json.dumps({"data": [None], "fn_index": 0, "session_hash": "x"})
    kind = {"Content-Type": "application/json", "Origin": address}
    assert status(address, "POST", f"/gradio_api/{path}", body, **kind) in (403, 404)


def test_only_files_of_the_page_are_served_and_no_mask_is_among_them(app, address):
    folder = app.FILES.name
    assert status(address, "GET", f"/gradio_api/file={folder}/cat.png") == 200
    for path in (f"{folder}/mask.png", f"{folder}/../passwd", ROOT / "car.jpg", "http://127.0.0.1:1/", folder, "%00"):
        assert status(address, "GET", f"/gradio_api/file={path}") == 403, path
    assert status(address, "GET", "/gradio_api/file/http://127.0.0.1:1/") == 403
    assert "mask.png" not in files_of(app)


# The command


def stopped(monkeypatch, *arguments):
    """What the command says at its end, in this process, where everything is imported already."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["app", *arguments])
    with pytest.raises(SystemExit) as stop:
        lab.main()
    return stop.value.code


def start(*arguments, **environment):
    command = [sys.executable, "-m", "labs.app", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, **pipes)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("ModuleNotFoundError('No module named', name='gradio')", "pip install -r labs/requirements.txt"),
        ("ImportError('its own need is missing')", "its own need is missing"),
    ],
)
def test_without_gradio_or_what_it_needs_the_command_says_so(tmp_path, monkeypatch, missing, said):
    (tmp_path / "gradio.py").write_text(f"raise {missing}")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("gradio", "labs.app.page"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert stopped(monkeypatch) == f"error: the page needs Gradio: {said}"


def test_a_port_in_use_is_an_error_in_one_line(app, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = stopped(monkeypatch, "--port", str(taken.getsockname()[1]))
    assert said.startswith("error: ") and "\n" not in said


@pytest.mark.parametrize("words", [["--model", "car.jpg"], ["--cats-dogs", "car.jpg"], ["--host", "none.invalid"]])
def test_what_cannot_serve_is_an_error_in_one_line_that_names_it(app, monkeypatch, words):
    monkeypatch.chdir(ROOT)
    said = stopped(monkeypatch, "--port", "0", *words)
    assert said.startswith("error: ") and words[1] in said and "\n" not in said


@pytest.mark.parametrize(
    ("host", "opened", "warned", "end"),
    [("0.0.0.0", "127.0.0.1", "warning: everyone", "SIGINT"), ("::1", "[::1]", "", "SIGHUP")],
    ids=["everyone, Ctrl-C", "IPv6, a closed terminal"],
)
def test_it_prints_an_address_that_opens_whatever_the_proxy_and_leaves_no_files(
    app, tmp_path, host, opened, warned, end
):
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    proxies = {"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "socks5://127.0.0.1:1"}
    with start("--host", host, "--port", "0", TMPDIR=str(tmp_path), **proxies) as process:
        address = process.stdout.readline().split()[1]
        assert address.startswith(f"http://{opened}:")
        assert status(address, "GET", "/") == 200
        process.send_signal(getattr(signal, end))
        assert process.wait(timeout=30) == 130
        assert process.stderr.read().startswith(warned)
    assert not list(tmp_path.glob("labs-app-*"))
