"""What a gene is: its exons, the grammar that every legal gene follows, and the way between them.

A gene is read base by base as a path through the states of a `Grammar`:

    .                                  intergenic
    S1 S2 S3                           start codon
    C0 C1 C2                           codon positions
    D B A (one set for each class)     first base, body and last base of an intron
    X1 X2 P2 Y2                        the rest of a codon that an intron splits
    T1 T2 T3                           stop codon

An intron belongs to a class, which remembers what its codon began with: nothing (`0`), one base
(`1T`, `1x`) or two (`2TA`, `2TG`, `2x`), so that no stop codon can hide in two exons. Each state of
the reverse strand is the mirror image of one of the forward strand: the same grammar read from
right to left on the complement. Bacterial genes have no introns, and the next gene of the same
strand may begin inside the stop codon: its start codon shares one base (`V3`: TAATG) or four
(`O3`: ATGA) with the gene before.

Which states a base allows (`Grammar.allowed`) follows from the sequence alone: an exact start
codon, no stop codon in frame, GT..AG or GC..AG around an intron. Beyond the ends of a record
anything may stand, so a gene may run off either end.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from common.crf import Constraints

import numpy as np
import tensorflow as tf

LABELS = ".CcIi"  # intergenic; coding and intron, forward; the same on the reverse strand
# The IUPAC letters by the bases they stand for: bit 0 is A, then C, G, T.
LETTERS = "-ACMGRSVTWYHKDBN"
INTERGENIC = 0
UNKNOWN = -1  # in a path: any state

# The signals, with how many bases before and behind the state that has it tell of it.
SIGNALS = {"start": (12, 6), "stop": (6, 8), "donor": (4, 8), "acceptor": (25, 3)}
REACH = 25  # the most of them
ORDER = 5  # bases before a base that tell of it
WORDS = 4 ** (ORDER + 1)

_CODE = np.full(256, -1, np.int32)
for _bits, _letter in enumerate(LETTERS[1:], start=1):
    _CODE[[ord(_letter), ord(_letter.lower())]] = _bits
_CODE[[ord("U"), ord("u")]] = 8
# The share of A, C, G and T in each letter.
SHARES = np.array([[bits >> base & 1 for base in range(4)] for bits in range(16)], np.float32)
SHARES /= np.maximum(SHARES.sum(axis=1, keepdims=True), 1.0)
COMPLEMENT = np.array(
    [sum((bits >> base & 1) << (3 - base) for base in range(4)) for bits in range(16)], np.int32
)


def encode(sequence: str | bytes) -> np.ndarray:
    """The bases of a sequence as bits, `<int32>[bases]`; -1 for what is no IUPAC letter.

    Example:
      >>> encode("ACGTN-acgu")
      array([ 1,  2,  4,  8, 15, -1,  1,  2,  4,  8], dtype=int32)
    """
    raw = sequence.encode("latin-1", "replace") if isinstance(sequence, str) else sequence
    return _CODE[np.frombuffer(raw, np.uint8)]


def reverse_complement(bases: np.ndarray) -> np.ndarray:
    """The other strand, in its own reading direction."""
    return COMPLEMENT[bases[::-1]]


_DIGIT = np.full(16, -1, np.int32)
_DIGIT[[1, 2, 4, 8]] = range(4)


def words_of(bases: Any) -> tf.Tensor:
    """The word of six bases that ends at each base, as a number; `WORDS` where one is not certain.

    Args:
      bases: `<int32>[batch, time]`, bits of `encode`.

    Example:
      >>> words_of(encode("AAAAACGN")[None])
      [[4096, 4096, 4096, 4096, 4096, 1, 6, 4096]]
    """
    digits = tf.gather(tf.constant(_DIGIT), bases)
    time = tf.shape(digits)[1]
    padded = tf.pad(digits, [[0, 0], [ORDER, 0]], constant_values=-1)
    word, sound = tf.zeros_like(digits), tf.ones_like(digits, tf.bool)
    for offset in range(ORDER + 1):
        digit = padded[:, offset : offset + time]
        word, sound = 4 * word + digit, sound & (digit >= 0)
    return tf.where(sound, word, WORDS)


@dataclasses.dataclass(frozen=True, order=True)
class Gene:
    """The coding part of a gene.

    Attributes:
      exons: coding stretches as 0-based half-open ranges in rising order, the stop codon included.
      strand: 1 or -1.
      has_start: whether it begins with its start codon; else it runs off the record there.
      has_stop: whether it ends with its stop codon; likewise.
      phase: bases before the first whole codon, where it has no start.
      pseudo: whether it is a broken gene: neither scored nor learnt from, as gene or as none.
    """

    exons: tuple[tuple[int, int], ...]
    strand: int
    has_start: bool = True
    has_stop: bool = True
    phase: int = 0
    pseudo: bool = False

    @property
    def start(self) -> int:
        """The leftmost base."""
        return self.exons[0][0]

    @property
    def end(self) -> int:
        """One beyond the rightmost base."""
        return self.exons[-1][1]

    @property
    def bases(self) -> int:
        """How many coding bases it has."""
        return sum(end - start for start, end in self.exons)

    @property
    def stop(self) -> int | None:
        """The outermost base of the stop codon, by which a stop is known."""
        if not self.has_stop:
            return None
        return self.end - 1 if self.strand == 1 else self.start

    def without_stop(self) -> tuple[tuple[int, int], ...]:
        """The exons less the stop codon, as gene finders are scored.

        Example:
          >>> Gene(((0, 9), (20, 22)), 1).without_stop()
          ((0, 8),)
        """
        if not self.has_stop:
            return self.exons
        left, kept = 3, []
        for start, end in self.exons if self.strand == -1 else reversed(self.exons):
            cut = min(left, end - start)
            left -= cut
            if end - start > cut:
                kept.append((start + cut, end) if self.strand == -1 else (start, end - cut))
        return tuple(sorted(kept))

    def shifted(self, by: int) -> Gene:
        """The same gene further to the right."""
        exons = tuple((start + by, end + by) for start, end in self.exons)
        return dataclasses.replace(self, exons=exons)

    def mirrored(self, length: int) -> Gene:
        """The same gene on the reverse complement of a record of `length` bases."""
        exons = tuple((length - end, length - start) for start, end in reversed(self.exons))
        return dataclasses.replace(self, exons=exons, strand=-self.strand)


@dataclasses.dataclass(frozen=True)
class Record:
    """A stretch of DNA and what is known of its genes.

    Attributes:
      name: of the record.
      sequence: IUPAC letters.
      genes: by position.
    """

    name: str
    sequence: str
    genes: tuple[Gene, ...] = ()


# --- The grammar ----------------------------------------------------------------------------------

Kind = Literal["C", "I"]
_CLASSES = ("0", "1T", "1x", "2TA", "2TG", "2x")


class _State(NamedTuple):
    """A state of the forward strand: its label and the channels of the network that score it."""

    name: str
    kind: Kind
    channels: tuple[str, ...]
    targets: tuple[str, ...]


def _forward_states(spliced: bool) -> list[_State]:
    """The states of a forward gene; the target `.` stands for the end of the gene."""
    first_introns = ("D0",) if spliced else ()
    ends = (*first_introns, "C0", "T1")  # what may follow a whole codon
    states = [
        _State("S1", "C", ("C0", "start"), ("S2",)),
        _State("S2", "C", ("C1",), ("S3",)),
        _State("S3", "C", ("C2",), ("C0", *first_introns)),
        _State("C0", "C", ("C0",), ("C1", *(("D1T", "D1x") if spliced else ()))),
        _State("C1", "C", ("C1",), ("C2", *(("D2TA", "D2TG", "D2x") if spliced else ()))),
        _State("C2", "C", ("C2",), ends),
        _State("T1", "C", ("C0", "stop"), ("T2",)),
        _State("T2", "C", ("C1",), ("T3",) if spliced else ("T3", "V3", "O3")),
        _State("T3", "C", ("C2",), (".",)),
    ]
    if not spliced:
        states.append(_State("V3", "C", ("C0", "start"), ("S2",)))
        states.append(_State("O3", "C", ("C0", "start"), ("C1",)))
        return states
    for name in _CLASSES:
        intron = f"I{name[0]}"
        after = {
            "0": ("C0", "T1"),
            "1T": ("X1T",),
            "1x": ("X1x",),
            "2TA": ("Y2TA",),
            "2TG": ("Y2TG",),
            "2x": ("P2",),
        }[name]
        states.append(_State(f"D{name}", "I", (intron, "donor"), (f"B{name}",)))
        states.append(_State(f"B{name}", "I", (intron,), (f"B{name}", f"A{name}")))
        states.append(_State(f"A{name}", "I", (intron, "acceptor"), after))
    states.append(_State("X1T", "C", ("C1",), ("X2T",)))
    states.append(_State("X1x", "C", ("C1",), ("P2",)))
    states += [_State(name, "C", ("C2",), ends) for name in ("X2T", "P2", "Y2TA", "Y2TG")]
    return states


class Grammar:
    """The states of both strands, what may follow what, and what a base allows.

    State 0 is intergenic; then come the forward states, then their mirror images in the same order.

    Args:
      spliced: with introns; without, start codons may overlap the stop codon before.
      starts: the start codons, all of which end in TG.

    Attributes:
      names: of the states; mirror images have a `'`.
      channels: of the network's answer, `.` first, then forward, then reverse.
      labels: `<int32>[states]`, the index in `LABELS`.
      constraints: which paths are legal.
      mixing: `<float32>[channels, states]`, which channels score a state.
      swap: `<int32>[channels]`, what a channel becomes on the other strand.
    """

    def __init__(self, *, spliced: bool, starts: Sequence[str] = ("ATG",)):
        self.spliced, self.starts = spliced, tuple(starts)
        forward = _forward_states(spliced)
        self.forward = len(forward)
        own = [state.name for state in forward]
        self.names = (".", *own, *(f"{name}'" for name in own))
        self.index = {name: i for i, name in enumerate(self.names)}
        one = list(dict.fromkeys(channel for state in forward for channel in state.channels))
        self.channels = (".", *one, *(f"{name}'" for name in one))
        states, count = len(self.names), len(one)
        table = np.zeros((states, states), bool)
        self.mixing = np.zeros((len(self.channels), states), np.float32)
        self.mixing[0, 0] = 1.0
        self.labels = np.zeros(states, np.int32)
        for place, state in enumerate(forward, start=1):
            mirror = place + self.forward
            self.labels[place] = LABELS.index(state.kind)
            self.labels[mirror] = LABELS.index(state.kind.lower())
            for channel in state.channels:
                row = 1 + one.index(channel)
                self.mixing[row, place] = self.mixing[row + count, mirror] = 1.0
            for target in state.targets:
                if target != ".":
                    after = self.index[target]
                    table[place, after] = table[after + self.forward, mirror] = True
        # A gene ends on the right with T3, or with the mirror of S1; it begins likewise.
        last, first = self._places("T3", "S1'"), self._places("S1", "T3'")
        table[0, 0] = True
        table[0, first] = table[last, 0] = True
        table[np.ix_(last, first)] = True
        self.constraints = Constraints(table)
        self.swap = np.array([0, *range(1 + count, 1 + 2 * count), *range(1, 1 + count)], np.int32)

    def _places(self, *names: str) -> list[int]:
        return [self.index[name] for name in names]

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.names)

    def mirror(self, states: np.ndarray) -> np.ndarray:
        """The path of the reverse complement: `<int32>[bases]` to the same."""
        states = np.asarray(states)[::-1]
        forward = (states > 0) & (states <= self.forward)
        moved = np.where(forward, states + self.forward, states - self.forward)
        return np.where(states > 0, moved, states).astype(np.int32)

    def allowed(self, bases: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
        """Which states each base allows.

        Args:
          bases: `<int32>[batch, time]`, bits of `encode`.
          inside: `<bool>[batch, time]`, false in the padding, of which nothing is known.

        Returns:
          `<bool>[batch, time, states]`.
        """
        forward = self._allowed_forward(bases, inside)
        other = tf.gather(tf.constant(COMPLEMENT), tf.reverse(bases, [1]))
        reverse = tf.reverse(self._allowed_forward(other, tf.reverse(inside, [1])), [1])
        always = tf.ones_like(inside)[..., None]
        return tf.concat([always, forward, reverse], axis=-1)

    def _allowed_forward(self, bases: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
        time = tf.shape(bases)[1]

        def at(test: tf.Tensor, offset: int, beyond: bool) -> tf.Tensor:
            """What holds `offset` bases further on; `beyond` the record."""
            padded = tf.pad(test, [[0, 0], [4, 4]], constant_values=beyond)
            return padded[:, 4 + offset : 4 + offset + time]

        def is_(letters: str, offset: int = 0) -> tf.Tensor:
            """Whether a base is certainly one of some letters, or beyond the record."""
            test = (bases & ~sum(1 << "ACGT".index(x) for x in letters)) == 0
            return at(test & (bases > 0) | ~inside, offset, True)

        def seen(letters: str, offset: int = 0) -> tf.Tensor:
            """Whether a base of the record is certainly one of some letters."""
            test = (bases & ~sum(1 << "ACGT".index(x) for x in letters)) == 0
            return at(test & (bases > 0) & inside, offset, False)

        def pair(test: Callable[..., tf.Tensor]) -> tf.Tensor:
            """The two bases up to this one end a stop codon that began with T."""
            return test("A", -1) & test("AG") | test("G", -1) & test("A")

        anything = tf.ones_like(inside)
        first = "".join(sorted({codon[0] for codon in self.starts}))
        rules = {
            "S1": is_(first),
            "S2": is_("T"),
            "S3": is_("G"),
            "C2": ~(seen("T", -2) & pair(seen)),
            "T1": is_("T"),
            "T2": is_("AG"),
            "T3": pair(is_),
            "V3": pair(is_) & is_(first),
            "O3": is_(first, -3) & is_("T", -2) & is_("G", -1) & is_("A"),
            "X2T": ~pair(seen),
            "Y2TA": ~seen("AG"),
            "Y2TG": ~seen("A"),
        }
        if self.spliced:
            donor, acceptor = is_("G") & is_("CT", 1), is_("A", -1) & is_("G")
            ta, tg = (seen("T", -2) & seen(base, -1) for base in "AG")
            rules |= {f"A{name}": acceptor for name in _CLASSES}
            rules |= {
                "D0": donor,
                "D1T": donor & is_("T", -1),
                "D1x": donor & ~seen("T", -1),
                "D2TA": donor & is_("T", -2) & is_("A", -1),
                "D2TG": donor & is_("T", -2) & is_("G", -1),
                "D2x": donor & ~ta & ~tg,
            }
        names = self.names[1 : 1 + self.forward]
        return tf.stack([rules.get(name, anything) for name in names], axis=-1)

    # --- from genes to a path ---------------------------------------------------------------------

    def path(self, record: Record) -> Path:
        """The path of a record's genes; see `Path`."""
        return _path(self, record)

    # --- and back ---------------------------------------------------------------------------------

    def genes(self, states: np.ndarray) -> list[Gene]:
        """The genes of a path `<int>[bases]`, by position."""
        states = np.asarray(states)
        found = self._forward_genes(states)
        mirrored = self._forward_genes(self.mirror(states))
        found += [gene.mirrored(len(states)) for gene in mirrored]
        return sorted(found)

    def _forward_genes(self, states: np.ndarray) -> list[Gene]:
        inside = (states > 0) & (states <= self.forward)
        ends = np.isin(states, [self.index[x] for x in ("T3", "V3", "O3") if x in self.index])
        before = np.concatenate([[False], inside[:-1]])
        fresh = np.concatenate([[True], ends[:-1]])
        after = np.concatenate([inside[1:], [False]])
        firsts = np.flatnonzero(inside & (~before | fresh))
        lasts = np.flatnonzero(inside & (~after | ends))
        coding = self.labels == LABELS.index("C")
        genes = []
        for first, last in zip(firsts, lasts, strict=True):
            # A gene that began inside the stop codon before it shares bases with that one.
            joined = self.names[states[first - 1]] if first and inside[first - 1] else ""
            shared = {"V3": 1, "O3": 4}.get(joined, 0)
            is_coding = coding[states[first : last + 1]]
            edges = np.flatnonzero(np.diff(np.concatenate([[0], is_coding, [0]]).astype(np.int8)))
            exons = [(int(first + a), int(first + b)) for a, b in edges.reshape(-1, 2)]
            if not exons:
                continue  # an intron across the whole record
            lost = max(0, shared - first)  # of its start codon, beyond the record
            exons[0] = (max(0, exons[0][0] - shared), exons[0][1])
            has_start = not lost and (bool(shared) or self.names[states[first]] == "S1")
            has_stop, phase = bool(ends[last]), 0
            if lost:
                phase = -lost % 3
            elif not has_start:
                name = self.names[states[exons[0][0]]]
                phase = -(int(name[1]) - (name[0] in "STVO")) % 3
            gene = Gene(tuple(exons), 1, has_start, has_stop, phase)
            # What is left of a start or stop codon at the edge of a record is no gene.
            if gene.bases > 3 or (gene.bases == 3 and not has_stop):
                genes.append(gene)
        return genes


@functools.lru_cache(maxsize=8)
def grammar(spliced: bool, starts: tuple[str, ...]) -> Grammar:
    """One grammar for each setting."""
    return Grammar(spliced=spliced, starts=starts)


@dataclasses.dataclass(frozen=True)
class Path:
    """What a record's genes are to the model.

    Attributes:
      states: `<int32>[bases]`; `UNKNOWN` where a gene lies that the grammar does not know.
      legal: genes that the path holds.
      overlapping: genes that lost bases to a longer one in a way that the grammar does not know.
      illegal: genes that break it otherwise: another start codon, no stop codon or one in frame,
        other splice sites, an exon too short.
    """

    states: np.ndarray
    legal: tuple[Gene, ...]
    overlapping: tuple[Gene, ...]
    illegal: tuple[Gene, ...]


def _gene_states(grammar: Grammar, gene: Gene, bases: np.ndarray) -> np.ndarray | None:
    """The states of a gene of the forward strand from its first base to its last.

    The bases are those of the record. `None` if there is no such path; the letters are not judged.
    """
    index = grammar.index
    coding = gene.bases
    if gene.has_start and gene.has_stop and (coding % 3 or coding < 9):
        return None
    phase = 0 if gene.has_start else gene.phase
    if not gene.has_start and gene.has_stop:
        phase = coding % 3
    if gene.has_stop and (coding - phase) % 3:
        return None
    if len(gene.exons) > 1 and not grammar.spliced:
        return None
    states = np.zeros(gene.end - gene.start, np.int32)
    position = (3 - phase) % 3  # in the codon
    done = 0  # coding bases so far
    for number, (start, end) in enumerate(gene.exons):
        names = [f"C{(position + k) % 3}" for k in range(end - start)]
        if number:
            size = start - gene.exons[number - 1][1]
            if size < 4:
                return None
            stop = gene.exons[number - 1][1]
            letters = "".join(LETTERS[x] for x in bases[max(0, stop - position) : stop])
            if position == 0:
                kind = "0"
            elif position == 1:
                kind = "1T" if letters == "T" else "1x"
            else:
                kind = f"2{letters}" if letters in ("TA", "TG") else "2x"
            if position == 1:
                if end - start < 2:
                    return None
                names[:2] = ["X1T", "X2T"] if kind == "1T" else ["X1x", "P2"]
            elif position == 2:
                names[0] = "P2" if kind == "2x" else f"Y{kind}"
            intron = [index[f"D{kind}"], *[index[f"B{kind}"]] * (size - 2), index[f"A{kind}"]]
            states[stop - gene.start : start - gene.start] = intron
        for k in range(len(names)):
            if gene.has_start and done + k < 3:
                names[k] = f"S{done + k + 1}"
            if gene.has_stop and coding - (done + k) <= 3:
                names[k] = f"T{3 - (coding - done - k - 1)}"
        states[start - gene.start : end - gene.start] = [index[name] for name in names]
        done += end - start
        position = (position + end - start) % 3
    return states


def _path(grammar: Grammar, record: Record) -> Path:
    size = len(record.sequence)
    bases = encode(record.sequence)
    other = reverse_complement(bases)
    allowed = _allowed(grammar, bases)
    table = grammar.constraints.transitions
    states = np.zeros(size, np.int32)
    illegal, sound, overlapping = [], [], []
    for gene in record.genes:
        if gene.pseudo:
            illegal.append((gene, None))
            continue
        if gene.strand == 1:
            own = _gene_states(grammar, gene, bases)
        else:
            own = _gene_states(grammar, gene.mirrored(size), other)
            own = None if own is None else grammar.mirror(own)
        fits = own is not None and allowed[np.arange(gene.start, gene.end), own].all()
        fits = fits and table[own[:-1], own[1:]].all()
        (sound if fits else illegal).append((gene, own))
    # The longest first; what comes later and does not fit beside it gives way.
    placed: dict[int, Gene] = {}
    taken = np.full(size, -1, np.int32)
    unknown = np.zeros(size, bool)
    for gene, own in sorted(sound, key=lambda pair: (-pair[0].bases, pair[0])):
        span = slice(gene.start, gene.end)
        rivals = {int(x) for x in np.unique(taken[span]) if x >= 0}
        joints = [_joint(grammar, gene, placed[rival]) for rival in rivals]
        if any(joint is None for joint in joints):
            overlapping.append(gene)
            unknown[span] |= taken[span] < 0
            continue
        number = len(placed)
        placed[number] = gene
        free = taken[span] < 0
        states[span] = np.where(free, own, states[span])
        taken[span] = np.where(free, number, taken[span])
        for start, values in joints:
            where = np.arange(start, start + len(values))
            if allowed[where, values].all():
                states[where] = values
            else:
                unknown[where] = True
    for gene, _ in illegal:
        span = slice(gene.start, gene.end)
        unknown[span] |= taken[span] < 0
    states = np.where(unknown, UNKNOWN, states)
    # Neighbours that no path joins: both sides are left open, far enough for a gene to end.
    pairs = (states[:-1] >= 0) & (states[1:] >= 0)
    broken = np.flatnonzero(pairs & ~table[states[:-1], states[1:]])
    for place in broken:
        for number in {int(taken[place]), int(taken[place + 1])} - {-1}:
            states[placed[number].start : placed[number].end] = UNKNOWN
    legal = tuple(sorted(placed.values()))
    return Path(
        states,
        legal,
        tuple(sorted(overlapping)),
        tuple(gene for gene, _ in illegal if not gene.pseudo),
    )


def _joint(grammar: Grammar, gene: Gene, rival: Gene) -> tuple[int, list[int]] | None:
    """How two overlapping genes of one strand are written: where, and the states there.

    `None` if the grammar has no way to write them.
    """
    if grammar.spliced or gene.strand != rival.strand:
        return None
    left, right = sorted((gene, rival), key=lambda g: g.start)
    shared = left.end - right.start
    if right.end <= left.end or shared not in (1, 4):
        return None
    first, second = (left, right) if gene.strand == 1 else (right, left)
    if not (first.has_stop and second.has_start):
        return None
    names = {1: ["T1", "T2", "V3"], 4: ["T1", "T2", "O3"]}[shared]
    if gene.strand == 1:
        values = [grammar.index[name] for name in ["C2", *names][-max(3, shared) :]]
        return first.end - len(values), values
    values = [grammar.index[f"{name}'"] for name in reversed(["C2", *names][-max(3, shared) :])]
    return first.start, values


@functools.lru_cache(maxsize=8)
def _allowed_in_graph(grammar: Grammar) -> tf.types.experimental.PolymorphicFunction:
    specs = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.bool)]
    return tf.function(grammar.allowed, input_signature=specs, autograph=False)


def _allowed(grammar: Grammar, bases: np.ndarray, block: int = 1 << 18) -> np.ndarray:
    """`Grammar.allowed` of one record, `<bool>[bases, states]`, in pieces."""
    ask = _allowed_in_graph(grammar)
    found = np.empty((len(bases), grammar.states), bool)
    for start in range(0, len(bases), block):
        low, high = max(0, start - 4), min(len(bases), start + block + 4)
        piece = tf.constant(bases[None, low:high])
        answer = ask(piece, tf.ones_like(piece, tf.bool))[0].numpy()
        end = min(len(bases), start + block)
        found[start:end] = answer[start - low : end - low]
    return found


def labels_of(genes: Iterable[Gene], size: int) -> np.ndarray:
    """The label of each base, `<int8>[size]`, an index of `LABELS`; the longer gene counts."""
    labels = np.zeros(size, np.int8)
    for gene in sorted(genes, key=lambda gene: gene.bases):
        coding, intron = (1, 3) if gene.strand == 1 else (2, 4)
        labels[gene.start : gene.end] = intron
        for start, end in gene.exons:
            labels[start:end] = coding
    return labels


def to_text(labels: Any) -> str:
    """Label indices as letters.

    Example:
      >>> to_text([0, 1, 3, 2])
      '.CIc'
    """
    return np.frombuffer(LABELS.encode(), np.uint8)[np.asarray(labels)].tobytes().decode()
