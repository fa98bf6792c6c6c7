"""Packs what is handed in: the code as a zip, and the report as one page that opens in any browser, offline too.

    pip install -r report/requirements.txt
    python infer_unet.py infer.jpg out.png --figure figure.png    the coursework's photograph, which may not be shipped
    python -m report.handin --id 3210100000 --name 张三 --figure figure.png --words words.md
    python -m report.handin --id 3210100000 --name 张三 --language zh-CN --out handed_in

The last prints

    handed_in/3210100000-张三-CVHW4.zip: ... files, 8.1 MB
    handed_in/3210100000-张三-CVHW4.html: report/README.zh-CN.md with ... figures, 1.4 MB
    still missing: your own figure of infer.jpg (--figure FILE, ...), your own words (--words FILE)

The zip has one folder, with the code, the report and `model.pth`; no data, runs or history, nor the networks of the
labs of cats and dogs, of CIFAR-10 and of the strips, which the coursework does not ask for and which are as large as
`model.pth`. The page has its figures in it, and asks the network for nothing. What the report folds is folded there
too, but not on paper: to hand in a PDF, print it (a browser from before 2025 leaves out what is folded).

What only the page shows stands in the report as comments: `<!-- page: code FILE NAME NAME -->` for the source of
classes and functions, `<!-- page: environment -->` and `<!-- page: words -->` for two sections, and
`<!-- page: figure -->` ... `<!-- page: end -->` around what `--figure` replaces.
"""

import argparse
import ast
import base64
import fnmatch
import html
import io
import os
import platform
import re
import zipfile
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote, unquote

import torch
from PIL import Image

from pictures import open_photograph
from report.tables import machine
from training import ROOT, command, told, write_whole

TEXTS = {"en": "README.md", "zh-CN": "README.zh-CN.md"}
# As in .gitignore, whose lines come first; a plain copy may lack it, and in a clone git keeps MNIST.
LEFT_OUT = ["__pycache__", "runs", "data/*", "!data/README.md", ".*", "!.gitignore", "*-CVHW4.zip", "*-CVHW4.html"]
LEFT_OUT += ["labs/digit_strips/*.pth", "labs/cats_dogs/*.pth", "labs/cifar10/*.pth"]
WIDEST = 2000  # pixels of a picture in the page

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
FIGURE = re.compile(r'(<img\b[^>]*?\bsrc=")([^"]*)')
LINK_TO_FILE = re.compile(r'<a\b[^>]*?\bhref="(?!#|https?://)[^"]*"[^>]*>(.*?)</a>', re.DOTALL)
CODE = re.compile(r"(?<!<pre><code>)(?<=<code>)[^<]+(?=</code>)")
OPTION = re.compile(r"(?<!\S)-\S+")
MARK = re.compile(r"<!-- page: (code|environment|words)\b(.*?)-->")
OURS = re.compile(r"<!-- page: figure -->.*?<!-- page: end -->", re.DOTALL)
TITLE = re.compile(r"<h1\b[^>]*>(.*?)</h1>", re.DOTALL)

# What the page says of its own, in both languages.
SAYS = {
    "en": {
        "figure": "The coursework's figure, of its `infer.jpg`:",
        "alt": "infer.jpg and its mask",
        "environment": "## Environment\n\nThis page was made on the machine below. The speeds in the report are those "
        "of the machines that it names.",
        "rows": ("System", "Processor", "Threads", "GPU", "none that PyTorch can use", "not installed"),
        "words": "## In my own words",
        "hint": "*(Not written yet: what was hard, what was a surprise, what you would do otherwise.)*",
    },
    "zh-CN": {
        "figure": "实验要求的图，即 `infer.jpg` 及其掩码：",
        "alt": "infer.jpg 及其掩码",
        "environment": "## 实验环境\n\n本页面在下列机器上生成。报告中的速度属于文中写明的那些机器。",
        "rows": ("操作系统", "处理器", "线程数", "GPU", "没有 PyTorch 可用的", "未安装"),
        "words": "## 心得",
        "hint": "*（尚未填写：遇到了什么困难，什么出乎意料，如果重做会有什么不同。）*",
    },
}

# The policy makes the browser itself refuse whatever a later edit of the report might load.
PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}</body>
</html>
"""
STYLE = """
:root { color-scheme: light; }
body { max-width: 50rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; color: #1f2328; background: #fff;
  font: 1rem/1.65 system-ui, "Segoe UI", "Noto Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif;
  overflow-wrap: break-word; -webkit-text-size-adjust: 100%; }
h1, h2, h3, h4 { line-height: 1.3; margin: 2em 0 0.6em; }
h1 { font-size: 2rem; margin: 0; }
h2 { font-size: 1.45rem; padding-bottom: 0.25em; border-bottom: 1px solid #d1d9e0; }
h3 { font-size: 1.15rem; }
.student { margin: 0.4em 0 2em; color: #59636e; }
a { color: #0757b8; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
code { font: 0.875em ui-monospace, "SF Mono", Consolas, "Liberation Mono", monospace; background: #f2f4f6;
  padding: 0.1em 0.3em; border-radius: 4px; }
pre { overflow-x: auto; padding: 0.8em 1em; line-height: 1.45; background: #f2f4f6; border-radius: 4px; }
pre code { padding: 0; background: none; font-size: 0.75rem; }
pre:has(.language-python) { white-space: pre-wrap; }
summary { cursor: pointer; color: #0757b8; }
table { display: block; width: max-content; max-width: 100%; overflow-x: auto; margin: 1.2em 0;
  border-collapse: collapse; font-size: 0.9rem; line-height: 1.45; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35em 0.75em; border: 1px solid #d1d9e0; text-align: left; vertical-align: top; min-width: 2.5em; }
th { background: #f2f4f6; vertical-align: bottom; }
thead:not(:has(th:not(:empty))) { display: none; }
:is(h1, h2, h3, th, td) code { padding: 0; background: none; }
code span { white-space: nowrap; }
td:has(code span ~ span) { min-width: 15rem; }
blockquote { margin: 1.2em 0; padding-left: 1em; border-left: 3px solid #d1d9e0; color: #59636e; }
@media (max-width: 40rem) { h1 { font-size: 1.6rem; } table { font-size: 0.85rem; } th, td { padding: 0.35em 0.5em; } }
@media print {
  @page { size: A4; margin: 18mm 16mm; }
  body { max-width: none; padding: 0; font-size: 10pt; line-height: 1.5; }
  a { color: inherit; }
  h1, h2, h3, h4 { break-after: avoid; }
  p, li { orphans: 3; widows: 3; }
  table { display: table; width: auto; font-size: 8.5pt; }
  thead { display: table-header-group; }
  table, tr, img { break-inside: avoid; }
  p:has(+ table), p:has(+ pre) { break-after: avoid; }
  img { max-height: 200mm; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  td code { overflow-wrap: anywhere; }
  details::details-content { display: block; content-visibility: visible; block-size: auto; }
}
"""


def left_out(path: Path, rules: list[str]) -> bool:
    """Whether `path`, relative to the root, is no part of the code: the last rule that fits decides, as in git."""
    verdict = False
    for rule in rules:
        pattern = rule.removeprefix("!").rstrip("/")
        whole = "/" in pattern
        if fnmatch.fnmatchcase(path.as_posix() if whole else path.name, pattern.lstrip("/")):
            verdict = not rule.startswith("!")
    return verdict


def code_files() -> list[Path]:
    """The files of the zip, relative to the root. Git is not asked: a plain copy may lie in another repository."""
    ignored = ROOT / ".gitignore"
    rules = [*(ignored.read_text(encoding="utf-8").splitlines() if ignored.exists() else []), *LEFT_OUT]
    found = []
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        environments = [name for name in folders if (ROOT / here / name / "pyvenv.cfg").exists()]
        folders[:] = [name for name in folders if name not in environments and not left_out(here / name, rules)]
        found += [here / name for name in files if not left_out(here / name, rules)]
    return sorted(found)


def shrunk(path: Path, lossy: bool = True) -> bytes:
    """The picture at `path` as PNG or, if it may be `lossy`, as JPEG, whichever is smallest; raises ValueError.

    A chart needs no more than a palette of 256 colours, which makes a third of it; a photograph is smaller as JPEG.
    """
    picture, kind = open_photograph(path), path.suffix.lower()
    picture.info = {}
    forms = [path.read_bytes()] if picture.width <= WIDEST and kind in (".png", ".jpg", ".jpeg") else []
    picture.thumbnail((WIDEST, WIDEST))
    saves = [partial(picture.quantize(256, dither=Image.Dither.NONE).save, format="PNG")]
    if lossy and not (forms and kind != ".png"):  # a JPEG would lose more each time
        saves.append(partial(picture.save, format="JPEG", quality=85))
    for save in saves:
        held = io.BytesIO()
        save(held, optimize=True)
        forms.append(held.getvalue())
    return min(forms, key=len)


def content(path: Path) -> bytes:
    """What the zip has of a file of the repository: a figure of the report or a lab with a palette, or all of it."""
    if path.suffix == ".png" and path.parts[0] in ("report", "labs"):
        with suppress(ValueError):  # not ours, and none that can be read
            return shrunk(ROOT / path, lossy=False)
    return (ROOT / path).read_bytes()


def embed(figure: re.Match[str]) -> str:
    """An image's tag down to its address, with the file itself for the address; raises ValueError if there is none."""
    data = shrunk(ROOT / "report" / unquote(html.unescape(figure[2])))
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"{figure[1]}data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def code(file: str, names: list[str]) -> str:
    """The source of the classes and functions called `names` in `file`, as Markdown; raises ValueError or OSError."""
    source = (ROOT / file).read_text(encoding="utf-8")
    found = {getattr(node, "name", None): ast.get_source_segment(source, node) for node in ast.parse(source).body}
    if missing := [name for name in names if not found.get(name)]:
        raise ValueError(f"{file} has no {missing[0]}, which the report shows: correct its line <!-- page: code … -->")
    return "\n\n".join(f"```python\n{found[name]}\n```" for name in names)


def environment(says: dict) -> str:
    """The section on the machine, as Markdown."""
    here, (system, cpu, threads, gpu, none, absent) = machine(), says["rows"]
    rows = {
        system: platform.platform(terse=True),
        cpu: f"{here['cpu']} ({here['instructions']})",
        threads: here["threads"],
        gpu: torch.cuda.get_device_name() if torch.cuda.is_available() else none,
        "Python": platform.python_version(),
        "PyTorch": here["torch"],
    }
    for package in ("torchvision", "NumPy", "Pillow", "Matplotlib"):
        try:
            rows[package] = version(package.lower())
        except PackageNotFoundError:
            rows[package] = absent
    lines = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in rows.items()]
    return "\n".join([f"{says['environment']}\n", "| | |", "|---|---|", *lines])


def completed(text: str, language: str, figure: Path | None, words: str | None) -> str:
    """The report with what only the page shows; raises ValueError or OSError."""
    says = SAYS[language]

    def put(mark: re.Match[str]) -> str:
        if mark[1] == "code":
            file, *names = mark[2].split()
            return code(file, names)
        return environment(says) if mark[1] == "environment" else f"{says['words']}\n\n{words or says['hint']}"

    for option, given, place in (("figure", figure, OURS), ("words", words, MARK)):
        if given is not None and not any(option in found[0] for found in place.finditer(text)):
            raise ValueError(f"the report has no place for --{option}: put <!-- page: {option} --> there")
    if figure is not None:
        # Read here, for an error that names it; it is found by `embed`, in whose path an absolute one is the last word.
        open_photograph(figure)
        source = html.escape(quote(figure.resolve().as_posix()))
        image = f'<p><img src="{source}" alt="{says["alt"]}"></p>'
        text = OURS.sub(lambda _: f"{says['figure']}\n\n{image}", text)
    return MARK.sub(put, text)


def make_page(text: str, language: str, student: str, figure: Path | None = None, words: str | None = None) -> str:
    """The page of the report `text` (Markdown as GitHub's); raises ValueError or OSError, worded for the user.

    With the student's own `figure` of the U-Net in the place of ours, and their `words`, Markdown as well.
    """
    try:
        from markdown_it import MarkdownIt
        from mdit_py_plugins.anchors import anchors_plugin
    except ImportError as error:
        raise ValueError(f"{error}: pip install -r report/requirements.txt") from error
    text = completed(text, language, figure, words)
    body = MarkdownIt().enable("table").use(anchors_plugin, max_level=6).render(text)
    # What stands in code is escaped, so from here on a tag is a tag, whether from Markdown or from HTML in it.
    body = FIGURE.sub(embed, LINK_TO_FILE.sub(r"\1", COMMENT.sub("", body)))
    # Browsers break a line after any hyphen, and would part "--" from its option.
    body = CODE.sub(lambda code: OPTION.sub(r"<span>\g<0></span>", code[0]), body)
    title = TITLE.search(body)
    if title is None:
        raise ValueError("the report has no title: begin it with a line '# …'")
    body = f'{body[: title.end()]}\n<p class="student">{html.escape(student)}</p>{body[title.end() :]}'
    return PAGE.format(language=language, title=re.sub(r"<.*?>", "", title[1]), style=STYLE, body=body)


def check_name(option: str, value: str) -> None:
    """Raises ValueError if `value` cannot be a part of a file's name on every system."""
    if not re.search(r"\w", value) or not value.isprintable() or re.search(r'^[\s.-]|[<>:"/\\|?*]|\s$', value):
        raise ValueError(
            f'{option} {value!r} cannot be in the name of a file: use letters and digits, no / \\ : * ? " < > |'
        )


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8: save it as that") from None


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Pack the code as a zip, and the report as one page.")
    parser.add_argument("--id", required=True, help="your student number")
    parser.add_argument("--name", required=True, help="your name")
    parser.add_argument("--language", choices=TEXTS, default="en", help="of the report (default: en)")
    figure_help = "your own figure of infer.jpg, made with infer_unet.py --figure, in the place of ours of car.jpg"
    parser.add_argument("--figure", type=Path, metavar="FILE", help=figure_help)
    parser.add_argument("--words", type=Path, metavar="FILE", help="text (Markdown) for the section of your own words")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for both (default: the current one)")
    args = parser.parse_args()
    name = f"{args.id}-{args.name}-CVHW4"
    report = ROOT / "report" / TEXTS[args.language]
    archive, page = args.out / f"{name}.zip", args.out / f"{name}.html"

    with told():
        check_name("--id", args.id)
        check_name("--name", args.name)
        if not args.out.is_dir():
            raise ValueError(f"there is no folder {args.out}: make it first, or choose another --out")
        words = args.words and read_text(args.words)
        text = make_page(read_text(report), args.language, f"{args.id} {args.name}", args.figure, words)
        files = code_files()
        if Path("model.pth") not in files:
            raise ValueError(f"there is no model.pth in {ROOT}: put the U-Net's weights there")
        with write_whole(page) as page_part, write_whole(archive) as archive_part:  # both, or none
            page_part.write_text(text, encoding="utf-8")
            with zipfile.ZipFile(archive_part, "w") as packed:
                for path in files:
                    inside = f"{name}/{path.as_posix()}"
                    entry = zipfile.ZipInfo.from_file(ROOT / path, inside, strict_timestamps=False)
                    packed.writestr(entry, content(path), zipfile.ZIP_DEFLATED)
    print(f"{archive}: {len(files)} files, {archive.stat().st_size / 1e6:.1f} MB")
    figures, size = text.count('src="data:'), page.stat().st_size
    print(f"{page}: report/{report.name} with {figures} figures, {size / 1e6:.1f} MB")
    missing = []
    if args.figure is None:
        missing.append(
            "your own figure of infer.jpg (--figure FILE, which python infer_unet.py infer.jpg out.png --figure FILE "
            "makes; until then the page shows the drawn car.jpg)"
        )
    if not words:
        missing.append("your own words (--words FILE)")
    if missing:
        print(f"still missing: {', '.join(missing)}")


if __name__ == "__main__":
    main()
