"""The exported signatures of the gene finder without introns."""

from __future__ import annotations

from typing import Any, NamedTuple

from common.serving.rows import length_fits, run_valid, within_budget
from common.serving.targets import PORTABLE, Examples, Signatures, Target, same, shared
from tasks.dna import arrangement, candidates, gene_tables
from tasks.dna.config import Config
from tasks.dna.frame_model import CONTEXT, CORE, WINDOW, table_shapes
from tasks.dna.gene_tables import Tables
from tasks.dna.genes import LABELS
from tasks.dna.nucleotides import GENETIC_CODES
from tasks.dna.reading_frames import Span, Strands, codon_table
from tasks.dna.serving import SAMPLES, encode_text

import keras
import numpy as np
import tensorflow as tf

MOST = 1 << 20  # bases of a request: its rows times the longest of them
MOST_ADAPT = 1 << 21  # bases of a request to `adapt`
BASES = tf.TensorSpec([None, None], tf.int32, name="bases")
LENGTH = tf.TensorSpec([None], tf.int32, name="length")
CODE = tf.TensorSpec([None], tf.int32, name="code")
CODES = tuple(sorted(GENETIC_CODES))  # genetic codes
SIGNALS = ("codon", "codon'")
STATES = (".", "C0", "C1", "C2", "C0'", "C1'", "C2'")
_LABEL_OF_STATE = tuple(LABELS.index(label) for label in ".CCCccc")


class FrameFinder:
    """The model and its decoder, as they are exported together.

    Args:
      model: a model of `tasks.dna.frame_model.build`.
      config: its settings.
      target: the target of the export; the network over windows of candidates is its core.
    """

    def __init__(self, model: keras.Model, config: Config, target: Target = PORTABLE):
        self.starts = config.start_codons
        self.max_length = config.max_length
        self.code = config.genetic_code
        stops = [codon_table(GENETIC_CODES[code]) >= 0 for code in CODES]
        self.stops = np.stack(stops)
        self.organisms = model.get_layer("organisms")
        names = ("frames", "starts", "strand", "length", "content")
        self.network = keras.Model(
            {name: model.input[name] for name in names},
            {name: model.output[name] for name in ("gene", "start")},
        )
        self.core = target.core(
            "core",
            self.weigh,
            timed=["frames", "starts", "strand"],
            steps={"gene": same, "start": same},
            lengths=(WINDOW,),
        )

    def weigh(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the log-odds of candidates and the log-probabilities of their starts."""
        content = tf.zeros_like(inputs["length"], tf.float32)
        return dict(self.network({**inputs, "content": content}, training=False))

    def similar(self, bases: tf.Tensor, length: tf.Tensor) -> Tables:
        """Return the tables of organisms with similar fractions of G and C."""
        tables = self.organisms(gene_tables.gc_content(bases, length))
        return Tables(**tables)

    def is_stop(self, code: tf.Tensor) -> tf.Tensor:
        """Return the stop codons of genetic codes, `<bool>[batch, 65]`; of 11 for unknown ones."""
        known = tf.equal(code[:, None], tf.constant(CODES))
        index = tf.argmax(tf.cast(known, tf.int32), axis=1, output_type=tf.int32)
        index = tf.where(tf.reduce_any(known, axis=1), index, CODES.index(11))
        return tf.gather(tf.constant(self.stops), index)

    def adapt(self, bases: tf.Tensor, length: tf.Tensor, code: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the tables of the organism of each row, counted in it."""
        similar, stops = self.similar(bases, length), self.is_stop(code)

        def one(row: tuple[Any, ...]) -> Tables:
            bases, length, stops, similar = row
            tables = gene_tables.adapt(
                bases[None, :length],
                length[None],
                Tables(*(table[None] for table in similar)),
                self.starts,
                stops[None],
            )
            return Tables(*(table[0] for table in tables))

        kinds = Tables(*(tf.TensorSpec(t.shape[1:], t.dtype) for t in similar))
        rows = (bases, length, stops, similar)
        outputs = tf.map_fn(one, rows, fn_output_signature=kinds)
        return outputs._asdict()

    def valid(self, bases: tf.Tensor, length: tf.Tensor, longest: int, budget: int) -> tf.Tensor:
        """Return which rows are computed, `<bool>[batch]`."""
        real = tf.sequence_mask(length, tf.shape(bases)[1])
        valid = length_fits(length, bases, at_most=longest)
        valid &= tf.reduce_all((bases >= 0) & (bases < 16) | ~real, axis=1)
        return within_budget(valid, length, budget)

    def clean(self, bases: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Return bases with 0 in the padding and for values that are no codes."""
        inside = tf.sequence_mask(length, tf.shape(bases)[1])
        return tf.where(inside & (bases > 0) & (bases < 16), bases, 0)

    def weighed(
        self, found: candidates.Candidates, batch: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the network's outputs for candidates, window by window."""
        first, size, window = candidates.pad_windows(found.row, batch, CORE, CONTEXT)
        # Loops have no result for no window, and none for no step.
        first, size = tf.pad(first, [[0, 1]]), tf.pad(size, [[0, 1]], constant_values=1)
        longest = tf.reduce_max(size)
        inputs = {
            name: candidates.to_windows(tf.pad(values, _one_more(values)), first, size, longest)
            for name, values in (
                ("frames", found.frames),
                ("starts", found.starts),
                ("strand", found.strand),
            )
        }
        outputs = self.core(**inputs, length=size)
        place = tf.range(tf.size(found.row)) - tf.gather(first, window)
        index = tf.stack([window, place], axis=1)
        return tf.gather_nd(outputs["gene"], index), tf.gather_nd(outputs["start"], index)

    def find(
        self, bases: tf.Tensor, length: tf.Tensor, tables: Tables, code: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], _Read]:
        """Return the genes of all rows, with `COLUMNS` and `row`, and what was read.

        Columns are flat, `[genes]`; positions are those of the layout of the forward strand.
        """
        batch = tf.shape(bases)[0]
        stops = self.is_stop(code)
        similar = self.similar(bases, length)
        strands, found = candidates.make(bases, length, tables, similar, self.starts, stops)
        log_odds, start = self.weighed(found, batch)
        exists = found.starts[..., 0] > 0
        # The best start of a gene costs nothing: else genes with doubtful starts would be lost.
        cost = start - tf.reduce_max(start, axis=1, keepdims=True)
        score = tf.where(exists, log_odds[:, None] + cost, -1e6)
        spans = Span(*(tf.reshape(value, [-1]) for value in found.spans))
        chosen = arrangement.arrange(spans, tf.reshape(score, [-1]))
        number, place = chosen // candidates.STARTS, chosen % candidates.STARTS
        at = tf.stack([number, place], axis=1)
        row, kind = tf.gather(found.row, number), tf.gather_nd(found.kind, at)
        left, right, strand, phase = (tf.gather(value, chosen) for value in spans)
        no_start = tf.cast(kind == len(self.starts), tf.int32)
        no_stop = tf.cast(tf.gather(found.open_end, number), tf.int32)
        return {
            "row": row,
            "start": left,
            "end": right,
            "strand": strand,
            "phase": phase,
            "partial": no_start + 2 * no_stop,
            "kind": kind,
            "binding": tf.gather_nd(found.binding, at),
            "score": tf.gather_nd(score, at),
            "confidence": tf.sigmoid(tf.gather(log_odds, number)),
            "start_confidence": tf.exp(tf.gather_nd(start, at)),
        }, _Read(strands, found, log_odds, start)

    def genes(
        self, bases: tf.Tensor, length: tf.Tensor, code: tf.Tensor, **tables: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Return the table of genes `[batch, genes]` of valid rows, and their `count` `[batch]`."""
        table, read = self.find(bases, length, Tables(**tables), code)
        first = tf.gather(read.strands.offsets, table["row"])
        table |= {name: table[name] - first for name in ("start", "end")}
        return _by_row(table, tf.shape(bases)[0])

    def decode(self, bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return labels, states, probabilities and signals of each base of valid rows."""
        tables = self.similar(bases, length)
        code = tf.fill(tf.shape(length), self.code)
        table, read = self.find(bases, length, tables, code)
        strands, time = read.strands, tf.shape(bases)[1]
        inside = tf.sequence_mask(length, time)
        places = tf.where(inside, strands.offsets[:, None] + tf.range(time), 0)
        states = tf.gather(_paint(table, strands), places)
        probabilities = tf.gather(read.probabilities(), places)
        signals = tf.gather(_signals(tables, strands), places)
        return {
            "length": length,
            "states": states,
            "labels": tf.gather(tf.constant(_LABEL_OF_STATE), states),
            "probabilities": tf.where(inside[..., None], probabilities, 0.0),
            "signals": tf.where(inside[..., None], signals, 0.0),
        }


def _one_more(values: tf.Tensor) -> list[list[int]]:
    """Return the paddings for one more entry along the first axis."""
    return [[0, 1], *[[0, 0]] * (len(values.shape) - 1)]


def _by_row(table: dict[str, tf.Tensor], batch: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return columns as `[batch, most]`, 0 in the padding, and the `count` `[batch]`."""
    row = table["row"]
    count = tf.math.bincount(row, minlength=batch, maxlength=batch)
    first = tf.cumsum(count, exclusive=True)
    places = tf.stack([row, tf.range(tf.size(row)) - tf.gather(first, row)], axis=1)
    shape = tf.stack([batch, tf.reduce_max(tf.concat([count, [0]], axis=0))])
    columns = {
        name: tf.scatter_nd(places, value, shape) for name, value in table.items() if name != "row"
    }
    return {**columns, "count": count}


def no_mask(bases: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Return which rows have no masked base, `<bool>[batch]`."""
    return tf.reduce_all((bases > 0) | ~tf.sequence_mask(length, tf.shape(bases)[1]), axis=1)


class _Read(NamedTuple):
    """The layout of some rows, their candidates, and the outputs of the network."""

    strands: Strands
    found: candidates.Candidates
    log_odds: tf.Tensor  # [candidates]
    start: tf.Tensor  # [candidates, STARTS], log-probabilities

    def probabilities(self) -> tf.Tensor:
        """Return the probability of each of `LABELS` at each base, `<float32>[size, 5]`.

        It sums those of all candidates over the base, each with all of its starts.
        """
        weight = tf.sigmoid(self.log_odds)[:, None] * tf.exp(self.start)
        exists = self.found.starts[..., 0] > 0
        weight = tf.cast(tf.where(exists, weight, 0.0), tf.float64)
        places = [tf.where(exists, at, 0) for at in self.found.spans[:2]]
        coding = []
        for strand in (1, -1):
            own = tf.where(self.found.spans.strand == strand, weight, 0.0)
            at = tf.concat(places, axis=0)
            steps = tf.concat([own, -own], axis=0)
            at, steps = tf.reshape(at, [-1, 1]), tf.reshape(steps, [-1])
            total = tf.cumsum(tf.scatter_nd(at, steps, self.strands.size[None]))
            coding.append(tf.maximum(tf.cast(total, tf.float32), 0.0))
        either = coding[0] + coding[1]
        scale = tf.maximum(either, 1.0)
        none = tf.zeros_like(either)
        rows = [1.0 - either / scale, coding[0] / scale, coding[1] / scale, none, none]
        return tf.stack(rows, axis=1)


def _paint(table: dict[str, tf.Tensor], strands: Strands) -> tf.Tensor:
    """Return the index in `STATES` of each base of the forward strand, `<int32>[size]`.

    Where two genes overlap, it is that of the longer one.
    """
    count = tf.size(table["row"])
    # One gene of no bases before all others.
    left, right, phase = (tf.pad(table[name], [[1, 0]]) for name in ("start", "end", "phase"))
    forward = tf.pad(table["strand"], [[1, 0]]) == 1
    base = tf.range(strands.size)
    begins = tf.scatter_nd(table["start"][:, None], tf.ones([count], tf.int32), [strands.size])
    last = tf.cumsum(begins)  # the gene that begins last

    def covers(gene: tf.Tensor) -> tf.Tensor:
        return tf.where(base < tf.gather(right, gene), tf.gather(right - left, gene), 0)

    before = tf.maximum(last - 1, 0)
    owner = tf.where(covers(before) > covers(last), before, last)
    is_coding = covers(owner) > 0
    offset = tf.where(
        tf.gather(forward, owner),
        base - tf.gather(left, owner),
        tf.gather(right, owner) - 1 - base,
    )
    place = (offset - tf.gather(phase, owner)) % 3
    state = 1 + place + tf.where(tf.gather(forward, owner), 0, 3)
    return tf.where(is_coding, state, 0)


def _signals(tables: Tables, strands: Strands) -> tf.Tensor:
    """Return the score of the codon that begins at each base, by strand, `<float32>[size, 2]`."""
    scores = gene_tables.codon_scores(tables, strands)
    forward, reverse = tf.split(scores, 2)
    return tf.stack([forward, tf.reverse(reverse, [0])], axis=1)


def signatures(model: keras.Model, config: Config, target: Target = PORTABLE) -> Signatures:
    """Make the exported functions.

    - `serving_default`, `tensors` and `explain`: as those of `tasks.dna.serving.signatures`, read
      with tables of organisms with the same fraction of G and C. `states` are indices of `STATES`,
      `signals` the score of the codon that begins at each base, on both strands.
    - `adapt`: `bases` `<int32>[batch, time]` (0 is a masked base, as between contigs of a genome),
      `length` and `code` `<int32>[batch]` (genetic code) -> the tables of each row's organism,
      counted in the row itself.
    - `similar`: `bases`, `length` -> the tables of organisms with the same fraction of G and C.
    - `genes`: `bases`, `length`, `code` and the tables -> the columns `COLUMNS`, `[batch, genes]`,
      and `count` `<int32>[batch]`. `start` and `end` are 0-based and half-open, the stop codon is
      included; `partial` is 1 for a gene that begins before its record, 2 for one that ends after
      it, 3 for both; `kind` is the index of the start codon, `binding` that of the motif and
      spacer in `gene_tables.BINDING`; `confidence` the probability of the gene,
      `start_confidence` that of its start if it is one.

    A row without a base, with a letter outside IUPAC, with an invalid `length`, or of more than
    `config.max_length` bases has labels "" (or 0) and no genes. So has a row beyond the budget of
    `MOST` bases; see `common.serving.rows.within_budget`.
    """
    finder = FrameFinder(model, config, target)
    return {**_label_signatures(finder), **_gene_signatures(finder)}


def _label_signatures(finder: FrameFinder) -> Signatures:
    """Make the functions that label bases."""
    letters = tf.constant([ord(letter) for letter in LABELS])
    sequence_spec = tf.TensorSpec([None], tf.string, name="sequence")

    def decode_rows(bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        valid = finder.valid(bases, length, finder.max_length, MOST) & no_mask(bases, length)
        steps = dict.fromkeys(("states", "probabilities", "signals", "labels"), same)
        inputs = {"bases": finder.clean(bases, length), "length": length}
        return run_valid(
            finder.decode, inputs, valid, fill={"length": 1}, timed=["bases"], steps=steps
        )

    run = shared(decode_rows)

    def label_text(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.strings.length(sequence)
        fits = (length > 0) & (length <= finder.max_length)
        sequence = tf.where(within_budget(fits, length, MOST), sequence, "")
        outputs = run(*encode_text(sequence))
        characters = tf.gather(letters, outputs["labels"])
        rows = tf.RaggedTensor.from_tensor(characters, outputs["length"])
        return {**outputs, "labels": tf.strings.unicode_encode(rows, "UTF-8")}

    @tf.function(input_signature=[sequence_spec], autograph=False)
    def serving_default(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = label_text(sequence)
        return {name: outputs[name] for name in ("labels", "probabilities")}

    @tf.function(input_signature=[BASES, LENGTH], autograph=False)
    def tensors(bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = run(bases, length)
        return {name: outputs[name] for name in ("labels", "probabilities", "states")}

    @tf.function(input_signature=[sequence_spec], autograph=False)
    def explain(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = label_text(sequence)
        return {name: outputs[name] for name in ("labels", "probabilities", "signals")}

    return {"serving_default": serving_default, "tensors": tensors, "explain": explain}


def _gene_signatures(finder: FrameFinder) -> Signatures:
    """Make the functions that return tables and genes."""
    table_specs = [
        tf.TensorSpec([None, *shape], tf.float32, name=name)
        for name, shape in table_shapes(len(finder.starts)).items()
    ]

    @tf.function(input_signature=[BASES, LENGTH, CODE], autograph=False)
    def adapt(bases: tf.Tensor, length: tf.Tensor, code: tf.Tensor) -> dict[str, tf.Tensor]:
        valid = finder.valid(bases, length, MOST_ADAPT, MOST_ADAPT)
        inputs = {"bases": finder.clean(bases, length), "length": length, "code": code}
        return run_valid(finder.adapt, inputs, valid, fill={"length": 1}, timed=["bases"])

    @tf.function(input_signature=[BASES, LENGTH], autograph=False)
    def similar(bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        valid = finder.valid(bases, length, MOST_ADAPT, MOST_ADAPT)

        def run(bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
            return finder.similar(bases, length)._asdict()

        inputs = {"bases": finder.clean(bases, length), "length": length}
        return run_valid(run, inputs, valid, fill={"length": 1}, timed=["bases"])

    @tf.function(input_signature=[BASES, LENGTH, CODE, *table_specs], autograph=False)
    def genes(
        bases: tf.Tensor,
        length: tf.Tensor,
        code: tf.Tensor,
        words: tf.Tensor,
        motif: tf.Tensor,
        binding: tf.Tensor,
        kinds: tf.Tensor,
        counted: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        tables = Tables(words, motif, binding, kinds, counted)._asdict()
        valid = finder.valid(bases, length, finder.max_length, MOST)
        inputs = {"bases": finder.clean(bases, length), "length": length, "code": code, **tables}
        return run_valid(finder.genes, inputs, valid, fill={"length": 1}, timed=["bases"])

    return {"adapt": adapt, "similar": similar, "genes": genes}


def examples(config: Config) -> Examples:
    """Return requests for each signature."""
    random = np.random.default_rng(0)
    requests = [{"sequence": np.array(SAMPLES, object)}]
    batch = {"bases": (1 << random.integers(0, 4, (2, 900))).astype(np.int32)}
    batch["length"] = np.array([900, 200], np.int32)
    coded = {**batch, "code": np.array([11, 4], np.int32)}
    tables = {
        name: random.normal(size=(2, *shape)).astype(np.float32)
        for name, shape in table_shapes(len(config.start_codons)).items()
    }
    return {
        "serving_default": requests,
        "explain": requests,
        "tensors": [batch],
        "adapt": [coded],
        "similar": [batch],
        "genes": [{**coded, **tables}],
    }
