"""The state grammar: valid gene structures as paths through states, one state per base.

    .                                  intergenic
    S1 S2 S3                           start codon
    C0 C1 C2                           codon positions
    D B A (one set for each class)     first base, body and last base of an intron
    X1 X2 P2 Y2                        the rest of a codon that an intron splits
    T1 T2 T3                           stop codon

The class of an intron records the beginning of the codon that it splits: nothing (`0`), one base
(`1T`, `1x`) or two (`2TA`, `2TG`, `2x`). So a stop codon cannot be split between two exons. Each
state of the reverse strand is the mirror image of a forward state: the same grammar, read from
right to left on the complement. Genes do not overlap; those without introns, which often do, are
found among open reading frames instead (`tasks.dna.frame_model`).

The states that a base allows (`Grammar.allowed`) follow from the sequence alone: an exact start
codon, no stop codon in frame, GT..AG or GC..AG around an intron. Beyond the ends of a record any
base is possible, so a gene may run off either end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from common.linear_chain import Constraints
from tasks.dna.genes import LABELS
from tasks.dna.nucleotides import COMPLEMENT

import numpy as np
import tensorflow as tf

INTERGENIC = 0  # the first state
UNKNOWN = -1  # in a path: any state
SIGNALS = ("start", "stop", "donor", "acceptor")  # channels that score one place of a gene
CONTEXT = 4  # bases on each side that `Grammar.allowed` reads, at most

_INTRON_CLASSES = ("0", "1T", "1x", "2TA", "2TG", "2x")
_END = "."  # as a target: the end of the gene


class _State(NamedTuple):
    """A state of the forward strand.

    Attributes:
      name: the name.
      label: its letter in `LABELS`.
      channels: the channels of the network whose sum is the score of the state.
      targets: the states that may follow.
    """

    name: str
    label: Literal["C", "I"]
    channels: tuple[str, ...]
    targets: tuple[str, ...]


def _forward_states() -> list[_State]:
    """Return the states of a forward gene."""
    codon_end = ("D0", "C0", "T1")  # may follow a whole codon
    states = [
        _State("S1", "C", ("C0", "start"), ("S2",)),
        _State("S2", "C", ("C1",), ("S3",)),
        _State("S3", "C", ("C2",), ("C0", "D0")),
        _State("C0", "C", ("C0",), ("C1", "D1T", "D1x")),
        _State("C1", "C", ("C1",), ("C2", "D2TA", "D2TG", "D2x")),
        _State("C2", "C", ("C2",), codon_end),
        _State("T1", "C", ("C0", "stop"), ("T2",)),
        _State("T2", "C", ("C1",), ("T3",)),
        _State("T3", "C", ("C2",), (_END,)),
    ]
    targets = {
        "0": ("C0", "T1"),
        "1T": ("X1T",),
        "1x": ("X1x",),
        "2TA": ("Y2TA",),
        "2TG": ("Y2TG",),
        "2x": ("P2",),
    }
    for name in _INTRON_CLASSES:
        intron = f"I{name[0]}"
        states.append(_State(f"D{name}", "I", (intron, "donor"), (f"B{name}",)))
        states.append(_State(f"B{name}", "I", (intron,), (f"B{name}", f"A{name}")))
        states.append(_State(f"A{name}", "I", (intron, "acceptor"), targets[name]))
    states.append(_State("X1T", "C", ("C1",), ("X2T",)))
    states.append(_State("X1x", "C", ("C1",), ("P2",)))
    states += [_State(name, "C", ("C2",), codon_end) for name in ("X2T", "P2", "Y2TA", "Y2TG")]
    return states


class Grammar:
    """The states of both strands, their transitions, and the states that each base allows.

    State 0 is intergenic. The forward states follow, then their mirror images in the same order.

    Args:
      starts: the start codons; all must end in TG.

    Attributes:
      names: names of the states; mirror images end in `'`.
      index: the state of each name.
      forward: number of forward states.
      channels: names of the network's output channels: `.`, then forward, then reverse.
      strand_channels: names of the forward ones.
      is_signal: `<bool>[channels]`, whether a channel is one of `SIGNALS`.
      labels: `<int32>[states]`, indices of `LABELS`.
      constraints: the valid transitions.
      mixing: `<float32>[channels, states]`, 1 where a channel contributes to the score of a state.
      swap: `<int32>[channels]`, the channel of the other strand for each channel.

    Example:
      >>> grammar = Grammar(("ATG", "GTG"))
      >>> grammar.names[:7]
      ('.', 'S1', 'S2', 'S3', 'C0', 'C1', 'C2')
      >>> grammar.states, grammar.names[1 + grammar.forward]
      (67, "S1'")
    """

    def __init__(self, starts: Sequence[str] = ("ATG",)):
        self.starts = tuple(starts)
        forward = _forward_states()
        self.forward = len(forward)
        names = [state.name for state in forward]
        self.names = (".", *names, *(f"{name}'" for name in names))
        self.index = {name: state for state, name in enumerate(self.names)}
        strand = tuple(dict.fromkeys(channel for state in forward for channel in state.channels))
        self.strand_channels = strand
        self.channels = (".", *strand, *(f"{name}'" for name in strand))
        self.is_signal = np.array([name.rstrip("'") in SIGNALS for name in self.channels])
        count = len(strand)
        self.swap = np.array([0, *range(1 + count, 1 + 2 * count), *range(1, 1 + count)], np.int32)
        self.labels = np.zeros(self.states, np.int32)
        self.mixing = np.zeros((len(self.channels), self.states), np.float32)
        self.mixing[0, INTERGENIC] = 1.0
        for place, state in enumerate(forward, start=1):
            mirror = place + self.forward
            self.labels[place] = LABELS.index(state.label)
            self.labels[mirror] = LABELS.index(state.label.lower())
            for channel in state.channels:
                row = 1 + strand.index(channel)
                self.mixing[row, place] = self.mixing[row + count, mirror] = 1.0
        self.constraints = Constraints(self._transitions(forward))

    def _transitions(self, forward: Sequence[_State]) -> np.ndarray:
        """Return the valid transitions, `<bool>[states, states]`."""
        table = np.zeros((self.states, self.states), bool)
        for place, state in enumerate(forward, start=1):
            for target in state.targets:
                if target != _END:
                    after = self.index[target]
                    table[place, after] = table[after + self.forward, place + self.forward] = True
        # From left to right, a forward gene runs from S1 to T3, a reverse gene from T3' to S1'.
        first = [self.index[name] for name in ("S1", "T3'")]
        last = [self.index[name] for name in ("T3", "S1'")]
        table[INTERGENIC, INTERGENIC] = True
        table[INTERGENIC, first] = table[last, INTERGENIC] = True
        table[np.ix_(last, first)] = True
        return table

    @property
    def states(self) -> int:
        """Number of states."""
        return len(self.names)

    def mirror(self, states: np.ndarray) -> np.ndarray:
        """Return the path of the reverse complement, `<int32>[bases]`.

        Args:
          states: the path of the sequence, `<int>[bases]`.
        """
        states = np.asarray(states)[::-1]
        forward = (states > 0) & (states <= self.forward)
        moved = np.where(forward, states + self.forward, states - self.forward)
        return np.where(states > 0, moved, states).astype(np.int32)

    def allowed(self, bases: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
        """Return the states that each base allows.

        Args:
          bases: `<int32>[batch, time]`, codes of `nucleotides.encode`.
          inside: `<bool>[batch, time]`, true inside the record and false in the padding, where any
            base is possible.

        Returns:
          `<bool>[batch, time, states]`.
        """
        forward = self._allowed_forward(bases, inside)
        other = tf.gather(tf.constant(COMPLEMENT), tf.reverse(bases, [1]))
        reverse = tf.reverse(self._allowed_forward(other, tf.reverse(inside, [1])), [1])
        intergenic = tf.ones_like(inside)[..., None]
        return tf.concat([intergenic, forward, reverse], axis=-1)

    def _allowed_forward(self, bases: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
        """Return the forward states that each base allows, `<bool>[batch, time, forward]`."""
        time = tf.shape(bases)[1]

        def is_one_of(letters: str) -> tf.Tensor:
            """Return whether a base is certainly one of some letters."""
            others = ~sum(1 << "ACGT".index(letter) for letter in letters)
            return ((bases & others) == 0) & (bases > 0)

        def at(test: tf.Tensor, offset: int, outside: bool) -> tf.Tensor:
            """Return the test `offset` bases further on; `outside` beyond the tensor."""
            padded = tf.pad(test, [[0, 0], [CONTEXT, CONTEXT]], constant_values=outside)
            return padded[:, CONTEXT + offset : CONTEXT + offset + time]

        def may_be(letters: str, offset: int = 0) -> tf.Tensor:
            """Test for some letters at an offset; true outside the record."""
            return at(is_one_of(letters) | ~inside, offset, True)

        def must_be(letters: str, offset: int = 0) -> tf.Tensor:
            """Test for some letters at an offset; false outside the record."""
            return at(is_one_of(letters) & inside, offset, False)

        def ends_stop(test: Callable[..., tf.Tensor]) -> tf.Tensor:
            """Test for the last two bases of a stop codon: AA, AG or GA."""
            return test("A", -1) & test("AG") | test("G", -1) & test("A")

        first = "".join(sorted({codon[0] for codon in self.starts}))
        donor, acceptor = may_be("G") & may_be("CT", 1), may_be("A", -1) & may_be("G")
        ta, tg = (must_be("T", -2) & must_be(base, -1) for base in "AG")
        rules = {
            "S1": may_be(first),
            "S2": may_be("T"),
            "S3": may_be("G"),
            "C2": ~(must_be("T", -2) & ends_stop(must_be)),
            "T1": may_be("T"),
            "T2": may_be("AG"),
            "T3": ends_stop(may_be),
            "X2T": ~ends_stop(must_be),
            "Y2TA": ~must_be("AG"),
            "Y2TG": ~must_be("A"),
            "D0": donor,
            "D1T": donor & may_be("T", -1),
            "D1x": donor & ~must_be("T", -1),
            "D2TA": donor & may_be("T", -2) & may_be("A", -1),
            "D2TG": donor & may_be("T", -2) & may_be("G", -1),
            "D2x": donor & ~ta & ~tg,
            **{f"A{name}": acceptor for name in _INTRON_CLASSES},
        }
        unrestricted = tf.ones_like(inside)
        names = self.names[1 : 1 + self.forward]
        return tf.stack([rules.get(name, unrestricted) for name in names], axis=-1)


@functools.lru_cache(maxsize=8)
def make_grammar(starts: tuple[str, ...]) -> Grammar:
    """Return the grammar with these start codons, the same object at each call."""
    return Grammar(starts)


@functools.lru_cache(maxsize=8)
def _allowed_function(grammar: Grammar) -> tf.types.experimental.PolymorphicFunction:
    specs = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.bool)]
    return tf.function(grammar.allowed, input_signature=specs, autograph=False)


def allowed_states(grammar: Grammar, bases: np.ndarray, *, block: int = 1 << 18) -> np.ndarray:
    """Return the states that each base of a record allows, computed block by block.

    Args:
      grammar: the grammar.
      bases: `<int32>[bases]`, a whole record.
      block: bases per block.

    Returns:
      `<bool>[bases, states]`.
    """
    function = _allowed_function(grammar)
    allowed = np.empty((len(bases), grammar.states), bool)
    for start in range(0, len(bases), block):
        end = min(len(bases), start + block)
        low, high = max(0, start - CONTEXT), min(len(bases), end + CONTEXT)
        piece = tf.constant(bases[None, low:high])
        result = function(piece, tf.ones_like(piece, tf.bool))[0].numpy()
        allowed[start:end] = result[start - low : end - low]
    return allowed
