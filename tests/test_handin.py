"""What is handed in: a zip whose scripts run wherever it is unpacked, and a page that needs no other file."""

import base64
import errno
import html
import io
import platform
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from PIL import Image, ImageChops, ImageStat

from report import handin

pytest.importorskip("markdown_it", reason="the hand-in needs report/requirements.txt")
pytest.importorskip("mdit_py_plugins", reason="the hand-in needs report/requirements.txt")

ROOT = Path(__file__).parent.parent
NAME = "3210100000-张三-CVHW4"


def hand_in(
    patch: pytest.MonkeyPatch,
    out: Path,
    *more: str | Path,
    id: str = "3210100000",
    name: str = "张三",
    language: str = "en",
) -> None:
    arguments = [f"--id={id}", f"--name={name}", "--language", language, "--out", str(out), *map(str, more)]
    patch.setattr(sys, "argv", ["handin", *arguments])
    handin.main()


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory) -> Path:
    """The folder with this repository's zip and page, and the zip unpacked beside them."""
    out = tmp_path_factory.mktemp("handed_in")
    with pytest.MonkeyPatch.context() as patch:
        hand_in(patch, out)
    with zipfile.ZipFile(out / f"{NAME}.zip") as archive:
        archive.extractall(out)
    return out


def add(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A small repository, copied without git, in the place of this one."""
    root = tmp_path / "copy"
    add(root, "lenet.py", "model.pth", "report/figures/a.png")
    Image.new("L", (2, 1)).save(root / "report" / "figures" / "a.png")
    (root / "report" / "README.md").write_text("# Title\n", encoding="utf-8")
    monkeypatch.setattr(handin, "ROOT", root)
    return root


def page_of(text: str) -> str:
    """What the page says between the student's name and its end."""
    page = handin.make_page(f"# Title\n\n{text}\n", "en", "1 A")
    return page.partition('<p class="student">1 A</p>\n')[2].removesuffix("</body>\n</html>\n").strip()


# The zip


def test_the_zip_has_one_folder_of_its_own_name(handed_in):
    with zipfile.ZipFile(handed_in / f"{NAME}.zip") as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {NAME}


FEW_DIGITS = """
import train_lenet
load = train_lenet.load_mnist
train_lenet.load_mnist = lambda root, train: tuple(part[:2000] for part in load(root, train))
train_lenet.main()
"""


@pytest.mark.parametrize(
    ("command", "prints"),
    [
        (["try.py"], "Model loaded"),
        (["infer_unet.py", "car.jpg", "out.png"], "out.png: car on"),
        (["-c", FEW_DIGITS, "--epochs", "1", "--data", str(ROOT / "data")], "Test accuracy: "),
    ],
    ids=["try", "infer_unet", "train_lenet"],
)
def test_the_unpacked_zip_runs(handed_in, command, prints):
    done = subprocess.run([sys.executable, *command], cwd=handed_in / NAME, capture_output=True, text=True)
    assert prints in done.stdout, done.stderr


def test_what_git_tracks_is_in_the_zip_but_mnist_and_hidden_files(handed_in):
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.split("\0") if (ROOT / name).is_file()}
    missing = {name for name in tracked if not (handed_in / NAME / name).exists()}
    missing -= {f"labs/{name}/{name}.pth" for name in ("digit_strips", "cats_dogs", "cifar10")}
    assert not [name for name in missing if not name.startswith((".", "data/MNIST/"))]


def test_zip_and_page_are_small_enough_for_an_e_mail(handed_in):
    """What the docstring says; with every figure as it is drawn, and all networks, they were 13.1 and 2.7 MB."""
    sizes = [(handed_in / f"{NAME}{end}").stat().st_size / 1e6 for end in (".zip", ".html")]
    assert sizes[0] < 8.5 and sizes[1] < 1.6
    said = [float(size) for size in re.findall(r"([\d.]+) MB", handin.__doc__)]
    assert sizes == pytest.approx(said, abs=0.6)


def test_a_figure_in_the_zip_is_smaller_and_looks_the_same(handed_in):
    name = "report/figures/lenet_curves.png"
    ours, packed = Image.open(ROOT / name).convert("RGB"), Image.open(handed_in / NAME / name).convert("RGB")
    assert (handed_in / NAME / name).stat().st_size < (ROOT / name).stat().st_size / 2
    assert packed.size == ours.size
    assert ImageStat.Stat(ImageChops.difference(ours, packed)).mean < [1, 1, 1]


@pytest.mark.parametrize(
    "name",
    [
        ".git/HEAD",
        ".venv/bin/python",
        "venv/pyvenv.cfg",
        "labs/__pycache__/a.pyc",
        "runs/a/checkpoint.pth",
        "data/carvana/a.jpg",
        "data/MNIST/raw/train-images-idx3-ubyte.gz",
        "labs/cats_dogs/cats_dogs.pth",
        "1-B-CVHW4.zip",
        "out/1-B-CVHW4.html",
    ],
)
def test_the_zip_leaves_out(copy, name):
    files = handin.code_files()
    add(copy, name)
    assert handin.code_files() == files


@pytest.mark.parametrize("name", ["data/README.md", "labs/weights/a.pth", "report/results/a.csv", ".gitignore"])
def test_the_zip_keeps(copy, name):
    add(copy, name)
    assert Path(name) in handin.code_files()


def test_what_gitignore_names_is_left_out_without_git(copy):
    (copy / ".gitignore").write_text("# made\n/out.png\nphotos/\nmade/*\n!made/README.md\n", encoding="utf-8")
    before = handin.code_files()
    add(copy, "out.png", "photos/a.jpg", "made/a.csv", "made/README.md", "labs/out.png")
    assert set(handin.code_files()) - set(before) == {Path("made/README.md"), Path("labs/out.png")}


# The page


def test_the_page_of_the_report_holds_its_figures_and_leads_to_no_file(handed_in):
    page = (handed_in / f"{NAME}.html").read_text(encoding="utf-8")
    report = (ROOT / "report" / "README.md").read_text(encoding="utf-8")
    assert page.count('src="data:image/') == len(re.findall(r"!\[.*?\]\(|<img\b", report, re.DOTALL))
    assert not [source for source in re.findall(r'\bsrc="(.{20})', page) if not source.startswith("data:image/")]
    assert not [target for target in re.findall(r'\bhref="(.*?)"', page) if not re.match(r"#|https?://", target)]


@pytest.mark.parametrize("text", handin.TEXTS.values())
def test_the_report_is_written_as_the_page_can_show_it(text):
    """Its links within the page arrive, and no mark of Markdown is left standing as text."""
    path = ROOT / "report" / text
    if not path.exists():
        pytest.skip("this language is not written yet")
    page = handin.make_page(path.read_text(encoding="utf-8"), "en", "1 A")
    ids = set(re.findall(r'\bid="(.*?)"', page))
    assert not [target for target in re.findall(r'href="#(.*?)"', page) if html.unescape(unquote(target)) not in ids]
    shown = re.sub(r"<code.*?</code>|<style.*?</style>|<[^>]*>", "", page, flags=re.DOTALL)
    assert not re.findall(r".*(?:\*\*|\]\(|\|--|^#|<!--|\$).*", shown, re.MULTILINE)


def test_the_page_says_whose_it_is_and_in_which_language():
    page = handin.make_page("# 报告:`LeNet`\n", "zh-CN", "1 <b>")
    assert '<html lang="zh-CN">' in page and '<meta charset="utf-8">' in page and "<title>报告:LeNet</title>" in page
    assert '</code></h1>\n<p class="student">1 &lt;b&gt;</p>' in page


def test_a_figure_stands_in_the_page_itself(copy):
    data = base64.b64encode((copy / "report" / "figures" / "a.png").read_bytes()).decode()
    assert page_of("![x](figures/a.png)") == f'<p><img src="data:image/png;base64,{data}" alt="x" /></p>'
    assert 'width="9" src="data:image/png' in page_of('<img width="9" src="figures/a.png">')


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[`a.py`](../a.py)", "<p><code>a.py</code></p>"),
        ('<a class="x" href="../a.py">a</a>', "<p>a</p>"),
        ("[a](https://a.org)", '<p><a href="https://a.org">a</a></p>'),
        ("[a](#b)", '<p><a href="#b">a</a></p>'),
        ("`<a href='../a.py'>`", "<p><code>&lt;a href='../a.py'&gt;</code></p>"),
        ("Dice <!-- a.json b .2f -->0.99<!-- / -->.", "<p>Dice 0.99.</p>"),
        ("```\n<!-- kept -->\n```", "<pre><code>&lt;!-- kept --&gt;\n</code></pre>"),
        ("`a.py --lr 1`", "<p><code>a.py <span>--lr</span> 1</code></p>"),
        ("```\na.py --lr 1\n```", "<pre><code>a.py --lr 1\n</code></pre>"),
        ("## 二、结果(一)", '<h2 id="二结果一">二、结果(一)</h2>'),
    ],
)
def test_the_page_shows(text, shown):
    assert page_of(text) == shown


def test_a_byte_order_mark_hides_no_title(copy, tmp_path, monkeypatch):
    (copy / "report" / "README.md").write_text("# Title\n", encoding="utf-8-sig")
    hand_in(monkeypatch, tmp_path)
    assert "<title>Title</title>" in (tmp_path / f"{NAME}.html").read_text(encoding="utf-8")


def test_a_table_between_the_marks_of_its_numbers_is_a_table():
    assert page_of("<!-- a.csv | {a} | -->\n\n| a |\n|---|\n| 1 |\n\n<!-- / -->").startswith("<table>")


def test_details_stay_folded_but_not_on_paper_and_may_hold_markdown():
    assert "details::details-content {" in handin.STYLE.partition("@media print")[2]
    assert page_of("<details>\n<summary>a</summary>\n\n*b*\n\n</details>") == (
        "<details>\n<summary>a</summary>\n<p><em>b</em></p>\n</details>"
    )


def test_equal_headings_get_different_addresses():
    assert re.findall('id="(.*?)"', page_of("## a b\n\n## a b")) == ["a-b", "a-b-1"]


# What only the page shows


@pytest.mark.parametrize("text", handin.TEXTS.values())
def test_the_page_shows_both_networks_unfolded_and_the_two_sections(text):
    """And the folded trials are folded."""
    language = {name: language for language, name in handin.TEXTS.items()}[text]
    page = handin.make_page((ROOT / "report" / text).read_text(encoding="utf-8"), language, "1 A")
    folded = "".join(re.findall(r"<details.*?</details>", page, re.DOTALL))
    for line in (
        "class LeNet5(nn.Module):",
        "    def forward(self, images: Tensor) -&gt; Tensor:",
        "class CropAndConcat(nn.Module):",
        "class UNet(nn.Module):",
        "    def forward(self, x: Tensor) -&gt; Tensor:",
        "        return self.final_conv(x)",
    ):
        assert f"{line}\n" in page and f"{line}\n" not in folded
    assert "<details open" not in page and "--validate --epochs 3" in re.sub(r"</?span>", "", folded)
    titles = {"en": ("Environment", "In my own words"), "zh-CN": ("实验环境", "心得")}[language]
    assert [title for title in re.findall(r"<h2[^>]*>(.*?)</h2>", page) if title in titles] == list(titles)


def test_the_environment_is_this_machines():
    shown = page_of("<!-- page: environment -->")
    for value in (torch.__version__, platform.python_version(), version("torchvision"), version("numpy")):
        assert f"<td>{value}</td>" in shown


FIGURE = "<!-- page: figure -->\n\nours ![x](figures/a.png)\n\n<!-- page: end -->\n\nafter"


@pytest.fixture
def place(copy) -> None:
    """A report with a place for each option."""
    (copy / "report" / "README.md").write_text(f"# T\n\n{FIGURE}\n\n<!-- page: words -->\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "mode"), [("my 50%20 & 张's.png", "RGB"), ("a.jpg", "L"), ("a.bmp", "RGB"), ("b.png", "RGBA")]
)
def test_the_students_figure_takes_the_place_of_ours(place, tmp_path, monkeypatch, name, mode):
    Image.linear_gradient("L").resize((2400, 600)).convert(mode).save(tmp_path / name)
    hand_in(monkeypatch, tmp_path, "--figure", tmp_path / name)
    page = (tmp_path / f"{NAME}.html").read_text(encoding="utf-8")
    assert "infer.jpg" in page and "<p>ours" not in page and "<p>after</p>" in page and page.count("<img") == 1
    kind, data = re.search(r'<img src="data:image/(png|jpeg);base64,([^"]*)"', page).groups()
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert shown.format.lower() == kind and shown.size == (2000, 500)


def test_words_are_markdown_and_without_them_a_hint_stands_there(place, tmp_path, monkeypatch):
    hand_in(monkeypatch, tmp_path, language="en")
    assert "Not written yet" in (tmp_path / f"{NAME}.html").read_text(encoding="utf-8")
    (tmp_path / "w.md").write_text("我*学到*了", encoding="utf-8")
    hand_in(monkeypatch, tmp_path, "--words", tmp_path / "w.md")
    page = (tmp_path / f"{NAME}.html").read_text(encoding="utf-8")
    assert "<p>我<em>学到</em>了</p>" in page and "Not written yet" not in page


def test_one_line_says_what_is_still_missing(place, tmp_path, monkeypatch, capsys):
    hand_in(monkeypatch, tmp_path)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("still missing: your own figure of infer.jpg (--figure FILE") and "--words FILE" in line
    (tmp_path / "w.md").write_text("a", encoding="utf-8")
    Image.new("RGB", (9, 9)).save(tmp_path / "f.png")
    hand_in(monkeypatch, tmp_path, "--words", tmp_path / "w.md", "--figure", tmp_path / "f.png")
    assert "missing" not in capsys.readouterr().out


def test_the_report_says_that_its_figure_is_of_the_drawn_car():
    for text, said in (("README.md", "here of the drawn `car.jpg`"), ("README.zh-CN.md", "这里用的是绘制的 `car.jpg`")):
        (ours,) = handin.OURS.findall((ROOT / "report" / text).read_text(encoding="utf-8"))
        assert said in ours and "infer.jpg" in ours and "figures/car_mask.jpg" in ours


# What cannot be done


@pytest.mark.parametrize(
    ("option", "content", "error"),
    [
        ("figure", None, "there is no picture .*given"),
        ("figure", b"hello", ".*given is not a picture that Pillow can open safely"),
        ("figure", b"\x89PNG\r\n\x1a\n", ".*given is not a picture that Pillow can open safely"),
        ("words", None, ".*given: No such file or directory"),
        ("words", b"\xff", ".*given is not UTF-8: save it as that"),
    ],
)
def test_a_bad_file_of_the_students_is_one_error(place, copy, tmp_path, monkeypatch, option, content, error):
    if content is not None:
        (tmp_path / "given").write_bytes(content)
    with pytest.raises(SystemExit) as exit:
        hand_in(monkeypatch, tmp_path, f"--{option}", tmp_path / "given")
    assert re.fullmatch(f"error: {error}", exit.value.code)
    assert not list(tmp_path.glob("*CVHW4*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("option", ["figure", "words"])
def test_a_report_without_a_place_for_it_is_one_error(copy, tmp_path, monkeypatch, option):
    Image.new("L", (9, 9)).save(tmp_path / "f.png")
    (tmp_path / "w.md").write_text("a", encoding="utf-8")
    given = tmp_path / {"figure": "f.png", "words": "w.md"}[option]
    with pytest.raises(SystemExit, match=f"error: the report has no place for --{option}: put <!-- page: {option} -->"):
        hand_in(monkeypatch, tmp_path, f"--{option}", given)


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\\b", "..", ".a", "a:b", "a\nb", 'a"b', "a ", "*", "\udcff"])
@pytest.mark.parametrize("option", ["id", "name"])
def test_a_name_that_no_file_can_have_is_one_error(copy, tmp_path, monkeypatch, option, name):
    with pytest.raises(SystemExit) as exit:
        hand_in(monkeypatch, tmp_path, **{option: name})
    assert re.fullmatch(rf"error: --{option} .* cannot be in the name of a file: .*", exit.value.code)
    assert list(tmp_path.iterdir()) == [copy]


@pytest.mark.parametrize("name", ["张三", "买买提·阿里", "O'Neil, J. R.", "CON"])
def test_a_name_that_a_file_can_have_is_taken(copy, tmp_path, monkeypatch, name):
    hand_in(monkeypatch, tmp_path, name=name)
    assert {path.name for path in tmp_path.glob("3*")} == {f"3210100000-{name}-CVHW4{end}" for end in (".zip", ".html")}


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda root: (root / "model.pth").unlink(), "there is no model.pth in .*"),
        (lambda root: (root / "report/README.md").write_text("no title"), "the report has no title: .*"),
        (lambda root: (root / "report/README.md").write_bytes(b"# \xff"), ".*README.md is not UTF-8: save it as that"),
        (lambda root: (root / "report/README.md").write_text("# T\n![](b.png)"), "there is no picture .*b.png"),
        (
            lambda root: (root / "report/README.md").write_text("# T\n<!-- page: code lenet.py LeNet9 -->"),
            "lenet.py has no LeNet9, which the report shows: correct its line .*",
        ),
        (lambda root: (root / "report/README.md").unlink(), ".*README.md: No such file or directory"),
    ],
    ids=["no weights", "no title", "not UTF-8", "no figure", "no class", "no report"],
)
def test_what_is_missing_is_one_error_and_nothing_is_written(copy, tmp_path, monkeypatch, spoil, error):
    spoil(copy)
    with pytest.raises(SystemExit) as exit:
        hand_in(monkeypatch, tmp_path)
    assert re.fullmatch(f"error: {error}", exit.value.code)
    assert list(tmp_path.iterdir()) == [copy]


@pytest.mark.parametrize("out", ["missing", "copy/lenet.py"])
def test_an_out_that_is_no_folder_is_one_error(copy, tmp_path, monkeypatch, out):
    with pytest.raises(SystemExit, match="error: there is no folder .*: make it first, or choose another --out"):
        hand_in(monkeypatch, tmp_path / out)


def test_without_the_library_the_error_says_how_to_install_it(copy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    with pytest.raises(SystemExit, match="error: .*: pip install -r report/requirements.txt"):
        hand_in(monkeypatch, tmp_path)


def test_a_full_disk_leaves_the_last_hand_in_as_it_was(copy, tmp_path, monkeypatch):
    for end in (".zip", ".html"):
        (tmp_path / f"{NAME}{end}").write_text("old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(SystemExit, match="error: cannot write .*zip: No space left on device"):
        hand_in(monkeypatch, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["copy", f"{NAME}.html", f"{NAME}.zip"])
    assert {path.read_text() for path in tmp_path.glob("3*")} == {"old"}
