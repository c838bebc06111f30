"""Open a page in the browser for trying the exports of all tasks (extra [demo]).

    python -m tasks demo                                  # the exports in saved_models
    python -m tasks demo --models other_models --port 8000
    python -m tasks demo --server http://localhost:8501   # a running TF Serving predicts

The page has a tab for each task with an export, and every tab opens with an example and the
model's answer to it. Further models of a task, in folders such as `translation-en-fr`, are a choice
in its tab. All data stays on this machine: no telemetry, no external fonts; `--host 0.0.0.0` opens
the page to the network. With `--server`, labels and limits are still read from `--models`, which
must be the folder that the server serves.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from common import plots
from common.commands import cli
from common.errors import ExportError, InputError, require
from common.progress import progress
from common.serving.served import Served, connect, load_export
from common.serving.targets import TargetName
from common.serving.versions import MODELS, SHIPPED, card_scores, task_folder, versions
from tasks.__main__ import METRICS
from tasks.demo import views
from tasks.demo.answers import ANSWER, Answer
from tasks.demo.samples import SAMPLES, Sample

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
if TYPE_CHECKING:
    import gradio as gr
else:
    gr = require("gradio", "demo")

TITLE = "Sequence Suite"
CSS = Path(__file__).with_name("page.css")
# Moves the cursor of a picture with the player next to it, and scrolls to it.
SCRIPT = """<script>
function follow(player) {
  const timed = player.closest(".timed");
  if (!timed) return;
  const plot = timed.querySelector("[data-seconds]"), box = timed.querySelector(".scroll");
  const part = Math.min(1, player.currentTime / plot.dataset.seconds);
  plot.querySelector(".cursor").style.left = `${100 * part}%`;
  if (box) box.scrollLeft = part * box.scrollWidth - box.clientWidth / 2;
  if (!player.paused) requestAnimationFrame(() => follow(player));
}
</script>"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Flags of `demo`."""

    models: Path = MODELS
    """folder of the exports; the newest version of each task is loaded"""
    server: str | None = None
    """call this TF Serving over REST, such as http://localhost:8501, instead of loading exports"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 for the whole network"""
    port: int = 7860
    """port to listen on"""

    def __post_init__(self) -> None:
        """Validate flags that the type system cannot express."""
        if not 1 <= self.port <= 65_535:
            raise InputError(f"--port must be 1 to 65535, got {self.port}")
        if self.server is not None and not self.server.startswith(("http://", "https://")):
            raise InputError(f"--server must look like http://localhost:8501, got {self.server!r}")


# --- The models -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model on the page.

    Attributes:
      name: that of its folder: a task, or a task and a name, such as `translation-en-fr`.
      model: the export.
      samples: the examples of its tab.
      first: the answer to the first example, if there is one.
    """

    name: str
    model: Served
    samples: Sequence[Sample]
    first: Answer | None

    @property
    def task(self) -> str:
        """The task of the model."""
        return self.name.partition("-")[0]


def find_models(models: Path) -> list[tuple[str, Path]]:
    """Return the name and the folder of each model that has a version, by task.

    Raises:
      InputError: there is none.
    """
    folders = [models, SHIPPED] if models == MODELS else [models]
    names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    found = []
    for task in ANSWER:
        further = sorted(name for name in names if name.startswith(f"{task}-"))
        for name in (task, *further):
            folder = task_folder(name, models)
            is_target = name.partition("-")[2] in get_args(TargetName)
            if versions(folder) and not is_target:
                found.append((name, folder))
    if not found:
        raise InputError(
            f"{models} holds no export. Make some: python -m tasks train --quick --output {models}"
        )
    return found


def load(flags: Demo, folder: Path) -> Iterator[Entry]:
    """Load the newest version of each model, and call it with its first example.

    Args:
      flags: of the command.
      folder: for the examples and other files that the page shows.

    Raises:
      InputError: there is no model.
      ExportError: the server does not respond.
    """
    found = find_models(flags.models)
    cli.say(f"Loading {len(found)} models, with an example each")
    for name, versioned in progress(found, total=len(found), unit="models", seconds=0):
        model = connect(flags.server, versioned) if flags.server else load_export(versioned)
        task, samples, first = name.partition("-")[0], [], None
        try:
            samples = SAMPLES[task](model, folder)
            if samples:
                first = ANSWER[task](model, folder, *samples[0].inputs)
        except InputError as error:  # what makes the examples is not installed, or not one fits
            cli.say(f"{name}: no example: {error}")
        yield Entry(name, model, samples, first)


def describe(entry: Entry) -> str:
    """Return what stands above a tab, as Markdown: the model, its score, and its limits."""
    settings, path = entry.model.settings, entry.model.path
    trained = settings["training_data"]
    data = trained["dataset"] or Path(trained["data"]).name
    summary = f"{ANSWER[entry.task].__doc__} *Version {path.name}, trained on {data}"
    card, metric = path / "model_card.md", METRICS[entry.task]
    scores = card_scores(card) if card.is_file() else {}
    if metric in scores:
        examples = f"{int(scores['examples']):,} examples"
        summary += f"; {scores['split']} {metric} {scores[metric]} ({examples})"
    limits = settings.get("limits")  # not in earlier exports
    known = f"\n\n**What it knows, and where it fails.** {limits}" if limits else ""
    return f"{summary}.*{known}"


def choice(entry: Entry) -> str:
    """Return how a model is named among those of its task."""
    settings = entry.model.settings
    if "languages" in settings:
        return " to ".join(settings["languages"])
    return settings["training_data"]["dataset"] or entry.name


# --- The tabs -------------------------------------------------------------------------------------


def readable(answer: Callable[..., Answer]) -> Callable[..., Any]:
    """Show a person's slip, and the failure of a server, as a message; the last answer stays."""

    @functools.wraps(answer)
    def wrapped(*inputs: Any) -> Any:
        try:
            return answer(*inputs).view
        except (InputError, ExportError) as error:
            message = str(error)
            for word in inputs:  # the path of an upload is internal
                if isinstance(word, str) and os.path.isabs(word):
                    message = message.replace(word, Path(word).name)
            title = "Please change the input" if isinstance(error, InputError) else "No answer"
            gr.Warning(message, title=title)
            return gr.skip()

    return wrapped


def text_input(label: str, lines: int, entry: Entry, kind: str = "text") -> list[Any]:
    """Return a field for text with the first example in it."""
    value = entry.samples[0].inputs[0] if entry.samples else ""
    name = f"{entry.name}_input"
    field = gr.Textbox(
        value, label=label, lines=lines, max_lines=12, elem_id=name, elem_classes=kind
    )
    return [field]


def dna_input(entry: Entry) -> list[Any]:
    """Return a field for sequences."""
    return text_input("DNA (IUPAC letters), or FASTA with any number of records", 6, entry, "dna")


def translation_input(entry: Entry) -> list[Any]:
    """Return a field for a text in the language of the model."""
    return text_input(f"Text ({entry.model.settings['languages'][0]})", 3, entry)


def speech_input(entry: Entry) -> list[Any]:
    """Return a recorder that also takes files, with the first example in it."""
    sound = gr.Audio(
        entry.samples[0].inputs[0] if entry.samples else None,
        label="Recording",
        sources=["upload", "microphone"],
        type="filepath",
        buttons=[],
        elem_id=f"{entry.name}_input",
    )
    return [sound]


def video_input(entry: Entry) -> list[Any]:
    """Return a field for a file: the player of the answer shows the clip."""
    value = entry.samples[0].inputs[0] if entry.samples else None
    return [gr.File(value, label="Clip", elem_id=f"{entry.name}_input", height=140)]


def music_input(entry: Entry) -> list[Any]:
    """Return the settings of a piece."""
    file = gr.File(
        label="First notes, a MIDI file (optional)", elem_id=f"{entry.name}_input", height=160
    )
    steps = 8 * 4 * entry.model.settings["steps_per_quarter"]
    return [
        file,
        gr.Slider(8, 512, value=steps, step=8, label="Frames to add", elem_id="steps"),
        gr.Slider(0.0, 2.0, value=1.0, step=0.05, label="Temperature: higher is more random"),
        gr.Slider(0.05, 1.0, value=0.95, step=0.05, label="Top p: of the most likely notes"),
        gr.Number(value=0, label="Seed", elem_id="seed"),
    ]


# The inputs of each tab, and the word on its button.
INPUTS: Mapping[str, tuple[Callable[[Entry], list[Any]], str]] = {
    "sentiment": (functools.partial(text_input, "Review", 4), "Rate"),
    "ner": (functools.partial(text_input, "Text", 4), "Find names"),
    "translation": (translation_input, "Translate"),
    "dna": (dna_input, "Find genes"),
    "speech": (speech_input, "Transcribe"),
    "video": (video_input, "Recognise"),
    "music": (music_input, "Compose"),
}


def lay_out(entry: Entry, folder: Path) -> None:
    """Lay out a model: inputs and examples on the left, the answer on the right."""
    make, word = INPUTS[entry.task]
    answer = readable(functools.partial(ANSWER[entry.task], entry.model, folder))
    gr.Markdown(describe(entry), elem_id=f"{entry.name}_about", elem_classes="about")
    with gr.Row(elem_classes="sides"):
        with gr.Column(scale=2, min_width=300):
            inputs = make(entry)
            name = f"{entry.name}_button"
            button = gr.Button(word, variant="primary", elem_id=name, elem_classes="run")
            examples = gr.Column(elem_classes="examples")
        with gr.Column(scale=3, min_width=300):
            view = entry.first.view if entry.first else ""
            output = gr.HTML(view, elem_id=f"{entry.name}_answer", elem_classes="answer")
    if entry.samples:
        with examples:
            gr.Examples(
                [list(sample.inputs) for sample in entry.samples],
                inputs,
                output,
                answer,
                run_on_click=True,
                cache_examples=False,
                example_labels=[sample.label for sample in entry.samples],
                elem_id=f"{entry.name}_examples",
            )
    events = [button.click, *(one.submit for one in inputs if isinstance(one, gr.Textbox))]
    gr.on(events, answer, inputs, output, api_name=entry.name.replace("-", "_"))


def lay_out_task(entries: Sequence[Entry], folder: Path) -> None:
    """Lay out the model of a task, or a choice of several ones."""
    if len(entries) == 1:
        lay_out(entries[0], folder)
        return
    with gr.Tabs():
        for entry in entries:
            with gr.Tab(choice(entry), id=entry.name):
                lay_out(entry, folder)


def title(task: str) -> str:
    """Return the name of a tab.

    Example:
      >>> title("ner"), title("speech")
      ('NER', 'Speech')
    """
    return task.upper() if task in ("ner", "dna") else task.title()


def lay_out_start(tasks: Mapping[str, Sequence[Entry]], tabs: gr.Tabs) -> None:
    """Lay out a card for each task: an example with its answer, and a button to its tab."""
    gr.Markdown("Seven recurrent models for seven kinds of sequences, with an answer of each.")
    with gr.Row(elem_classes="cards"):
        for task, (entry, *_) in tasks.items():
            with gr.Column(min_width=260):
                first = entry.first or Answer("no example could be made", "")
                given = entry.samples[0].label if entry.samples else ""
                card = views.card(title(task), given, first.summary, first.player)
                gr.HTML(card, elem_id=f"{task}_card")
                button = gr.Button("Try it", size="sm", elem_id=f"{task}_try", elem_classes="run")
                button.click(functools.partial(gr.Tabs, selected=task), None, tabs)


def build(entries: Sequence[Entry], folder: Path) -> gr.Blocks:
    """Lay out the page: a start tab, and one for each task."""
    tasks = {
        task: [entry for entry in entries if entry.task == task]
        for task in ANSWER
        if any(entry.task == task for entry in entries)
    }
    page = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600))
    with page:
        gr.Markdown(f"# {TITLE}")
        with gr.Tabs() as tabs:
            with gr.Tab("Start", id="start"):
                lay_out_start(tasks, tabs)
            for task, of_task in tasks.items():
                with gr.Tab(title(task), id=task):
                    lay_out_task(of_task, folder)
    return page


# --- The command ----------------------------------------------------------------------------------


def style() -> str:
    """Return the styles of the page, with the colours of the pictures of the project."""
    themes = {":root": plots.CYCLES["light"], ".dark": plots.CYCLES["dark"]}
    colours = (
        f"{where} {{ {' '.join(f'--c{n}: {colour};' for n, colour in enumerate(cycle))} }}\n"
        for where, cycle in themes.items()
    )
    return "".join(colours) + CSS.read_text(encoding="utf-8")


def launch(page: gr.Blocks, flags: Demo, folder: Path) -> str:
    """Serve the page from another thread; return its address.

    Raises:
      InputError: the address or the port cannot be used.
    """
    try:
        _, address, _ = page.launch(
            server_name=flags.host,
            server_port=flags.port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            allowed_paths=[str(folder)],
            # System fonts, so that the page needs no network.
            theme=gr.themes.Default(
                font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
            ),
            css=style(),
            head=SCRIPT,
        )
    except OSError as error:
        raise InputError(f"cannot listen on {flags.host}:{flags.port}: {error}") from error
    return address


def main(argv: list[str]) -> None:
    """Open the page, and serve it until Ctrl-C; see the module."""
    flags = cli.parse(Demo, argv, doc=__doc__)
    with tempfile.TemporaryDirectory(prefix="sequence-suite-demo-") as name:
        folder = Path(name).resolve()
        later = folder / "later"  # apart, since only the newest answers there are kept
        later.mkdir()
        page = build(list(load(flags, folder)), later)
        address = launch(page, flags, folder)
        cli.say(f"The page is open at {address} (Ctrl-C closes it).")
        try:
            threading.Event().wait()  # Gradio's own `wait` would exit with code 0 on Ctrl-C
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the page is closed") from None
        finally:
            page.close(verbose=False)
