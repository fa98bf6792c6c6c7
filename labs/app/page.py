"""The page of labs.app: three tabs made with Gradio around the answers of answers.py.

To import it takes Gradio (labs/requirements.txt) and several seconds.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from labs.app.answers import Found, find_car, ink_of_pad, ink_of_photo, read_digit, tell_apart

FILES = tempfile.TemporaryDirectory(prefix="labs-app-", ignore_cleanup_errors=True)
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": FILES.name}
import gradio as gr  # noqa: E402  (after its environment)

LARGEST_UPLOAD, MOST_PICTURES = "20mb", 20
KEPT, SWEPT = 3000, 600  # seconds that files and scores are kept, and between two looks at their age
WAITING = 30  # requests in the queue
CSS, PAD = (Path(__file__).with_name(name) for name in ("page.css", "pad.js"))
# Gradio's own themes ask Google for their fonts.
THEME = gr.themes.Base(font=["system-ui", "Noto Sans CJK SC", "sans-serif"], font_mono=["monospace"])

LANGUAGES = ("English", "中文")
TEXTS = {  # of a component: its property, and what it is in each language
    "title": ("value", "# Try the networks", "# 试试这些网络"),
    "digit_tab": ("label", "A digit", "数字"),
    "clear": ("value", "Clear", "清除"),
    "accordion": ("label", "C1's six maps of it in LeNet-5", "LeNet-5 的 C1 对它的六张特征图"),
    "digit_photo": ("label", "or a photograph of a digit", "或者一张数字的照片"),
    "car_tab": ("label", "A car", "汽车"),
    "car_photo": ("label", "A photograph", "照片"),
    "threshold": ("label", "Least probability that is car", "判为汽车的最低概率"),
    "mask": ("label", "Download the mask", "下载掩码"),
    "car": ("label", "The car", "找到的汽车"),
    "pets_tab": ("label", "A cat or a dog", "猫还是狗"),
    "pet_photos": ("label", "Photographs", "照片"),
    "pets": ("label", "Cats and dogs", "猫与狗"),
}
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
    return gr.Error(str(error).replace(photo, Path(photo).name), print_exception=False)


def digit_tab(networks: Networks) -> Parts:
    digits = {"LeNet-5": networks["lenet"], "1998": networks["lenet_original"]}

    def read_drawing(drawing: str | None) -> tuple[str, str]:
        return read_digit(digits, ink_of_pad(drawing))

    def read_photo(photo: str | None) -> tuple[str, str]:
        try:
            return read_digit(digits, photo and ink_of_photo(Path(photo)))
        except ValueError as error:
            raise failed(photo, error) from None

    with gr.Tab(**said("digit_tab")) as tab, gr.Row():
        with gr.Column(scale=2, min_width=280):
            canvas = '<canvas width="280" height="280"></canvas>'
            pad = gr.HTML(html_template=canvas, js_on_load=PAD.read_text(encoding="utf-8"), elem_id="pad")
            clear = gr.Button(**said("clear"))
        with gr.Column(scale=3, min_width=320):
            reading, maps = (gr.HTML(html, render=False) for html in read_digit(digits, None))
            reading.render()
            with gr.Accordion(open=False, **said("accordion")) as accordion:
                maps.render()
            photo = gr.File(file_types=["image"], height=140, **said("digit_photo"))
    pad.input(read_drawing, pad, [reading, maps], trigger_mode="always_last", show_progress="hidden", **ONE_AT_A_TIME)
    clear.click(None, js="() => { document.querySelector('#pad canvas').dispatchEvent(new Event('clear')); }")
    photo.change(read_photo, photo, [reading, maps], **ONE_AT_A_TIME)
    return {"digit_tab": tab, "clear": clear, "accordion": accordion, "digit_photo": photo}


def car_tab(networks: Networks, language: gr.Radio, cars: list[str]) -> Parts:
    def find(photo: str | None, threshold: float, language: str) -> tuple:
        try:
            found = photo and find_car(networks["unet"], Path(photo))
        except ValueError as error:
            raise failed(photo, error) from None
        return found, *draw(found, threshold, language)

    def draw(found: Found | None, threshold: float, language: str) -> tuple:
        if found is None:
            return None, None, ""
        shown, mask = found.at(threshold)
        file = Path(FILES.name, "mask.png")  # Gradio keeps a copy of it, for the hour
        Image.fromarray(mask * 255).save(file, compress_level=1)
        share, took = f"**{mask.mean():.1%}**", f"{found.milliseconds:.0f}"
        line = in_language(
            language, f"Car on {share} of the picture; found in {took} ms", f"汽车占画面的 {share}，用时 {took} 毫秒"
        )
        return shown, str(file), line

    with gr.Tab(**said("car_tab")) as tab, gr.Row():
        with gr.Column(scale=1, min_width=280):
            photo = gr.File(file_types=["image"], height=140, **said("car_photo"))
            examples = gr.Dataset(
                components=[gr.Image(render=False)], samples=[[car] for car in cars], type="index", show_label=False
            )
            threshold = gr.Slider(0.01, 0.99, 0.5, step=0.01, **said("threshold"))
            mask = gr.DownloadButton(**said("mask"))
        with gr.Column(scale=2, min_width=320):
            car = gr.Image(format="jpeg", interactive=False, buttons=["fullscreen"], **said("car"))
            line = gr.Markdown()
    found = gr.State(time_to_live=KEPT)
    shown = [car, mask, line]
    examples.click(lambda index: cars[index], examples, photo, queue=False, api_visibility="private")
    asked = photo.change(find, [photo, threshold, language], [found, *shown], **ONE_AT_A_TIME)
    asked.failure(lambda: (None, None, None, ""), None, [found, *shown], queue=False, api_visibility="private")
    threshold.input(draw, [found, threshold, language], shown, trigger_mode="always_last", **ONE_AT_A_TIME)
    return {"car_tab": tab, "car_photo": photo, "threshold": threshold, "mask": mask, "car": car}


def pets_tab(networks: Networks, language: gr.Radio) -> Parts:
    def sort(photos: list[str] | None, language: str) -> list[tuple[Image.Image, str]]:
        if len(photos or []) > MOST_PICTURES:
            limit = f"At most {MOST_PICTURES} pictures at a time", f"每次最多 {MOST_PICTURES} 张图片"
            raise gr.Error(in_language(language, *limit), print_exception=False)
        answers = []
        for photo in photos or []:
            try:
                shown, (cat, dog) = tell_apart(networks["cats_dogs"], Path(photo))
            except ValueError as error:
                gr.Warning(failed(photo, error).message)  # the others are answered
            else:
                answers.append(
                    (shown, in_language(language, f"cat {cat:.1%}, dog {dog:.1%}", f"猫 {cat:.1%}，狗 {dog:.1%}"))
                )
        return answers

    with gr.Tab(**said("pets_tab")) as tab:
        photos = gr.File(file_count="multiple", file_types=["image"], height=140, **said("pet_photos"))
        pets = gr.Gallery(
            columns=4, object_fit="contain", buttons=[], interactive=False, elem_id="pets", **said("pets")
        )
    photos.change(sort, [photos, language], pets, **ONE_AT_A_TIME)
    return {"pets_tab": tab, "pet_photos": photos, "pets": pets}


def build(networks: Networks, cars: list[str]) -> gr.Blocks:
    """The page; `networks` are those of `load_networks`, `cars` the photographs to begin with."""
    with gr.Blocks(title="Try the networks", analytics_enabled=False, delete_cache=(SWEPT, KEPT)) as page:
        with gr.Row(elem_id="head"):
            parts = {"title": gr.Markdown(**said("title"))}
            language = gr.Radio(
                LANGUAGES, value=LANGUAGES[0], show_label=False, container=False, scale=0, min_width=190
            )
        parts |= digit_tab(networks) | car_tab(networks, language, cars) | pets_tab(networks, language)

        def speak(language: str) -> list[dict]:
            return [gr.update(**{TEXTS[name][0]: in_language(language, *TEXTS[name][1:])}) for name in parts]

        language.change(
            speak, language, [*parts.values()], show_progress="hidden", queue=False, api_visibility="private"
        )
    return page.queue(max_size=WAITING)


def serve(page: gr.Blocks, host: str, port: int) -> None:
    """Begins to answer, in threads of its own."""
    page.launch(
        server_name=host,
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
