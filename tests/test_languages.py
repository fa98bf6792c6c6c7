"""The English and the Chinese texts agree one to one: structure, code, numbers, figures and links."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHINESE_REPORT = ROOT / "report" / "README.zh-CN.md"
CHINESE_LABS = sorted((ROOT / "labs").rglob("README.zh-CN.md"))

FENCED = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
MARKER = re.compile(r"<!-- (/|\S+\.(?:json|csv) [^>]+?) -->")
HEADING = re.compile(r"^(#{1,6}) +(.+?)(?: +#+)?$", re.MULTILINE)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]*)\)")
COMMANDS = ("python", "pip", "torchrun", ".venv")


written = pytest.mark.skipif(not CHINESE_REPORT.exists(), reason="report/README.zh-CN.md is not written yet")

both_languages = pytest.mark.parametrize(
    ("english", "chinese"),
    [
        pytest.param(ROOT / "README.md", ROOT / "README.zh-CN.md", id="README"),
        pytest.param(ROOT / "report" / "README.md", CHINESE_REPORT, id="report", marks=written),
        pytest.param(ROOT / "report" / "trials.md", ROOT / "report" / "trials.zh-CN.md", id="trials"),
        *[pytest.param(path.with_name("README.md"), path, id=f"labs, {path.parent.name}") for path in CHINESE_LABS],
    ],
)
each_text = pytest.mark.parametrize(
    "path",
    [
        pytest.param(ROOT / "README.md", id="README"),
        pytest.param(ROOT / "README.zh-CN.md", id="README, Chinese"),
        pytest.param(ROOT / "report" / "README.md", id="report"),
        pytest.param(CHINESE_REPORT, id="report, Chinese", marks=written),
        pytest.param(ROOT / "report" / "trials.md", id="trials"),
        pytest.param(ROOT / "report" / "trials.zh-CN.md", id="trials, Chinese"),
        *[pytest.param(path, id=f"labs, {path.parent.name}") for path in sorted((ROOT / "labs").rglob("README.md"))],
        *[pytest.param(path, id=f"labs, {path.parent.name}, Chinese") for path in CHINESE_LABS],
    ],
)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    """The text without its fenced code and its comments."""
    return COMMENT.sub("", FENCED.sub("", read(path)))


def fenced_code(path: Path) -> list[str]:
    return [block[0] for block in FENCED.finditer(read(path))]


def commands(path: Path) -> Counter[str]:
    """The inline code that somebody would type; a line break in the text is a space."""
    spans = (" ".join(span[2].split()) for span in CODE_SPAN.finditer(prose(path)))
    return Counter(span for span in spans if span.startswith(COMMANDS))


def headings(path: Path) -> list[tuple[str, str]]:
    """Level, as "##", and text of every heading."""
    return HEADING.findall(prose(path))


def levels(path: Path) -> list[str]:
    return [level for level, _ in headings(path)]


def slug(heading: str) -> str:
    """The name that GitHub gives to a heading: Chinese is kept, punctuation of either width is not."""
    shown = LINK.sub(r"\2", heading)
    return re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")


def slugs(path: Path) -> set[str]:
    """The names of all headings; the second of a name is `name-1`."""
    seen: Counter[str] = Counter()
    names = set()
    for _, heading in headings(path):
        name = slug(heading)
        names.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def markers(path: Path) -> list[str]:
    """What is said of the numbers' sources, and where each of them ends."""
    return MARKER.findall(read(path))


def column_counts(path: Path) -> list[int]:
    """The number of columns of each table, in order."""
    return [line.count("|") - 1 for line in re.findall(r"^\|[ :]*-[-:| ]*\|$", prose(path), re.MULTILINE)]


def row_counts(path: Path) -> list[int]:
    """The number of lines of each table, in order."""
    return [table.count("\n") for table in re.findall(r"(?:^\|.*\n)+", prose(path), re.MULTILINE)]


def targets(path: Path, images: bool = False) -> list[str]:
    """Where the links of a text lead to, or where its images lie; no link stands in code."""
    text = CODE_SPAN.sub("code", prose(path))
    return [target for mark, _, target in LINK.findall(text) if bool(mark) == images]


def file_targets(path: Path) -> Iterator[tuple[Path, str]]:
    """File and in-page name of every link or image that stays in the repository."""
    for target in targets(path) + targets(path, images=True):
        if not re.match(r"[a-z][a-z0-9+.-]*:", target):
            file, _, name = unquote(target).partition("#")
            yield (path.parent / file).resolve() if file else path, name


@both_languages
def test_the_headings_have_the_same_levels_in_the_same_order(english, chinese):
    assert levels(chinese) == levels(english)


@both_languages
def test_the_code_blocks_are_identical(english, chinese):
    assert fenced_code(chinese) == fenced_code(english)


@both_languages
def test_the_commands_within_sentences_are_identical(english, chinese):
    assert commands(chinese) == commands(english)


@both_languages
def test_the_numbers_have_the_same_sources_in_the_same_order(english, chinese):
    assert markers(chinese) == markers(english)


@both_languages
def test_the_tables_have_the_same_shapes(english, chinese):
    assert column_counts(chinese) == column_counts(english)
    assert row_counts(chinese) == row_counts(english)


@both_languages
def test_the_images_are_the_same(english, chinese):
    assert targets(chinese, images=True) == targets(english, images=True)


@both_languages
def test_each_language_links_to_the_other(english, chinese):
    assert chinese.name in targets(english)
    assert english.name in targets(chinese)


@both_languages
def test_the_chinese_text_leads_to_chinese_texts(english, chinese):
    """Else a reader would fall out of the language halfway; a folder shows its README.md."""
    leads_to = {file / "README.md" if file.is_dir() else file for file, _ in file_targets(chinese)} - {english}
    assert not [str(file) for file in leads_to if file.with_suffix(".zh-CN.md").exists()]


@each_text
def test_links_into_a_page_lead_to_headings(path):
    into = [(file, name) for file, name in file_targets(path) if name and file.suffix == ".md" and file.exists()]
    assert not [f"{file}#{name}" for file, name in into if name not in slugs(file)]


@each_text
def test_links_to_files_lead_to_files(path):
    files = {file for file, _ in file_targets(path) if not file.is_relative_to(ROOT / "runs")}
    assert not [str(file) for file in files if not file.exists()]


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("Speed, and why there is no DataLoader", "speed-and-why-there-is-no-dataloader"),
        ("What the U-Net's first level sees", "what-the-u-nets-first-level-sees"),
        ("LeNet-5：同名的两个网络", "lenet-5同名的两个网络"),
        ("为什么不用 `DataLoader`？", "为什么不用-dataloader"),
        ("[The report](report/README.md)", "the-report"),
    ],
)
def test_a_headings_name_is_githubs(heading, name):
    assert slug(heading) == name
