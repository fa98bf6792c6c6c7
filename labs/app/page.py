"""The page of labs.app: three tabs made with Gradio around the answers of answers.py.

To import it takes Gradio (labs/requirements.txt) and several seconds.
"""

import os
import socket
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

from infer_unet import DOUBTS
from labs.app.answers import (
    Found,
    digit_of_pad,
    digit_of_photo,
    find_car,
    in_both,
    mask_file,
    pet_html,
    read_digit,
    tell_apart,
)
from labs.handwriting import SCRIPT as HANDWRITING
from labs.handwriting import examples, read_limits

FILES = tempfile.TemporaryDirectory(prefix="labs-app-", ignore_cleanup_errors=True)
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": FILES.name}
for proxy in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[proxy]  # at its start Gradio asks the page for an answer, and nobody else for anything
import gradio as gr  # noqa: E402  (after its environment)
from starlette.middleware import Middleware  # noqa: E402  (comes with Gradio)

from labs.app import guard  # noqa: E402

LARGEST_UPLOAD, MOST_PICTURES = "20mb", 20
KEPT, SWEPT = 3000, 600  # seconds that files and scores are kept, and between two looks at their age
WAITING = 30  # requests in the queue
VISITORS = 50  # whose last photograph's scores are kept, 5 MB each
CSS, NOTE, PAD, PAD_SCRIPT = (
    Path(__file__).with_name(name) for name in ("page.css", "note.html", "pad.html", "pad.js")
)
# Gradio's own themes ask Google for their fonts.
THEME = gr.themes.Base(font=["system-ui", "Noto Sans CJK SC", "sans-serif"], font_mono=["monospace"])

LANGUAGES = ("English", "中文")
TEXTS = {  # of a component: its property, and what it is in each language
    "title": ("value", "# Try the networks", "# 试试这些网络"),
    "digit_tab": ("label", "A digit", "数字"),
    "accordion": ("label", "C1's six maps of it in LeNet-5", "LeNet-5 的 C1 对它的六张特征图"),
    "digit_photo": ("label", "or a photograph of a digit", "或者一张数字的照片"),
    "car_tab": ("label", "A car", "汽车"),
    "car_photo": ("label", "A photograph", "照片"),
    "threshold": ("label", "Least probability that is car", "判为汽车的最低概率"),
    "mask": ("value", "Download the mask", "下载掩码"),
    "car": ("label", "The car", "找到的汽车"),
    "car_note": (
        "value",
        "The network has learned one thing: one car, whole, in Carvana's bright hall. It finds a car in many a picture "
        "that has none.",
        "这个网络只学过一件事：Carvana 明亮展厅里的一辆完整的汽车。在许多没有车的图片里，它也会找出车来。",
    ),
    "pets_tab": ("label", "A cat or a dog", "猫还是狗"),
    "pet_photos": ("label", "Photographs", "照片"),
    "pets_note": (
        "value",
        "The network knows cats and dogs, and nothing else: it answers one or the other to every picture.",
        "这个网络只知道猫和狗：无论什么图片，它都回答其中之一。",
    ),
}
DOUBTS_ZH = {
    "share": "它占画面的 {:.1%}，而 Carvana 的汽车占 9% 到 41%",
    "edge": "它占了画面边缘的 {:.0%}，像是没有拍全的车",
    "outline": "它参差破碎，轮廓长达其外框的 {:.1f} 倍",
}
# Saves the file that the address `data:…` holds.
SAVE = """(data) => {
  if (data) Object.assign(document.createElement("a"), { href: data, download: "mask.png" }).click();
}"""
BEGUN = """() => {
  new MutationObserver(() => {  // Gradio's examples are buttons without a name
    for (const button of document.querySelectorAll(".gallery-item:not([aria-label])"))
      button.setAttribute("aria-label", `Example ${[...button.parentNode.children].indexOf(button) + 1}`);
  }).observe(document.body, { childList: true, subtree: true });
  return navigator.language.startsWith("zh") ? "中文" : "English";
}"""
SPOKEN = """(language) => {
  document.documentElement.lang = language === "English" ? "en" : "zh-CN";
  return language;
}"""
ONE_AT_A_TIME = {"concurrency_id": "networks", "concurrency_limit": 1, "api_visibility": "private"}

Parts = dict[str, Any]  # components by their names in TEXTS
Networks = dict[str, nn.Module]


def said(name: str) -> dict[str, str]:
    """The property of a component that holds words, as the page begins with it."""
    return {TEXTS[name][0]: TEXTS[name][1]}


def in_language(language: str, *texts: str) -> str:
    return texts[LANGUAGES.index(language)]


def failed(photo: str, error: ValueError) -> gr.Error:
    """A message in the page, to be raised: with the picture's name, not the place where it lies for the hour."""
    said = escape(str(error).replace(photo, Path(photo).name))
    return gr.Error(in_both(said, f"无法处理这张图片：{said}"), print_exception=False)


def digit_tab(networks: Networks) -> Parts:
    digits = {name: networks[name] for name in ("lenet", "lenet_original")}
    limits = read_limits()

    def read_drawing(drawing: str | None) -> tuple[str, str]:
        return read_digit(digits, limits, digit_of_pad(drawing))

    def read_photo(photo: str | None, drawing: str | None) -> tuple[str, str]:
        if photo is None:  # taken away again
            return read_drawing(drawing)
        try:
            return read_digit(digits, limits, digit_of_photo(Path(photo)))
        except ValueError as error:
            raise failed(photo, error) from None

    handwriting, around = (script.read_text(encoding="utf-8") for script in (HANDWRITING, PAD_SCRIPT))
    with gr.Tab(**said("digit_tab")) as tab, gr.Row():
        with gr.Column(scale=2, min_width=280):
            pad = gr.HTML(
                html_template=PAD.read_text(encoding="utf-8"),
                js_on_load=f'{handwriting}\nconst DIGITS = "{examples()}";\n{around}',
                elem_id="pad",
            )
        with gr.Column(scale=3, min_width=320):
            reading, maps = gr.HTML(), gr.HTML(render=False)
            with gr.Accordion(open=False, **said("accordion")) as accordion:
                maps.render()
            photo = gr.File(file_types=["image"], height=140, **said("digit_photo"))
            gr.HTML(NOTE.read_text(encoding="utf-8"))
    pad.input(read_drawing, pad, [reading, maps], trigger_mode="always_last", show_progress="hidden", **ONE_AT_A_TIME)
    photo.change(read_photo, [photo, pad], [reading, maps], **ONE_AT_A_TIME)
    return {"digit_tab": tab, "accordion": accordion, "digit_photo": photo}


def car_tab(networks: Networks, language: gr.Radio, cars: list[str]) -> Parts:
    def find(photo: str | None, threshold: float, language: str) -> tuple:
        try:
            found = photo and find_car(networks["unet"], Path(photo))
        except ValueError as error:
            raise failed(photo, error) from None
        return found, *draw(found, threshold, language)

    def draw(found: Found | None, threshold: float, language: str) -> tuple:
        if found is None:
            return None, ""
        shown, share, doubt = found.at(threshold)
        milliseconds = f"{found.milliseconds:.0f}"
        line = in_language(
            language,
            f"Car on **{share:.1%}** of the picture; found in {milliseconds} ms",
            f"汽车占画面的 **{share:.1%}**，用时 {milliseconds} 毫秒",
        )
        if share == 0:
            line += in_language(language, "\n\n**No car found**", "\n\n**没有找到汽车**")
        elif doubt:
            name, value = doubt
            because = in_language(language, DOUBTS[name], DOUBTS_ZH[name]).format(value)
            line += in_language(
                language, f"\n\n**This can be no whole car**: {because}", f"\n\n**这不可能是一辆完整的汽车**：{because}"
            )
        return shown, line

    def write(found: Found | None, threshold: float) -> str:
        return mask_file(found, threshold) if found else ""

    with gr.Tab(**said("car_tab")) as tab, gr.Row():
        with gr.Column(scale=1, min_width=280):
            photo = gr.File(file_types=["image"], height=140, **said("car_photo"))
            examples = gr.Dataset(
                components=[gr.Image(render=False)], samples=[[car] for car in cars], type="index", show_label=False
            )
            threshold = gr.Slider(0.01, 0.99, 0.5, step=0.01, **said("threshold"))
            mask = gr.Button(**said("mask"))
            note = gr.Markdown(**said("car_note"))
        with gr.Column(scale=2, min_width=320):
            car = gr.Image(format="jpeg", interactive=False, buttons=["fullscreen"], **said("car"))
            line = gr.Markdown()
            file = gr.Textbox(visible="hidden")
    found = gr.State(time_to_live=KEPT)
    shown = [car, line]
    examples.click(lambda index: cars[index], examples, photo, queue=False, api_visibility="private")
    asked = photo.change(find, [photo, threshold, language], [found, *shown], **ONE_AT_A_TIME)
    asked.failure(lambda: (None, None, ""), None, [found, *shown], queue=False, api_visibility="private")
    again = [threshold.input, language.change]
    gr.on(again, draw, [found, threshold, language], shown, trigger_mode="always_last", **ONE_AT_A_TIME)
    mask.click(write, [found, threshold], file, **ONE_AT_A_TIME).success(None, file, js=SAVE)
    return {"car_tab": tab, "car_photo": photo, "threshold": threshold, "mask": mask, "car": car, "car_note": note}


def pets_tab(networks: Networks, language: gr.Radio, pets: list[str]) -> Parts:
    def sort(photos: list[str] | None, language: str) -> str:
        if len(photos or []) > MOST_PICTURES:
            limit = f"At most {MOST_PICTURES} pictures at a time", f"每次最多 {MOST_PICTURES} 张图片"
            raise gr.Error(in_language(language, *limit), print_exception=False)
        answers = []
        for photo in map(Path, photos or []):
            try:
                shown, shares = tell_apart(networks["cats_dogs"], photo)
            except ValueError as error:
                gr.Warning(failed(str(photo), error).message)  # the others are answered
            else:
                words = in_language(language, "cat dog", "猫 狗").split()
                answers.append(pet_html(photo.name, shown, dict(zip(words, shares, strict=True))))
        return f'<div class="pets">{"".join(answers)}</div>'

    with gr.Tab(**said("pets_tab")) as tab, gr.Row():
        with gr.Column(scale=1, min_width=280):
            photos = gr.File(file_count="multiple", file_types=["image"], height=140, **said("pet_photos"))
            examples = gr.Dataset(
                components=[gr.Image(render=False)], samples=[[pet] for pet in pets], type="index", show_label=False
            )
            note = gr.Markdown(**said("pets_note"))
        with gr.Column(scale=2, min_width=320):
            answers = gr.HTML()
    examples.click(lambda index: [pets[index]], examples, photos, queue=False, api_visibility="private")
    gr.on([photos.change, language.change], sort, [photos, language], answers, **ONE_AT_A_TIME)
    return {"pets_tab": tab, "pet_photos": photos, "pets_note": note}


def build(networks: Networks, cars: list[str], pets: list[str]) -> gr.Blocks:
    """The page; `networks` are those of `load_networks`, `cars` and `pets` the pictures to begin with."""
    with gr.Blocks(title="Try the networks", analytics_enabled=False, delete_cache=(SWEPT, KEPT)) as page:
        with gr.Row(elem_id="head"):
            parts = {"title": gr.Markdown(**said("title"))}
            language = gr.Radio(
                LANGUAGES, value=LANGUAGES[0], show_label=False, container=False, scale=0, min_width=170
            )
        parts |= digit_tab(networks) | car_tab(networks, language, cars) | pets_tab(networks, language, pets)

        def speak(language: str) -> list[dict]:
            return [gr.update(**{TEXTS[name][0]: in_language(language, *TEXTS[name][1:])}) for name in parts]

        language.change(
            speak, language, [*parts.values()], js=SPOKEN, show_progress="hidden", queue=False, api_visibility="private"
        )
        page.load(None, None, language, js=BEGUN)
    return page.queue(max_size=WAITING, api_open=False)


def serve(page: gr.Blocks, host: str, port: int) -> None:
    """Begins to answer, in threads of its own."""
    names = {"localhost", host.lower(), socket.gethostname().lower()}
    page.launch(
        app_kwargs={"middleware": [Middleware(guard.Guard, names=names, folder=Path(FILES.name))]},
        run_history=False,
        state_session_capacity=VISITORS,
        server_name=f"[{host}]" if ":" in host else host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_threads=1,  # each would keep the memory of its largest picture
        show_error=True,
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        footer_links=[],
        theme=THEME,
        css_paths=CSS,
    )
