"""Open a page in the browser for trying the exports of all tasks (extra [demo]).

    python -m tasks demo                                  # the exports in saved_models
    python -m tasks demo --models other_models --port 8000
    python -m tasks demo --server http://localhost:8501   # a running TF Serving predicts

The page has a tab for each task with an export. All data stays on this machine: no telemetry, no
external fonts; `--host 0.0.0.0` opens the page to the network. With `--server`, labels and limits
are still read from `--models`, which must be the folder that the server serves.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from common.commands import cli
from common.errors import ExportError, InputError, require
from common.files import write_together
from common.serving.served import Served, connect, load_export, text_request
from common.serving.versions import task_folder, versions

import PIL.Image

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
if TYPE_CHECKING:
    import gradio as gr
else:
    gr = require("gradio", "demo")

P = ParamSpec("P")

TITLE = "Sequence Suite"
# System fonts, so that the page needs no network.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
# Without the button that uploads a picture to another site.
Picture = functools.partial(gr.Image, buttons=["download", "fullscreen"], interactive=False)
# Pictures below their label and buttons; letters of sequences aligned in columns.
CSS = """
.image-frame img { padding-top: 2rem; box-sizing: border-box; }
#dna_input textarea, #labels textarea, #gff textarea { font-family: ui-monospace, monospace; }
"""
CLIPS = (".avi", ".gif", ".mkv", ".mov", ".mp4", ".webm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Flags of `demo`."""

    models: Path = Path("saved_models")
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


# --- Helpers of the tabs --------------------------------------------------------------------------


def readable(predict: Callable[P, Any]) -> Callable[P, Any]:
    """Show invalid input as a warning, and the error of a server as an error, on the page."""

    @functools.wraps(predict)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return predict(*args, **kwargs)
        except (InputError, ExportError) as error:
            message = str(error)
            for word in args:  # the path of an upload is internal
                if isinstance(word, str) and os.path.isabs(word):
                    message = message.replace(word, Path(word).name)
            if isinstance(error, ExportError):
                raise gr.Error(message, print_exception=False) from error
            gr.Warning(message)
            return gr.skip()  # all outputs stay

    return wrapped


def picture(draw: Callable[[Path], Any]) -> PIL.Image.Image:
    """Return the picture that a task's `draw` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        with PIL.Image.open(path) as image:
            return image.copy()


def require_text(text: str, noun: str) -> str:
    """Return the text without surrounding whitespace; `noun` names it in the message.

    Raises:
      InputError: the text is empty.
    """
    if not text.strip():
        raise InputError(f"Type {noun} first.")
    return text.strip()


# --- The tabs -------------------------------------------------------------------------------------


def sentiment(model: Served) -> None:
    """Rate a review: stars, probabilities, and the attention on each word."""
    from tasks.sentiment import predict

    @readable
    def rate(text: str) -> tuple[Any, ...]:
        text = require_text(text, "a review")
        (rating,) = predict.predict(model, [text], batch_size=1)
        if not rating.stars:
            raise InputError(predict.describe(rating)["message"])
        explanation = model.call("explain", **text_request([text]))
        words = [token.decode() for token in explanation["tokens"][0]]
        weights = explanation["attention"][0]
        # The darkest colour is for the largest weight.
        marked = list(zip(words, (weights / max(weights.max(), 1e-9)).tolist(), strict=True))
        stars = "★" * rating.stars + "☆" * (5 - rating.stars)
        return stars, rating.probabilities, marked

    text = gr.Textbox(
        label="Review",
        lines=3,
        placeholder="What did you think of the film?",
        elem_id="sentiment_input",
    )
    gr.Examples(["A warm and funny film.", "There is nothing to like in this movie."], text)
    button = gr.Button("Rate", variant="primary", elem_id="sentiment_button")
    with gr.Row():
        stars = gr.Textbox(label="Stars", elem_id="stars", interactive=False)
        probabilities = gr.Label(label="Probabilities", elem_id="sentiment_probabilities")
    marked = gr.HighlightedText(
        label="Attention weight of each word", elem_id="looked_at", show_legend=False
    )
    gr.on([button.click, text.submit], rate, text, [stars, probabilities, marked])


def ner(model: Served) -> None:
    """Find the names in a sentence, and the probability of each type for each word."""
    from tasks.ner import predict

    @readable
    def tag(text: str) -> tuple[Any, ...]:
        text = require_text(text, "a sentence")
        (tagged,) = predict.predict(model, [text], batch_size=1)
        prediction = predict.describe(tagged)
        if "message" in prediction:
            raise InputError(prediction["message"])
        names = [{"entity": e["type"], **e} for e in prediction["entities"]]
        if not names:
            gr.Info("No name was found.")
        drawn = picture(lambda path: predict.draw(model, text, path))
        return {"text": text, "entities": names}, drawn

    text = gr.Textbox(label="Text", lines=3, placeholder="Who lives where?", elem_id="ner_input")
    gr.Examples(["Ada Lovelace lived in London.", "Lena met Omar in Cairo, not in Rome."], text)
    button = gr.Button("Find names", variant="primary", elem_id="ner_button")
    marked = gr.HighlightedText(label="Names", elem_id="names")
    drawn = Picture(label="Probability of each type", elem_id="ner_picture", height=420)
    gr.on([button.click, text.submit], tag, text, [marked, drawn])


def dna(model: Served) -> None:
    """Label each base of a DNA sequence, and draw its genes as tracks."""
    from tasks.dna import formats, genes, outputs, predict, predictions

    @readable
    def annotate(sequence: str) -> tuple[Any, ...]:
        name = "sequence"
        if sequence.lstrip().startswith(">"):
            (name, sequence), *others = formats.read_fasta(sequence.splitlines(), "the text")
            if others:
                gr.Info(f"{len(others)} more records are in the text; this page reads the first.")
        sequence = predict.checked("".join(sequence.split()), "The sequence")
        if len(sequence) > model.settings["max_bases"]:
            raise InputError(
                f"{len(sequence):,} bases are more than {model.settings['max_bases']:,}; "
                "python -m tasks.dna.predict accepts records of any length"
            )
        ((_, prediction),) = predictions.predict(model, [sequence], batch_size=1)
        record = genes.Record(name, sequence)
        if not prediction.genes:
            gr.Info("No gene was found.")
        drawn = picture(lambda path: predict.draw(model, record, prediction.plain, path, None))
        lines = "\n".join(outputs.gff_lines(record, prediction.genes, 1))
        return genes.to_text(prediction.labels), drawn, f"##gff-version 3\n{lines}"

    text = gr.Textbox(
        label="DNA sequence (IUPAC letters), or one record of FASTA",
        lines=4,
        placeholder="AGCCCCTGTGAGGAACTAG",
        elem_id="dna_input",
    )
    gr.Examples(["AGCCCCTGTGAGGAACTAG", two_genes()], text)
    button = gr.Button("Find genes", variant="primary", elem_id="dna_button")
    drawn = Picture(label="Tracks", elem_id="tracks")
    labels = gr.Textbox(
        label="Label of each base: . none, C coding, I intron; lower case on the reverse strand",
        elem_id="labels",
        lines=3,
        max_lines=6,
        interactive=False,
    )
    gff = gr.Textbox(
        label="GFF3", elem_id="gff", lines=3, max_lines=10, interactive=False, buttons=["copy"]
    )
    button.click(annotate, text, [labels, drawn, gff])


def two_genes() -> str:
    """Return a made-up record of FASTA with a gene on each strand, as bacteria write genes."""
    first = (
        "ATGAAACTGGCGGAAGATCTGACCGTGAAAGGCATTCCGCTGGAACGTGCGATTGAACTGGGCAAACGTATTGCG" * 2 + "TAA"
    )
    second = (
        "ATGAGCGATATCCTGAACAAAGCGGTTGAACAGCTGCGTGAAGCGGGCTATACCGTGGATCTGATTAAACCGCAG" * 3 + "TAA"
    )
    gap = "TTTATTATCAATTAGGAGGTATTATC"
    reverse = f"{gap}{second}"[::-1].translate(str.maketrans("ACGT", "TGCA"))
    return f">two made-up genes\n{gap}{first}ATAATTATTTAATAAT{reverse}TTATATTAAT"


def translation(model: Served) -> None:
    """Translate a sentence, and show the attention weights of the best translation."""
    from tasks.translation import predict

    config = model.settings["config"]
    source, target = config["source"], config["target_language"]

    @readable
    def translate(text: str) -> tuple[Any, ...]:
        text = require_text(text, "a sentence")
        n_best = max(2, config["beam"])
        (prediction,) = predict.predict(model, [text], n_best=n_best, batch_size=1)
        if "message" in prediction:
            raise InputError(prediction["message"])
        others = [[f"{one['score']:.3f}", one["translation"]] for one in prediction["n_best"]]
        drawn = picture(lambda path: predict.draw(model, text, path))
        return prediction["translation"], others, drawn

    text = gr.Textbox(
        label=f"Sentence ({source})",
        lines=2,
        placeholder="Où est la gare ?",
        elem_id="translation_input",
    )
    if source == "fr":
        gr.Examples(["Où est la gare ?", "Je ne sais pas."], text)
    button = gr.Button("Translate", variant="primary", elem_id="translation_button")
    best = gr.Textbox(label=f"Translation ({target})", elem_id="translation", interactive=False)
    with gr.Row():
        others = gr.Dataframe(
            headers=["score", "translation"],
            label="Best translations",
            elem_id="n_best",
            interactive=False,
        )
        drawn = Picture(label="Attention", elem_id="attention", height=420)
    gr.on([button.click, text.submit], translate, text, [best, others, drawn])


def speech(model: Served) -> None:
    """Transcribe a recording, and draw the transcript over its log-mel frames."""
    from tasks.speech import audio, predict

    @readable
    def transcribe(path: str | None) -> tuple[Any, ...]:
        if path is None:
            raise InputError("Record or upload some sound first.")
        (transcript,) = predict.predict(model, [Path(path)], batch_size=4)
        prediction = predict.describe(transcript, model.settings["sample_rate"])
        if "message" in prediction:
            raise InputError(prediction["message"])
        _, sound = next(audio.split_at_silences(path, model.settings["max_samples"]))
        drawn = picture(lambda target: predict.draw(model, sound, target))
        return prediction["text"], f"{prediction['confidence']:.0%}", drawn

    sound = gr.Audio(
        label="Sound",
        sources=["upload", "microphone"],
        type="filepath",
        buttons=[],
        elem_id="speech_input",
    )
    button = gr.Button("Transcribe", variant="primary", elem_id="speech_button")
    with gr.Row():
        text = gr.Textbox(label="Transcript", elem_id="transcript", interactive=False, scale=4)
        confidence = gr.Textbox(label="Confidence", interactive=False, scale=1)
    drawn = Picture(label="Log-mel frames (first part of a long recording)", elem_id="heard")
    button.click(transcribe, sound, [text, confidence, drawn])


def video(model: Served) -> None:
    """Recognise the activity in a clip, and draw the probabilities over time below its frames."""
    from tasks.video import predict

    @readable
    def recognise(path: str | None) -> tuple[Any, ...]:
        if path is None:
            raise InputError("Upload a clip first.")
        settings, parts = model.settings, predict.predict(model, Path(path))
        labels, rate = settings["labels"], settings["frame_rate"]
        prediction = predict.describe(Path(path), parts, labels, rate)
        drawn = picture(lambda target: predict.draw(model, prediction, target))
        return prediction["probabilities"], drawn

    clip = gr.File(label="Clip", file_types=list(CLIPS), elem_id="video_input")
    button = gr.Button("Recognise", variant="primary", elem_id="video_button")
    probabilities = gr.Label(label="Activity", elem_id="activity", num_top_classes=5)
    drawn = Picture(label="Over time", elem_id="over_time")
    button.click(recognise, clip, [probabilities, drawn])


def music(model: Served) -> None:
    """Generate music: sound, piano roll and MIDI file."""
    from tasks.music import midi, predict

    settings = model.settings
    folder = Path(tempfile.mkdtemp(prefix="sequence-suite-demo-"))  # Gradio copies files it shows

    @readable
    def play(steps: int, temperature: float, top_p: float, seed: int | None) -> tuple[Any, ...]:
        if seed is None or seed != int(seed):
            raise InputError("The seed must be a whole number.")
        flags = predict.Predict(
            steps=int(steps), temperature=temperature, top_p=top_p, seed=int(seed)
        )
        notes = predict.generate(model, predict.read_prime(flags, settings), flags)
        per_quarter = settings["steps_per_quarter"]
        song = midi.to_song(notes, steps_per_quarter=per_quarter, tempo=settings["tempo"])
        if not midi.to_notes(notes):
            gr.Info("The model generated only silence; try another seed.")
        files = {
            folder / "music.wav": midi.wav_bytes(song),
            folder / "music.png": midi.piano_roll_bytes(notes, steps_per_quarter=per_quarter),
            folder / "music.mid": midi.midi_bytes(song),
        }
        write_together(files)
        return tuple(map(str, files))

    with gr.Row():
        steps = gr.Slider(8, 512, value=128, step=8, label="Steps", elem_id="steps")
        temperature = gr.Slider(0.0, 2.0, value=1.0, step=0.05, label="Temperature")
        top_p = gr.Slider(0.05, 1.0, value=0.95, step=0.05, label="Top p")
        seed = gr.Number(value=0, precision=0, minimum=0, label="Seed", elem_id="seed")
    button = gr.Button("Play", variant="primary", elem_id="music_button")
    sound = gr.Audio(label="Sound", elem_id="played", interactive=False, buttons=["download"])
    roll = Picture(label="Piano roll", elem_id="roll", type="filepath")
    file = gr.File(label="MIDI", elem_id="midi", interactive=False)
    # One call at a time: all calls write the same files, which Gradio copies afterwards.
    button.click(play, [steps, temperature, top_p, seed], [sound, roll, file], concurrency_limit=1)


TABS: Mapping[str, Callable[[Served], None]] = {
    tab.__name__: tab for tab in (sentiment, ner, translation, dna, speech, video, music)
}

# --- The page -------------------------------------------------------------------------------------


def load(flags: Demo) -> dict[str, Served]:
    """Load the newest version of each task that has one.

    Raises:
      InputError: no task has a version.
      ExportError: the server does not respond.
    """
    every = {task: task_folder(task, flags.models) for task in TABS}
    folders = {task: folder for task, folder in every.items() if versions(folder)}
    if not folders:
        raise InputError(
            f"{flags.models} holds no export. Make some: python -m tasks train --quick --output "
            f"{flags.models}"
        )
    models: dict[str, Served] = {}
    for task, folder in folders.items():
        cli.say(f"{len(models) + 1}/{len(folders)} {task}")
        models[task] = connect(flags.server, folder) if flags.server else load_export(folder)
    return models


def describe(task: str, model: Served) -> str:
    """Return what stands above a tab: what it does, the model, and its limits."""
    trained = model.settings["training_data"]
    data = trained["dataset"] or Path(trained["data"]).name
    summary = f"{TABS[task].__doc__} *Version {model.path.name}, trained on {data}.*"
    limits = model.settings.get("limits")  # not in earlier exports
    return f"{summary}\n\n**What it knows, and where it fails.** {limits}" if limits else summary


def build(models: Mapping[str, Served]) -> gr.Blocks:
    """Lay out the page, with a tab for each model."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(f"# {TITLE}")
        with gr.Tabs():
            for task, model in models.items():
                with gr.Tab(task.upper() if task in ("ner", "dna") else task.title(), id=task):
                    gr.Markdown(describe(task, model))
                    TABS[task](model)
    return page


def main(argv: list[str]) -> None:
    """Open the page, and serve it until Ctrl-C; see the module."""
    flags = cli.parse(Demo, argv, doc=__doc__)
    page = build(load(flags))
    try:
        _, address, _ = page.launch(
            server_name=flags.host,
            server_port=flags.port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            theme=THEME,
            css=CSS,
        )
    except OSError as error:
        raise InputError(f"cannot listen on {flags.host}:{flags.port}: {error}") from error
    cli.say(f"The page is open at {address} (Ctrl-C closes it).")
    try:
        threading.Event().wait()  # Gradio's own `wait` would exit with code 0 on Ctrl-C
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the page is closed") from None
    finally:
        page.close(verbose=False)
