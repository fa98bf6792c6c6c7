"""Packs what is handed in: the code as a zip, and the report as one page that opens in any browser, offline too.

    pip install -r report/requirements.txt
    python -m report.handin --id 3210100000 --name 张三
    python -m report.handin --id 3210100000 --name 张三 --language zh-CN --out handed_in

The second prints

    3210100000-张三-CVHW4.zip: ... files, 5.0 MB
    3210100000-张三-CVHW4.html: report/README.md with ... figures, 0.3 MB

The zip has one folder, with the code, the report and `model.pth`; no data, runs or history. The page has its figures in
it, and asks the network for nothing; to hand in a PDF, print it.
"""

import argparse
import base64
import fnmatch
import html
import mimetypes
import os
import re
import zipfile
from pathlib import Path
from urllib.parse import unquote

from training import ROOT, command, told, write_whole

TEXTS = {"en": "README.md", "zh-CN": "README.zh-CN.md"}
# As in .gitignore, whose lines come first; a plain copy may lack it, and in a clone git keeps MNIST.
LEFT_OUT = ["__pycache__", "runs", "data/*", "!data/README.md", ".*", "!.gitignore", "*-CVHW4.zip", "*-CVHW4.html"]

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
FIGURE = re.compile(r'(<img\b[^>]*?\bsrc=")([^"]*)')
LINK_TO_FILE = re.compile(r'<a\b[^>]*?\bhref="(?!#|https?://)[^"]*"[^>]*>(.*?)</a>', re.DOTALL)
CODE = re.compile(r"(?<!<pre><code>)(?<=<code>)[^<]+(?=</code>)")
OPTION = re.compile(r"(?<!\S)-\S+")
TITLE = re.compile(r"<h1\b[^>]*>(.*?)</h1>", re.DOTALL)

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
pre code { padding: 0; background: none; }
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


def embed(figure: re.Match[str]) -> str:
    """An image's tag down to its address, with the file itself for the address; raises OSError if there is none."""
    path = ROOT / "report" / unquote(html.unescape(figure[2]))
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"{figure[1]}data:{mimetypes.guess_type(path.name)[0]};base64,{data}"


def make_page(text: str, language: str, student: str) -> str:
    """The page of the report `text` (Markdown as GitHub's); raises ValueError or OSError, worded for the user."""
    try:
        from markdown_it import MarkdownIt
        from mdit_py_plugins.anchors import anchors_plugin
    except ImportError as error:
        raise ValueError(f"{error}: pip install -r report/requirements.txt") from error
    body = MarkdownIt().enable("table").use(anchors_plugin, max_level=6).render(text)
    # What stands in code is escaped, so from here on a tag is a tag, whether from Markdown or from HTML in it.
    body = LINK_TO_FILE.sub(r"\1", COMMENT.sub("", body))
    body = FIGURE.sub(embed, body.replace("<details>", "<details open>"))  # else it would be missing on paper
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


def read_report(path: Path) -> str:
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
        text = make_page(read_report(report), args.language, f"{args.id} {args.name}")
        files = code_files()
        if Path("model.pth") not in files:
            raise ValueError(f"there is no model.pth in {ROOT}: put the U-Net's weights there")
        with write_whole(page) as page_part, write_whole(archive) as archive_part:  # both, or none
            page_part.write_text(text, encoding="utf-8")
            with zipfile.ZipFile(archive_part, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed:
                for path in files:
                    packed.write(ROOT / path, f"{name}/{path.as_posix()}")
    print(f"{archive}: {len(files)} files, {archive.stat().st_size / 1e6:.1f} MB")
    figures, size = text.count('src="data:'), page.stat().st_size
    print(f"{page}: report/{report.name} with {figures} figures, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
