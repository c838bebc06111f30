"""Opens a page on which every exported task can be tried in a browser (extra [demo]).

    python -m tasks demo                                  # the exports in saved_models
    python -m tasks demo --models other_models --port 8000
    python -m tasks demo --server http://localhost:8501   # a running TF Serving does the work

There is a tab for each task that has an export. Nothing leaves this machine: no telemetry, no fonts
from elsewhere; `--host 0.0.0.0` opens the page to the network. With `--server`, labels and limits
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
from typing import Any, ParamSpec, TypeVar

from common.commands import cli
from common.errors import ExportError, InputError, require
from common.serving.served import Remote, Served, connect, load_export, versions

import numpy as np
import PIL.Image

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
gr = require("gradio", "demo")

P = ParamSpec("P")
R = TypeVar("R")
Model = Served | Remote

TITLE = "Sequence Suite"
# Fonts that the reader's system has, so that the page needs no network.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
# Without the button that shares a picture with a site elsewhere.
Picture = functools.partial(gr.Image, buttons=["download", "fullscreen"], interactive=False)
# Pictures stand below their label and buttons; letters of a sequence stand below each other.
CSS = """
.image-frame img { padding-top: 2rem; box-sizing: border-box; }
#dna_input textarea, #labels textarea, #gff textarea { font-family: ui-monospace, monospace; }
"""
CLIPS = (".avi", ".gif", ".mkv", ".mov", ".mp4", ".webm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Flags of `demo`."""

    models: Path = Path("saved_models")
    """folder of the exports; of each task the newest version is asked"""
    server: str | None = None
    """ask this TF Serving over REST, such as http://localhost:8501, instead of loading exports"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 for the whole network"""
    port: int = 7860
    """port to listen on"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        if not 1 <= self.port <= 65_535:
            raise InputError(f"--port must be 1 to 65535, got {self.port}")
        if self.server is not None and not self.server.startswith(("http://", "https://")):
            raise InputError(f"--server must look like http://localhost:8501, got {self.server!r}")


# --- what the tabs share --------------------------------------------------------------------------


def readable(answer: Callable[P, R]) -> Callable[P, R]:
    """Shows a wrong input, or a server's refusal, as a message on the page."""

    @functools.wraps(answer)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return answer(*args, **kwargs)
        except (InputError, ExportError) as error:
            message = str(error)
            for word in args:  # where the upload lies is the page's own matter
                if isinstance(word, str) and os.path.isabs(word):
                    message = message.replace(word, Path(word).name)
            raise gr.Error(message, print_exception=False) from error

    return wrapped


def picture(draw: Callable[[Path], Any]) -> PIL.Image.Image:
    """What a task's `draw` writes, as an image."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        with PIL.Image.open(path) as image:
            return image.copy()


def given(text: str, what: str) -> str:
    """The text without blanks around it.

    Raises:
      InputError: nothing is left.
    """
    if not text.strip():
        raise InputError(f"Type {what} first.")
    return text.strip()


# --- the tabs -------------------------------------------------------------------------------------


def sentiment(model: Model) -> None:
    """A review: stars, probabilities, and which words counted."""
    from tasks.sentiment import predict
    from tasks.sentiment.evaluate import answers

    labels = model.settings["labels"]

    @readable
    def ask(text: str) -> tuple[Any, ...]:
        text = given(text, "a review")
        ((_, answer),) = answers(model, [text], batch_size=1)
        said = predict.describe(text, answer, labels)
        if not said["stars"]:
            raise InputError(said["message"])
        seen = model.call("explain", text=np.array([text], dtype=object))
        shares = seen["attention"][0] / max(seen["attention"][0].max(), 1e-9)
        words = [token.decode() for token in seen["tokens"][0]]
        marked = list(zip(words, shares.tolist(), strict=False))
        stars = "★" * said["stars"] + "☆" * (5 - said["stars"])
        return stars, said["probabilities"], marked

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
        shares = gr.Label(label="Probabilities", elem_id="sentiment_probabilities")
    marked = gr.HighlightedText(
        label="What it looked at: the darker, the more", elem_id="looked_at", show_legend=False
    )
    gr.on([button.click, text.submit], ask, text, [stars, shares, marked])


def ner(model: Model) -> None:
    """A sentence: its names, and how likely each word is part of one."""
    from tasks.ner import predict

    @readable
    def ask(text: str) -> tuple[Any, ...]:
        text = given(text, "a sentence")
        ((_, tagged),) = predict.answers(model, [text], batch_size=1)
        said = predict.describe(text, tagged)
        if "message" in said:
            raise InputError(said["message"])
        names = [{"entity": e["type"], **e} for e in said["entities"]]
        if not names:
            gr.Info("No name was found.")
        drawn = picture(lambda path: predict.draw(model, text, path))
        return {"text": text, "entities": names}, drawn

    text = gr.Textbox(label="Text", lines=3, placeholder="Who lives where?", elem_id="ner_input")
    gr.Examples(["Ada Lovelace lived in London.", "Lena met Omar in Cairo, not in Rome."], text)
    button = gr.Button("Find names", variant="primary", elem_id="ner_button")
    marked = gr.HighlightedText(label="Names", elem_id="names")
    drawn = Picture(label="Probability of each type", elem_id="ner_picture", height=420)
    gr.on([button.click, text.submit], ask, text, [marked, drawn])


def dna(model: Model) -> None:
    """A DNA sequence: the label of each base, and its genes as tracks."""
    from tasks.dna import evaluate, genes, predict

    @readable
    def ask(sequence: str) -> tuple[Any, ...]:
        sequence = predict.checked("".join(sequence.split()), "The sequence")
        if len(sequence) > model.settings["max_bases"]:
            raise InputError(
                f"{len(sequence):,} bases are more than {model.settings['max_bases']:,}; "
                "python -m tasks.dna.predict takes records of any length"
            )
        grammar = evaluate.grammar_of(model)
        ((_, states),) = evaluate.paths(model, [sequence], batch_size=1)
        record, found = genes.Record("sequence", sequence), grammar.genes(states)
        if not found:
            gr.Info("No gene was found.")
        drawn = picture(lambda path: predict.draw(model, record, found, path, None))
        lines = "\n".join(predict.gff_lines(record, found, 1))
        return genes.to_text(grammar.labels[states]), drawn, f"##gff-version 3\n{lines}"

    text = gr.Textbox(
        label="DNA sequence (IUPAC letters)",
        lines=4,
        placeholder="AGCCCCTGTGAGGAACTAG",
        elem_id="dna_input",
    )
    button = gr.Button("Find genes", variant="primary", elem_id="dna_button")
    drawn = Picture(label="Tracks", elem_id="tracks")
    labels = gr.Textbox(
        label="A letter for each base: . none, C coding, I intron; small on the reverse strand",
        elem_id="labels",
        lines=3,
        max_lines=6,
        interactive=False,
    )
    gff = gr.Textbox(
        label="GFF3", elem_id="gff", lines=3, max_lines=10, interactive=False, buttons=["copy"]
    )
    button.click(ask, text, [labels, drawn, gff])


def translation(model: Model) -> None:
    """A sentence: its translations, and what each word of the best one looked at."""
    from tasks.translation import predict
    from tasks.translation.evaluate import answers

    config = model.settings["config"]
    source, target = config["source"], config["target_language"]

    @readable
    def ask(text: str) -> tuple[Any, ...]:
        text = given(text, "a sentence")
        ((_, answer),) = answers(model, [text], batch_size=1, signature="explain")
        said = predict.describe(text, answer, max(2, config["beam"]))
        if said["translation"] is None:
            raise InputError(said["message"])
        others = [[f"{one['score']:.3f}", one["translation"]] for one in said["n_best"]]
        drawn = picture(lambda path: predict.draw(model, text, path))
        return said["translation"], others, drawn

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
            headers=["score", "translation"], label="Best ones", elem_id="n_best", interactive=False
        )
        drawn = Picture(label="Attention", elem_id="attention", height=420)
    gr.on([button.click, text.submit], ask, text, [best, others, drawn])


def speech(model: Model) -> None:
    """A recording: its transcript over the log-mel frames."""
    from tasks.speech import audio, predict

    @readable
    def ask(path: str | None) -> tuple[Any, ...]:
        if path is None:
            raise InputError("Record or upload some sound first.")
        (said,) = predict.transcribe(model, [Path(path)], batch_size=4)
        if "message" in said:
            raise InputError(said["message"])
        _, sound = next(audio.pieces(path, model.settings["max_samples"]))
        drawn = picture(lambda target: predict.draw(model, sound, target))
        return said["text"], f"{said['confidence']:.0%}", drawn

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
        share = gr.Textbox(label="Confidence", interactive=False, scale=1)
    drawn = Picture(label="What was heard (the first piece of long sound)", elem_id="heard")
    button.click(ask, sound, [text, share, drawn])


def video(model: Model) -> None:
    """A clip: the activity, and the probabilities over time under a strip of frames."""
    from tasks.video import predict

    @readable
    def ask(path: str | None) -> tuple[Any, ...]:
        if path is None:
            raise InputError("Upload a clip first.")
        flags = predict.Predict(clips=(Path(path),))
        said = predict.describe(model, Path(path), flags)
        drawn = picture(
            lambda target: predict.draw(model, said, dataclasses.replace(flags, plot=target))
        )
        return said["probabilities"], drawn

    clip = gr.File(label="Clip", file_types=list(CLIPS), elem_id="video_input")
    button = gr.Button("Recognise", variant="primary", elem_id="video_button")
    shares = gr.Label(label="Activity", elem_id="activity", num_top_classes=5)
    drawn = Picture(label="Over time", elem_id="over_time")
    button.click(ask, clip, [shares, drawn])


def music(model: Model) -> None:
    """Sliders: music to hear, its piano roll, its MIDI file."""
    from tasks.music import midi, predict

    settings = model.settings
    kept = Path(tempfile.mkdtemp(prefix="sequence-suite-demo-"))  # Gradio copies what is shown

    @readable
    def ask(steps: int, temperature: float, top_p: float, seed: int | None) -> tuple[Any, ...]:
        if seed is None or seed != int(seed):
            raise InputError("The seed must be a whole number.")
        flags = predict.Predict(
            steps=int(steps), temperature=temperature, top_p=top_p, seed=int(seed)
        )
        notes = predict.play(model, predict.read_prime(flags, settings), flags)
        per_quarter = settings["steps_per_quarter"]
        song = midi.to_song(notes, steps_per_quarter=per_quarter, tempo=settings["tempo"])
        if not midi.to_notes(notes):
            gr.Info("The model played nothing but silence; try another seed.")
        files = {
            kept / "music.mid": midi.midi_bytes(song),
            kept / "music.wav": midi.wav_bytes(song),
        }
        roll = kept / "music.png"
        files[roll] = midi.piano_roll_bytes(notes, steps_per_quarter=per_quarter)
        predict.write_together(files)
        return tuple(str(kept / f"music.{kind}") for kind in ("wav", "png", "mid"))

    with gr.Row():
        steps = gr.Slider(8, 512, value=128, step=8, label="Steps", elem_id="steps")
        temperature = gr.Slider(0.0, 2.0, value=1.0, step=0.05, label="Temperature")
        top_p = gr.Slider(0.05, 1.0, value=0.95, step=0.05, label="Top p")
        seed = gr.Number(value=0, precision=0, minimum=0, label="Seed", elem_id="seed")
    button = gr.Button("Play", variant="primary", elem_id="music_button")
    sound = gr.Audio(label="Sound", elem_id="played", interactive=False, buttons=["download"])
    roll = Picture(label="Piano roll", elem_id="roll", type="filepath")
    file = gr.File(label="MIDI", elem_id="midi", interactive=False)
    # One at a time, since all write the same files before Gradio takes copies of them.
    button.click(ask, [steps, temperature, top_p, seed], [sound, roll, file], concurrency_limit=1)


TABS: Mapping[str, Callable[[Model], None]] = {
    tab.__name__: tab for tab in (sentiment, ner, translation, dna, speech, video, music)
}

# --- the page -------------------------------------------------------------------------------------


def load(flags: Demo) -> dict[str, Model]:
    """The newest version of every task that has one.

    Raises:
      InputError: there is none.
      ExportError: the server does not answer.
    """
    found = {task: flags.models / task for task in TABS if versions(flags.models / task)}
    if not found:
        raise InputError(
            f"{flags.models} holds no export. Make some: python -m tasks train --quick "
            f"--output {flags.models}"
        )
    if flags.server is not None:
        return {task: connect(flags.server, path) for task, path in found.items()}
    return {task: load_export(path) for task, path in found.items()}


def build(models: Mapping[str, Model]) -> gr.Blocks:
    """Lays the page out: a tab for each model."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(f"# {TITLE}")
        with gr.Tabs():
            for task, model in models.items():
                with gr.Tab(task.upper() if task in ("ner", "dna") else task.title(), id=task):
                    what = TABS[task].__doc__
                    trained = model.settings["training_data"]
                    data = trained["dataset"] or Path(trained["data"]).name
                    gr.Markdown(f"{what} *Version {model.path.name}, learnt on {data}.*")
                    TABS[task](model)
    return page


def main(argv: list[str]) -> None:
    """Opens the page and stays until Ctrl-C; see the module."""
    flags = cli.parse(Demo, argv, doc=__doc__, command="demo")
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
        threading.Event().wait()  # Gradio's own wait takes Ctrl-C for a good end
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the page is closed") from None
    finally:
        page.close(verbose=False)
