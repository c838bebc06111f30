"""Sentences per second of beam search: the export, a Keras loop in Python, CTranslate2.

    pip install -e '.[translation,bench]'
    python -m tests.benchmarks.decoding --model saved_models/translation --manual_dir DIR

Three programs translate the test captions of Multi30k with a beam of 5, in batches of similar
length:

* the export, from raw text to raw text, with the search as graph code;
* the same model and search as a Python loop, as in tutorials: a Keras model of one decoder step is
  called by `predict_on_batch` (`predict` is slower), with the hypotheses in NumPy. It translates a
  part of the captions, and its translations are compared with those of the export, which
  writes only subwords of a short-list and repeats nothing three times;
* CTranslate2, which has no recurrent models, with a Transformer of random weights: about as many
  weights, the same vocabularies, and as many subwords per translation as the export writes on
  average in a batch. Its output is meaningless.

The last line is one JSON object; the ratios are those of sentences per second, and `loops` counts
the translations of the export with a word three times in a row that their sources have not.
"""

import argparse
import importlib.util
import itertools
import json
import tempfile
import time
from pathlib import Path

from common import encoder_decoder
from common.commands import report
from common.commands.config import EvaluateConfig
from common.decoding import length_penalty
from common.serving.served import load_export
from common.serving.versions import find
from tasks.translation import data, train
from tasks.translation.model import limit_length
from tasks.translation.sources import encode_source
from tasks.translation.subwords import END, PAD, START, Subwords
from tests.benchmarks.everyday import has_loop

import keras
import numpy as np
import tensorflow as tf

LAYERS = 2  # of the encoder and of the decoder of the Transformer


def in_batches(texts, size):
    ordered = sorted(texts, key=len)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def measure(translate, batches):
    """Return the sentences per second and the translations, after a warm-up for each batch size."""
    for batch in {len(batch): batch for batch in batches}.values():
        translate(batch)
    start = time.perf_counter()
    translations = [text for batch in batches for text in translate(batch)]
    return sum(map(len, batches)) / (time.perf_counter() - start), translations


def by_export(served):
    def translate(texts):
        outputs = served.call("serving_default", text=np.array(texts, dtype=object))
        return [text.decode() for text in outputs["translation"]]

    return translate


# --- Step by step ---------------------------------------------------------------------------------


class DecoderStep(keras.Model):
    """One decoder step of a loaded model; inputs and outputs are flat lists."""

    def __init__(self, model, lexical):
        super().__init__()
        self.whole, self.fixed = model, 3 + lexical

    def call(self, inputs):
        token, (memory, mask, keys, *tokens) = inputs[0], inputs[1 : 1 + self.fixed]
        cells = inputs[1 + self.fixed :]
        encoded = encoder_decoder.Encoded(memory, mask, keys, {}, *tokens)
        step = encoder_decoder.make_step(self.whole, encoded, never=(PAD, START))
        state, scores = step({"cells": cells}, token)
        return [tf.nn.log_softmax(scores), *state["cells"]]


def by_keras(served, beam):
    """Return the search of `common.decoding.beam_search` with its loop in Python."""
    folder, config = served.path, served.settings["config"]
    model = find(folder).model
    shared = config["shared_subwords"]
    reader = Subwords(folder / "assets" / (train.TARGET if shared else train.SOURCE))
    writer = Subwords(folder / "assets" / train.TARGET)
    lexical = config.get("lexical", False)
    one_step = DecoderStep(model, lexical)
    encode = tf.function(
        lambda ids, length: encoder_decoder.encode(model, ids, length), reduce_retracing=True
    )

    def translate(texts):
        source = encode_source(
            reader,
            tf.constant(texts),
            max_length=config["max_length"],
            kinds=served.settings["copies"],
        )
        encoded = encode(source.ids, source.length)
        limits = limit_length(source.length, config["max_length"]).numpy()
        largest = length_penalty(limits + 1, config["length_penalty"]).numpy()
        constant = [*encoded[:3], encoded.tokens][: 3 + lexical]
        fixed = [np.repeat(x.numpy(), beam, axis=0) for x in constant]
        cells = [np.repeat(x.numpy(), beam, axis=0) for x in encoded.state["cells"]]
        rows = np.arange(len(texts))[:, None]
        token = np.full(len(texts) * beam, START, np.int32)
        total = np.where(np.arange(beam) == 0, 0.0, -2e9) + np.zeros((len(texts), 1))
        tokens = np.zeros((len(texts), beam, 0), np.int32)
        finished = [[] for _ in texts]
        for place in range(config["max_length"] + 1):
            scores, *cells = one_step.predict_on_batch([token, *fixed, *cells])
            scores = scores.reshape(len(texts), beam, -1).astype(np.float64)
            over = place >= limits
            scores[over] = np.where(np.arange(scores.shape[2]) == END, scores[over], -1e9)
            flat = (total[:, :, None] + scores).reshape(len(texts), -1)
            best = np.argsort(-flat, axis=1, kind="stable")[:, : 2 * beam]
            values, symbols = flat[rows, best], best % scores.shape[2]
            parents = best // scores.shape[2]
            penalty = float(length_penalty(tf.constant(place + 1), config["length_penalty"]))
            for row in range(len(texts)):
                for k in range(beam):
                    if symbols[row, k] == END and values[row, k] > -5e8:
                        hypothesis = tokens[row, parents[row, k]]
                        finished[row].append((values[row, k] / penalty, hypothesis))
                finished[row] = sorted(finished[row], key=lambda pair: -pair[0])[:beam]
            order = np.argsort(symbols == END, axis=1, kind="stable")[:, :beam]
            total = np.where(symbols == END, -2e9, values)[rows, order]
            parents, symbols = parents[rows, order], symbols[rows, order]
            tokens = np.concatenate([tokens[rows, parents], symbols[:, :, None]], axis=2)
            chosen = (rows * beam + parents).reshape(-1)
            cells, token = [x[chosen] for x in cells], symbols.reshape(-1).astype(np.int32)
            reachable = total[:, 0] / largest
            if over.all() or all(
                pairs and pairs[0][0] >= bound
                for pairs, bound in zip(finished, reachable, strict=True)
            ):
                break
        ragged = tf.ragged.constant([pairs[0][1].tolist() for pairs in finished], tf.int32)
        translations = source.decode(writer, ragged.to_tensor(), ragged.row_lengths())
        return [text.decode() for text in translations.numpy()]

    return translate


# --- CTranslate2 ----------------------------------------------------------------------------------


def random_transformer(folder, sizes, *, width, layers, heads=4):
    """Write a Transformer of random weights in CTranslate2's format; return its weight count."""
    from ctranslate2.specs import TransformerSpec

    random = np.random.default_rng(0)
    spec = TransformerSpec.from_config((layers, layers), heads)
    shapes = {
        "embeddings_0/weight": (sizes[0], width),
        "embeddings/weight": (sizes[1], width),
        "projection/weight": (sizes[1], width),
        "beta": (width,),
        "gamma": (width,),
        "self_attention/linear_0/weight": (3 * width, width),
        "self_attention/linear_1/weight": (width, width),
        "attention/linear_0/weight": (width, width),
        "attention/linear_1/weight": (2 * width, width),
        "attention/linear_2/weight": (width, width),
        "ffn/linear_0/weight": (4 * width, width),
        "ffn/linear_1/weight": (width, 4 * width),
    }
    count = 0
    for name, value in spec.variables(ordered=True):
        if value is not None:
            continue
        kind = max((end for end in shapes if name.endswith(end)), key=len)
        array = random.normal(0.0, width**-0.5, shapes[kind]).astype(np.float32)
        owner, _, last = name.rpartition("/")
        part = spec
        for step in owner.split("/"):
            name_, _, number = step.rpartition("_")
            listed = number.isdigit() and not hasattr(part, step)
            part = getattr(part, name_)[int(number)] if listed else getattr(part, step)
        setattr(part, last, array)
        count += array.size
    special = ["<blank>", "<s>", "</s>"]
    words = [special + [f"w{k}" for k in range(size - len(special))] for size in sizes]
    spec.register_source_vocabulary(words[0])
    spec.register_target_vocabulary(words[1])
    spec.validate()
    folder.mkdir()
    spec.save(str(folder))
    return count


def width_for(weights, sizes):
    """Return the width of a Transformer of about this many weights."""

    def count(width):
        return (sizes[0] + 2 * sizes[1]) * width + 28 * LAYERS * width**2

    return min(range(16, 1025, 16), key=lambda width: abs(count(width) - weights))


def by_ctranslate2(served, folder, beam, weights, translations):
    import ctranslate2

    config = served.settings["config"]
    shared = config["shared_subwords"]
    names = (train.TARGET if shared else train.SOURCE, train.TARGET)
    reader, writer = (Subwords(served.path / "assets" / name) for name in names)
    sizes = (len(reader), len(writer))
    count = random_transformer(folder, sizes, width=width_for(weights, sizes), layers=LAYERS)
    written = writer.encode(tf.constant(list(translations.values()))).row_lengths().numpy()
    lengths = dict(zip(translations, written, strict=True))
    translator = ctranslate2.Translator(str(folder), inter_threads=1, intra_threads=2)

    def translate(texts):
        ids = reader.encode(tf.constant(texts)).to_list()
        words = [[f"w{k - 3}" for k in row] for row in ids]
        steps = round(np.mean([lengths[text] for text in texts]))
        results = translator.translate_batch(
            words, beam_size=beam, min_decoding_length=steps, max_decoding_length=steps
        )
        return [" ".join(result.hypotheses[0]) for result in results]

    return translate, count


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.decoding",
        description="Compare the speed of three beam searches.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--model", type=Path, default=Path("saved_models/translation"), help="export to measure"
    )
    parser.add_argument("--manual_dir", type=Path, help="folder of files downloaded by hand")
    parser.add_argument("--data_dir", type=Path, help="folder of prepared data sets")
    parser.add_argument("--batch_size", type=int, default=50, help="sentences per batch")
    parser.add_argument("--sentences", type=int, default=1000, help="sentences to translate")
    parser.add_argument("--by_keras", type=int, default=200, help="sentences for the Python loop")
    options = parser.parse_args()
    source = EvaluateConfig(
        dataset="multi30k", manual_dir=options.manual_dir, data_dir=options.data_dir
    )
    corpus = data.load(source, languages=("fr", "en"), seed=1)
    texts = [row["source"].decode() for row in corpus.splits["test"].as_numpy_iterator()]
    texts = texts[: options.sentences]
    served = load_export(options.model)
    beam = served.settings["config"]["beam"]
    weights = find(served.path).model.count_params()

    batches = in_batches(texts, options.batch_size)
    # Every k-th batch, so that both short and long sentences are included.
    every = max(1, len(texts) // options.by_keras)
    speed, translations = measure(by_export(served), batches)
    rows = [{"program": "export", "weights": weights, "sentences per second": round(speed, 1)}]
    sources = itertools.chain(*batches)
    loops = sum(
        has_loop(text) and not has_loop(source)
        for source, text in zip(sources, translations, strict=True)
    )
    slow, by_loop = measure(by_keras(served, beam), batches[::every])
    expected = [
        text
        for k, batch in enumerate(batches)
        if k % every == 0
        for text in translations[sum(map(len, batches[:k])) :][: len(batch)]
    ]
    same = float(np.mean([a == b for a, b in zip(by_loop, expected, strict=True)]))
    rows.append({"program": "Keras, step by step", "weights": weights})
    rows[-1]["sentences per second"] = round(slow, 1)
    result = {"export": speed, "keras": slow, "export_over_keras": speed / slow, "same": same}
    result["loops"] = loops
    if importlib.util.find_spec("ctranslate2"):
        with tempfile.TemporaryDirectory() as folder:
            by_source = dict(zip(itertools.chain(*batches), translations, strict=True))
            translate, count = by_ctranslate2(
                served, Path(folder) / "model", beam, weights, by_source
            )
            peer, _ = measure(translate, batches)
        rows.append({"program": "CTranslate2, random Transformer", "weights": count})
        rows[-1]["sentences per second"] = round(peer, 1)
        result |= {"ctranslate2": peer, "export_over_ctranslate2": speed / peer}
    print(report.table(rows))
    print(json.dumps({"sentences": len(texts), "beam": beam, **result}))


if __name__ == "__main__":
    main()
