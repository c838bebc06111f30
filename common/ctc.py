"""Connectionist temporal classification: loss, alignment, greedy and beam decoding, n-gram models.

A network says at every frame how likely each symbol is, or the blank. A path, one symbol a frame,
reads as the text that is left when repeats are merged and blanks are removed; the probability of a
text is the sum over all paths that read as it (Graves et al. 2006). **The blank is the last
symbol**, as in `tf.nn`.

True lengths count everywhere: frames beyond `frames` and labels beyond `label_length` change
nothing, whatever stands in them. (`keras.losses.CTC` counts padded frames as real ones.)

A label of n symbols, of which r repeat the one before, needs n + r frames, for a blank must part
the repeats: `frames_needed`. Look for pairs that cannot fit before training.

The best text is searched frame by frame over prefixes (`beam_search`, Hannun et al. 2014), if
wanted together with a language model over the same symbols (shallow fusion): an `Ngram` learnt from
transcripts, laid out as two tables, so that a step of it is two look-ups and the whole search is
graph code without custom ops, which any server runs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# The log-probability of what cannot be. Finite, so that no NaN can come of it.
LOW = -1e30

__all__ = [
    "LOW",
    "Hypotheses",
    "Ngram",
    "align",
    "beam_search",
    "compact",
    "frames_needed",
    "greedy",
    "log_likelihood",
    "loss",
]


def frames_needed(labels: Any, label_length: Any) -> tf.Tensor:
    """The least frames in which each label fits: its length and its repeats.

    Args:
        labels: `<int>[batch, symbols]`.
        label_length: `<int>[batch]`.

    Returns:
        `<int32>[batch]`.

    Example:
    >>> frames_needed([[3, 3, 5], [1, 2, 2]], [3, 2])
    [4, 2]
    """
    labels = tf.cast(labels, tf.int32)
    label_length = tf.cast(label_length, tf.int32)
    repeats = (labels[:, 1:] == labels[:, :-1]) & tf.sequence_mask(
        label_length - 1, tf.shape(labels)[1] - 1
    )
    return label_length + tf.reduce_sum(tf.cast(repeats, tf.int32), axis=1)


# --- Loss -----------------------------------------------------------------------------------------


def loss(log_probs: Any, labels: Any, frames: Any, label_length: Any) -> tf.Tensor:
    """The negative log-likelihood of each label, for training.

    One step of value and gradient at batch 16, 100 frames, 28 symbols, 30 symbols a label takes
    about as long as TensorFlow's sparse CPU kernel (22 and 18 ms on two shared cores) and a seventh
    of its dense form (153 ms), and runs wherever plain graph code does.

    Args:
        log_probs: `<float>[batch, time, symbols]`, log-softmax over the symbols, the blank last.
        labels: `<int>[batch, label]`, without blanks.
        frames: `<int>[batch]`, how many frames of each row are real.
        label_length: `<int>[batch]`.

    Returns:
        `<float32>[batch]`; infinite, with a gradient of 0, where a label cannot fit.
    """
    likelihood = log_likelihood(log_probs, labels, frames, label_length)
    return tf.where(likelihood > LOW / 2, -likelihood, np.inf)


def log_likelihood(log_probs: Any, labels: Any, frames: Any, label_length: Any) -> tf.Tensor:
    """The log-probability of each label: the sum over all its paths.

    The gradient is not automatic differentiation through the loop, but the probability of each
    symbol at each frame given the label, by one more walk from the end (forward-backward; Graves et
    al. 2006, eq. 16).

    Args:
        log_probs: as for `loss`, like the other arguments.
        labels: see there.
        frames: see there.
        label_length: see there.

    Returns:
        `<float32>[batch]`; about `LOW` where a label cannot fit, with a gradient of 0. A row
        without frames has 0 for the empty label.
    """

    @tf.custom_gradient
    def walk(log_probs: tf.Tensor) -> tuple[tf.Tensor, Any]:
        lattice = _Lattice(log_probs, labels, frames, label_length)
        forward, final = lattice.walk()
        total = lattice.total(final)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            share = lattice.occupancy(forward, total)
            return share * upstream[:, None, None]

        return total, gradient

    return walk(tf.cast(log_probs, tf.float32))


class _Lattice:
    """Paths of a label: states blank, first symbol, blank, second symbol, ..., blank.

    From a state a path may stay, go to the next, or jump over a blank between unequal symbols.
    """

    def __init__(self, log_probs: tf.Tensor, labels: Any, frames: Any, label_length: Any):
        self.symbols = log_probs.shape[-1]
        batch, self.time = tf.shape(log_probs)[0], _size(log_probs, 1)
        labels = tf.cast(labels, tf.int32)
        width = _size(labels, 1)
        self.frames = tf.clip_by_value(tf.cast(frames, tf.int32), 0, self.time)
        self.length = tf.cast(label_length, tf.int32)
        blank = tf.fill([batch, width + 1], self.symbols - 1)
        pairs = tf.stack([blank[:, :-1], labels], axis=2)
        #: `<int32>[batch, states]`, the symbol of each state
        self.state_symbols = tf.concat(
            [tf.reshape(pairs, [batch, 2 * width]), blank[:, -1:]], axis=1
        )
        known = tf.clip_by_value(self.state_symbols, 0, self.symbols - 1)
        self.one_hot = tf.one_hot(known, self.symbols, dtype=tf.float32)
        states = 2 * width + 1
        place = tf.range(states)[None, :]
        real = place <= 2 * self.length[:, None]
        jumps = (place % 2 == 1) & (place >= 3) & (known != tf.roll(known, 2, axis=1))
        self.jump = tf.where(jumps & real, 0.0, LOW)
        self.start = tf.where((place < 2) & real, 0.0, LOW)
        last = 2 * self.length[:, None]
        self.end = tf.where((place == last) | (place == last - 1), 0.0, LOW)
        #: `<float>[time, batch, states]`, the log-probability of each state's symbol
        gathered = tf.gather(log_probs, known, axis=2, batch_dims=1)
        gathered = tf.where(real[:, None, :], gathered, LOW)
        self.emissions = tf.transpose(tf.maximum(gathered, LOW), [1, 0, 2])

    def walk(self, *, best: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """The walk forward over the frames.

        Returns:
            `<float>[time, batch, states]`, log of the sum over all paths up to a state at a frame
            (with `best` instead `<int32>`, by how many states the best one came forward), and
            `<float>[batch, states]`, the sum (or the best) at the last real frame.
        """
        emissions = _array(self.emissions)
        kind = tf.int32 if best else tf.float32
        out = tf.TensorArray(kind, self.time, element_shape=self.emissions.shape[1:])

        def body(t: tf.Tensor, score: tf.Tensor, out: Any) -> Any:
            ways = tf.stack([score, _shift(score, 1), _shift(score, 2) + self.jump])
            together = tf.reduce_max(ways, axis=0) if best else _log_sum(ways)
            # The first frame begins at the start, which is not moved.
            new = tf.where(t == 0, score, together) + emissions.read(t)
            new = tf.where((t < self.frames)[:, None], tf.maximum(new, LOW), score)
            kept = tf.argmax(ways, axis=0, output_type=tf.int32) if best else new
            return t + 1, new, out.write(t, kept)

        _, final, out = tf.while_loop(
            lambda t, *_: t < self.time,
            body,
            (tf.constant(0), self.start, out),
            maximum_iterations=self.time,
        )
        return out.stack(), final

    def total(self, final: tf.Tensor) -> tf.Tensor:
        """The log-probability of the whole label."""
        total = tf.reduce_logsumexp(final + self.end, axis=1)
        empty = tf.where(self.length == 0, 0.0, LOW)
        return tf.where(self.frames > 0, tf.maximum(total, LOW), empty)

    def occupancy(self, forward: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """`<float>[batch, time, symbols]`, how likely each symbol is at each frame."""
        emissions, sums = _array(self.emissions), _array(forward)
        states = tf.TensorArray(tf.float32, self.time, element_shape=forward.shape[1:])

        def body(t: tf.Tensor, after: tf.Tensor, states: Any) -> Any:
            # `after`: log of the sum over what may follow a state, its own frame excluded.
            share = tf.exp(tf.minimum(sums.read(t) + after - total[:, None], 0.0))
            real = (t < self.frames)[:, None]
            states = states.write(t, tf.where(real, share, 0.0))
            here = tf.maximum(after + emissions.read(t), LOW)
            # The jump that is stored with its target.
            ways = [here, _shift(here, -1), _shift(here + self.jump, -2)]
            return t - 1, tf.where(real, _log_sum(tf.stack(ways)), after), states

        _, _, states = tf.while_loop(
            lambda t, *_: t >= 0,
            body,
            (tf.convert_to_tensor(self.time - 1), self.end, states),
            maximum_iterations=self.time,
        )
        share = tf.transpose(states.stack(), [1, 0, 2])
        fits = (total > LOW / 2) & (self.frames > 0)
        return tf.where(fits[:, None, None], share, 0.0) @ self.one_hot


def align(log_probs: Any, labels: Any, frames: Any, label_length: Any) -> tf.Tensor:
    """The most likely path of each label: which symbol is spoken at which frame.

    Args:
        log_probs: as for `loss`, like the other arguments.
        labels: see there.
        frames: see there.
        label_length: see there.

    Returns:
        `<int32>[batch, time]`: the place in the label of the symbol at each frame, -1 for the blank
        and beyond `frames`. Means nothing where a label cannot fit.

    Example:
    >>> align(tf.math.log([[[.1, .1, .8], [.8, .1, .1], [.1, .8, .1]]]), [[0, 1]], [3], [2])
    [[-1, 0, 1]]
    """
    lattice = _Lattice(tf.cast(log_probs, tf.float32), labels, frames, label_length)
    moves, final = lattice.walk(best=True)
    moves = _array(moves)
    path = tf.TensorArray(tf.int32, lattice.time, element_shape=[None])

    def body(t: tf.Tensor, state: tf.Tensor, path: Any) -> Any:
        real = t < lattice.frames
        path = path.write(t, tf.where(real & (state % 2 == 1), state // 2, -1))
        came = tf.maximum(state - tf.gather(moves.read(t), state, batch_dims=1), 0)
        return t - 1, tf.where(real, came, state), path

    last = tf.argmax(final + lattice.end, axis=1, output_type=tf.int32)
    _, _, path = tf.while_loop(
        lambda t, *_: t >= 0,
        body,
        (tf.convert_to_tensor(lattice.time - 1), last, path),
        maximum_iterations=lattice.time,
    )
    return tf.transpose(path.stack())


# --- Decoding -------------------------------------------------------------------------------------


class Hypotheses(NamedTuple):
    """What a search found, for each row the best first.

    Attributes:
        tokens: `<int32>[batch, width, time]`, -1 beyond `length`.
        length: `<int32>[batch, width]`.
        log_probability: `<float>[batch, width]`, of the text by the network alone, over those of
            its paths that the search kept (all of them if it is wide enough).
        score: `<float>[batch, width]`, what the search ranks by; `LOW` where it found nothing.
    """

    tokens: tf.Tensor
    length: tf.Tensor
    log_probability: tf.Tensor
    score: tf.Tensor


def greedy(log_probs: Any, frames: Any) -> Hypotheses:
    """Reads the most likely path: repeats merged, blanks removed.

    Args:
        log_probs: `<float>[batch, time, symbols]`, the blank last.
        frames: `<int>[batch]`.

    Returns:
        Hypotheses of width 1; `log_probability` and `score` are those of the one path.
    """
    log_probs = tf.cast(log_probs, tf.float32)
    real = tf.sequence_mask(frames, tf.shape(log_probs)[1])
    best = tf.argmax(log_probs, axis=-1, output_type=tf.int32)
    before = tf.pad(best[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
    emitted = real & (best != before) & (best != log_probs.shape[-1] - 1)
    tokens, length = compact(tf.where(emitted, best, -1))
    score = tf.reduce_sum(tf.where(real, tf.reduce_max(log_probs, axis=-1), 0.0), axis=1)
    return Hypotheses(tokens[:, None], length[:, None], score[:, None], score[:, None])


def beam_search(
    log_probs: Any,
    frames: Any,
    *,
    width: int,
    language_model: Ngram | None = None,
    weight: Any = 0.5,
    bonus: Any = 0.0,
) -> Hypotheses:
    """Searches the most likely texts, prefix by prefix (Hannun et al. 2014, algorithm 1).

    A text is ranked by

        log P(text | audio) + weight * log P(text, end of text) + bonus * its number of symbols

    where the first is summed over paths: the paths of a prefix that end in a blank and those that
    end in its last symbol are kept apart, and paths that come to read the same are merged.

    Args:
        log_probs: `<float>[batch, time, symbols]`, the blank last.
        frames: `<int>[batch]`.
        width: how many prefixes are kept at each frame.
        language_model: over the same symbols without the blank; `None`: the network alone.
        weight: of the language model, a scalar.
        bonus: for each symbol, against a language model's love of short texts; a scalar.

    Returns:
        `width` hypotheses a row.
    """
    log_probs = tf.cast(log_probs, tf.float32)
    batch, time, symbols = tf.shape(log_probs)[0], _size(log_probs, 1), log_probs.shape[-1] - 1
    frames = tf.clip_by_value(tf.cast(frames, tf.int32), 0, time)
    by_time = _array(tf.transpose(log_probs, [1, 0, 2]))
    weight, bonus = tf.cast(weight, tf.float32), tf.cast(bonus, tf.float32)
    empty = tf.tile(tf.where(tf.range(width) == 0, 0.0, LOW)[None, :], [batch, 1])
    nothing = tf.zeros([batch, width], tf.int32)
    beam = _Beam(
        blank=empty,
        label=tf.fill([batch, width], LOW),
        last=nothing - 1,
        state=nothing if language_model is None else nothing + language_model.start,
        fused=tf.zeros([batch, width]),
        # Slots that hold nothing yet have names of their own, which are nobody's prefix.
        name=tf.tile(tf.range(-1, -width - 1, -1, dtype=tf.int64)[None, :], [batch, 1]),
        parent=tf.fill([batch, width], tf.constant(-width - 1, tf.int64)),
    )
    tables = None
    if language_model is not None:  # read once: XLA has no look-up in a variable
        tables = tuple(map(tf.convert_to_tensor, language_model.tables))
    came = tf.TensorArray(tf.int32, time, element_shape=[None, width])
    said = tf.TensorArray(tf.int32, time, element_shape=[None, width])

    def body(t: tf.Tensor, beam: _Beam, came: Any, said: Any) -> Any:
        now = by_time.read(t)
        new, slot, symbol = _extend(beam, now, tables, weight, bonus)
        real = (t < frames)[:, None]
        beam = _Beam(*(tf.where(real, a, b) for a, b in zip(new, beam, strict=True)))
        came = came.write(t, tf.where(real, slot, tf.range(width)))
        return t + 1, beam, came, said.write(t, tf.where(real, symbol, -1))

    _, beam, came, said = tf.while_loop(
        lambda t, *_: t < time,
        body,
        (tf.constant(0), beam, came, said),
        maximum_iterations=time,
    )
    probability = _log_add(beam.blank, beam.label)
    score = probability + beam.fused
    if tables is not None:
        score += weight * tf.gather(tables[0][:, symbols], beam.state)
    score, slot = tf.math.top_k(tf.maximum(score, LOW), width)
    tokens, length = compact(_trace_back(came, said, slot, time))
    probability = tf.gather(probability, slot, batch_dims=1)
    return Hypotheses(tokens, length, tf.maximum(probability, LOW), score)


class _Beam(NamedTuple):
    """The prefixes that a search keeps; each `[batch, width]`."""

    blank: tf.Tensor  # log-probability of the prefix's paths that end in a blank
    label: tf.Tensor  # of those that end in its last symbol
    last: tf.Tensor  # that symbol; -1 where there is none
    state: tf.Tensor  # of the language model
    fused: tf.Tensor  # what language model and bonus add to the rank
    name: tf.Tensor  # a hash of the prefix, by which paths that read the same find each other
    parent: tf.Tensor  # the hash of the prefix without its last symbol


# An odd multiplier makes h -> h * m + c one-to-one modulo 2^64 (Knuth's MMIX constant).
_HASH = 6364136223846793005


def _extend(
    beam: _Beam, now: tf.Tensor, tables: Any, weight: tf.Tensor, bonus: tf.Tensor
) -> tuple[_Beam, tf.Tensor, tf.Tensor]:
    """One frame: gives the next prefixes, the slots they come from, and what each adds (or -1)."""
    width, symbols = beam.blank.shape[1], now.shape[1] - 1
    total = _log_add(beam.blank, beam.label)
    stay_blank = total + now[:, symbols:]
    no_last = beam.last < 0
    last = tf.maximum(beam.last, 0)
    stay_label = tf.where(no_last, LOW, beam.label + tf.gather(now, last, batch_dims=1))
    # A symbol again needs a blank between: else it would be a longer sound of the same.
    is_last = tf.one_hot(beam.last, symbols, on_value=True, off_value=False)
    more = tf.where(is_last, beam.blank[:, :, None], total[:, :, None]) + now[:, None, :symbols]
    # Where an extended prefix is one that the beam already holds, the paths join there.
    joins = (beam.name[:, :, None] == beam.parent[:, None, :]) & ~no_last[:, None, :]
    source = tf.argmax(tf.cast(joins, tf.int32), axis=1, output_type=tf.int32)
    joined = tf.gather(
        tf.reshape(more, [-1, width * symbols]), source * symbols + last, batch_dims=1
    )
    joined = tf.where(tf.reduce_any(joins, axis=1), joined, LOW)
    stay_label = _log_add(stay_label, joined)
    is_held = tf.cast(joins, tf.float32) @ tf.cast(is_last, tf.float32) > 0
    more = tf.where(is_held, LOW, more)
    gain = bonus
    if tables is not None:
        gain += weight * tf.gather(tables[0], beam.state)[:, :, :symbols]
    stay_rank = _log_add(stay_blank, stay_label) + beam.fused
    more_rank = more + beam.fused[:, :, None] + gain
    ranks = tf.concat([stay_rank, tf.reshape(more_rank, [-1, width * symbols])], axis=1)
    rank, index = tf.math.top_k(ranks, width)
    is_new = index >= width
    added = tf.maximum(index - width, 0)
    slot = tf.where(is_new, added // symbols, index)
    symbol = tf.where(is_new, added % symbols, -1)
    old = _Beam(*(tf.gather(value, slot, batch_dims=1) for value in beam))
    flat = tf.reshape(more, [-1, width * symbols])
    stay_blank = tf.gather(stay_blank, slot, batch_dims=1)
    stay_label = tf.gather(stay_label, slot, batch_dims=1)
    state, fused = old.state, old.fused + tf.where(is_new, bonus, 0.0)
    if tables is not None:
        place = tf.stack([old.state, tf.maximum(symbol, 0)], axis=-1)
        fused += tf.where(is_new, weight * tf.gather_nd(tables[0], place), 0.0)
        state = tf.where(is_new, tf.gather_nd(tables[1], place), old.state)
    new_name = old.name * _HASH + tf.cast(symbol, tf.int64) + 1
    # What fills a beam that has too few prefixes must not be taken for a prefix.
    found = rank > LOW / 2
    unique = -2 - width - tf.range(width, dtype=tf.int64)[None, :]
    return (
        _Beam(
            blank=tf.where(is_new | ~found, LOW, stay_blank),
            label=tf.where(
                found, tf.where(is_new, tf.gather(flat, added, batch_dims=1), stay_label), LOW
            ),
            last=tf.where(is_new, symbol, old.last),
            state=state,
            fused=fused,
            name=tf.where(found, tf.where(is_new, new_name, old.name), unique),
            parent=tf.where(is_new, old.name, old.parent),
        ),
        slot,
        symbol,
    )


def _trace_back(came: Any, said: Any, slot: tf.Tensor, time: Any) -> tf.Tensor:
    """What the prefixes in given slots added at each frame, `<int32>[batch, width, time]`."""
    path = tf.TensorArray(tf.int32, time, element_shape=[None, slot.shape[1]])

    def body(t: tf.Tensor, slot: tf.Tensor, path: Any) -> Any:
        path = path.write(t, tf.gather(said.read(t), slot, batch_dims=1))
        return t - 1, tf.gather(came.read(t), slot, batch_dims=1), path

    _, _, path = tf.while_loop(
        lambda t, *_: t >= 0,
        body,
        (tf.convert_to_tensor(time - 1), slot, path),
        maximum_iterations=time,
    )
    return tf.transpose(path.stack(), [1, 2, 0])


def compact(symbols: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves what is not -1 to the front.

    Args:
        symbols: `<int32>[..., time]`.

    Returns:
        The same, -1 at the end, and how many are not: `<int32>[...]`.

    Example:
    >>> compact([[-1, 3, -1, 5]])
    ([[3, 5, -1, -1]], [2])
    """
    symbols = tf.convert_to_tensor(symbols)
    is_gap = tf.cast(symbols < 0, tf.int32)
    order = tf.argsort(is_gap, axis=-1, stable=True)
    length = tf.shape(symbols)[-1] - tf.reduce_sum(is_gap, axis=-1)
    return tf.gather(symbols, order, batch_dims=symbols.shape.rank - 1), length


# --- Language model -------------------------------------------------------------------------------


class Ngram(tf.Module):
    """A model of which symbol follows which, up to `order` symbols long, as two tables.

    The probability of a symbol c after the history h, of which only the last `order - 1` symbols
    count, mixes what followed h with what followed its shorter endings (Witten & Bell 1991):

        P(c | h) = (count(h c) + kinds(h) * P(c | h')) / (count(h) + kinds(h))

    where h' is h without its first symbol, and kinds(h) how many different symbols followed h. The
    shortest mixes with 1 / symbols. Whole words of training transcripts fit into an order of 8 or
    so, and unseen ones keep a chance.

    The histories seen at least `min_count` times are the states of an automaton; from a state each
    symbol leads to the longest ending of history and symbol that is a state itself. So one step of
    a search is a look-up by state and symbol.

    Attributes:
        log_probs: `<float32>[states, symbols + 1]`; the last column is the end of the text.
        next_state: `<int32>[states, symbols]`.
        start: the state at the beginning of a text.

    Example:
    >>> model = Ngram([[0, 1, 1], [0, 1]], symbols=2, order=3)
    >>> np.exp(model.log_probs[model.start]).round(2)
    [0.77, 0.13, 0.1]
    """

    def __init__(
        self,
        sequences: Iterable[Sequence[int]],
        *,
        symbols: int,
        order: int,
        min_count: int = 1,
        max_states: int = 200_000,
    ):
        """Counts and lays out the tables.

        Args:
            sequences: texts as symbols from 0.
            symbols: how many there are, the blank not counted.
            order: symbols of the longest n-gram, the one that is foretold included.
            min_count: histories that were seen more rarely are left to their shorter endings.
            max_states: raises `min_count` until no more histories are left.
        """
        super().__init__(name="ngram")
        begin, end = symbols + 1, symbols  # `begin` stands in histories only
        follows: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for sequence in sequences:
            text = (begin, *map(int, sequence), end)
            for place in range(1, len(text)):
                for first in range(max(0, place - order + 1), place + 1):
                    follows[text[first:place]][text[place]] += 1
        follows[()] = follows[()]  # the empty history is a state even of an empty text
        follows.setdefault((begin,), Counter())
        totals = {history: sum(counts.values()) for history, counts in follows.items()}
        if len(totals) > max_states:
            ranked = sorted(totals.values(), reverse=True)
            min_count = max(min_count, ranked[max_states] + 1)
        kept = [h for h in follows if totals[h] >= min_count or h in ((), (begin,))]
        # Endings first: a history is never seen more often than its endings, which are kept, too.
        kept.sort(key=lambda history: (len(history), history))
        place_of = {history: place for place, history in enumerate(kept)}
        probs = np.empty((len(kept), symbols + 1), np.float64)
        after = np.empty((len(kept), symbols), np.int32)
        for place, history in enumerate(kept):
            shorter = probs[place_of[history[1:]]] if history else 1.0 / (symbols + 1)
            counts = follows[history]
            if counts:
                probs[place] = len(counts) * shorter
                probs[place, list(counts)] += list(counts.values())
                probs[place] /= totals[history] + len(counts)
            else:
                probs[place] = shorter
            # The longest ending that goes on: history's own extension, or its ending's.
            after[place] = after[place_of[history[1:]]] if history else 0
            for symbol in range(symbols):
                longer = place_of.get((*history, symbol))
                if longer is not None:
                    after[place, symbol] = longer
        self.log_probs = tf.Variable(np.log(probs), trainable=False, dtype=tf.float32)
        self.next_state = tf.Variable(after, trainable=False, dtype=tf.int32)
        self.start = place_of[(begin,)]

    @property
    def tables(self) -> tuple[tf.Variable, tf.Variable]:
        """`log_probs` and `next_state`."""
        return self.log_probs, self.next_state

    def perplexity(self, sequences: Iterable[Sequence[int]]) -> float:
        """How many symbols the model hesitates between, on average; ends of texts count."""
        log_probs, after = self.log_probs.numpy(), self.next_state.numpy()
        total, count = 0.0, 0
        for sequence in sequences:
            state = self.start
            for symbol in sequence:
                total += log_probs[state, symbol]
                state = after[state, symbol]
            total += log_probs[state, -1]
            count += len(sequence) + 1
        return float(np.exp(-total / max(count, 1)))


# --- Small parts ----------------------------------------------------------------------------------


def _size(value: tf.Tensor, axis: int) -> Any:
    """A dimension: a Python int where it is known, as XLA's loops want it."""
    known = value.shape[axis]
    return tf.shape(value)[axis] if known is None else known


def _array(value: tf.Tensor) -> tf.TensorArray:
    array = tf.TensorArray(value.dtype, _size(value, 0), element_shape=value.shape[1:])
    return array.unstack(value)


def _log_add(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.maximum(a, b) + tf.math.log1p(tf.exp(-tf.abs(a - b)))


def _log_sum(ways: tf.Tensor) -> tf.Tensor:
    """Log of the sum over the first axis."""
    best = tf.reduce_max(ways, axis=0)
    return best + tf.math.log(tf.reduce_sum(tf.exp(ways - best), axis=0))


def _shift(value: tf.Tensor, by: int) -> tf.Tensor:
    """Moves states up by `by` (down if negative); what comes in from outside is `LOW`."""
    if by > 0:
        return tf.pad(value, [[0, 0], [by, 0]], constant_values=LOW)[:, : tf.shape(value)[1]]
    return tf.pad(value, [[0, 0], [0, -by]], constant_values=LOW)[:, -by:]
