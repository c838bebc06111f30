"""State paths: from the genes of a record to the states of its bases, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from tasks.dna.genes import LABELS, Gene, Record
from tasks.dna.grammar import INTERGENIC, UNKNOWN, Grammar, allowed_states
from tasks.dna.nucleotides import LETTERS, encode, reverse_complement

import numpy as np

# States of the rest of a codon, by the class of the intron that splits it.
_CODON_RESTS = {
    "0": (),
    "1T": ("X1T", "X2T"),
    "1x": ("X1x", "P2"),
    "2TA": ("Y2TA",),
    "2TG": ("Y2TG",),
    "2x": ("P2",),
}


@dataclasses.dataclass(frozen=True)
class StatePath:
    """The states of a record, and the genes that they represent.

    Attributes:
      states: `<int32>[bases]`, `UNKNOWN` at genes that the grammar cannot represent.
      valid: genes on the path.
      overlapping: genes that overlap a longer gene.
      invalid: genes that break the grammar otherwise: another start codon, no stop codon or one in
        frame, other splice sites, or too short an exon.
    """

    states: np.ndarray
    valid: tuple[Gene, ...]
    overlapping: tuple[Gene, ...]
    invalid: tuple[Gene, ...]


class EncodedRecords:
    """Records as arrays of bases and states.

    Args:
      records: the annotated records.
      grammar: the grammar of the states.

    Attributes:
      grammar: the grammar.
      paths: the path of each record.
      bases: `<int8>[bases]` of each record, codes of `nucleotides.encode`.
      states: `<int8>[bases]` of each record.
    """

    def __init__(self, records: Sequence[Record], grammar: Grammar):
        self.grammar = grammar
        self.paths = [path_of(grammar, record) for record in records]
        self.bases = [encode(record.sequence).astype(np.int8) for record in records]
        self.states = [path.states.astype(np.int8) for path in self.paths]

    @property
    def size(self) -> int:
        """Number of bases of all records."""
        return sum(map(len, self.bases))

    def counts(self) -> dict[str, int]:
        """Return the numbers of valid, overlapping and invalid genes."""
        kinds = ("valid", "overlapping", "invalid")
        return {kind: sum(len(getattr(path, kind)) for path in self.paths) for kind in kinds}

    def strands(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield bases and states of each record, then of its reverse complement."""
        for bases, states in zip(self.bases, self.states, strict=True):
            yield bases, states
            yield reverse_complement(bases), self.grammar.mirror(states)


# --- From genes to a path -------------------------------------------------------------------------


def path_of(grammar: Grammar, record: Record) -> StatePath:
    """Return the path that represents the genes of a record.

    Longer genes take precedence: a shorter gene that overlaps a longer one is not on the path.

    Example:
      >>> grammar = Grammar()
      >>> path = path_of(grammar, Record("r", "CATGGCCTAAC", (Gene(((1, 10),), 1),)))
      >>> [grammar.names[state] for state in path.states]
      ['.', 'S1', 'S2', 'S3', 'C0', 'C1', 'C2', 'T1', 'T2', 'T3', '.']
    """
    bases = encode(record.sequence)
    strands = {1: bases, -1: reverse_complement(bases)}
    allowed = allowed_states(grammar, bases)
    valid: list[tuple[Gene, np.ndarray]] = []
    unfit: list[Gene] = []
    for gene in record.genes:
        states = None if gene.pseudo else _states_of(grammar, gene, strands, allowed)
        if states is None:
            unfit.append(gene)
        else:
            valid.append((gene, states))
    layout = _Layout(grammar, len(bases))
    overlapping = []
    for gene, states in sorted(valid, key=lambda pair: (-pair[0].coding_length, pair[0])):
        if not layout.place(gene, states):
            overlapping.append(gene)
    for gene in unfit:
        layout.leave_open(gene)
    return StatePath(
        layout.path(),
        tuple(sorted(layout.genes)),
        tuple(sorted(overlapping)),
        tuple(gene for gene in unfit if not gene.pseudo),
    )


def _states_of(
    grammar: Grammar, gene: Gene, strands: dict[int, np.ndarray], allowed: np.ndarray
) -> np.ndarray | None:
    """Return the states of a gene from its leftmost to its rightmost base, `None` if invalid.

    Args:
      grammar: the grammar.
      gene: a gene of either strand.
      strands: the bases of the record and of its reverse complement, by strand.
      allowed: `<bool>[bases, states]`, the states that each base allows.
    """
    if gene.strand == 1:
        states = _forward_states_of(grammar, gene, strands[1])
    else:
        mirrored = gene.mirrored(len(allowed))
        states = _forward_states_of(grammar, mirrored, strands[-1])
        states = None if states is None else grammar.mirror(states)
    if states is None or not allowed[np.arange(gene.start, gene.end), states].all():
        return None
    return states if grammar.constraints.transitions[states[:-1], states[1:]].all() else None


def _forward_states_of(grammar: Grammar, gene: Gene, bases: np.ndarray) -> np.ndarray | None:
    """Return the states of a forward gene, `None` if no states represent its exons.

    The letters of its codons and splice sites are not checked.
    """
    phase = _phase(gene)
    if phase is None:
        return None
    names: list[str] = []
    coding: list[int] = []  # places of the coding bases in `names`
    position = (3 - phase) % 3  # in the codon
    previous = gene.start  # end of the exon before
    for start, end in gene.exons:
        exon = [f"C{(position + offset) % 3}" for offset in range(end - start)]
        if names:
            size = start - previous
            kind = _intron_class(bases[max(0, previous - position) : previous], position)
            rest = _CODON_RESTS[kind]
            if size < 4 or len(exon) < len(rest):
                return None
            names += [f"D{kind}", *[f"B{kind}"] * (size - 2), f"A{kind}"]
            exon[: len(rest)] = rest
        coding += range(len(names), len(names) + len(exon))
        names += exon
        position = (position + len(exon)) % 3
        previous = end
    if gene.has_start:
        for place, name in zip(coding, ("S1", "S2", "S3"), strict=False):
            names[place] = name
    if gene.has_stop:
        for place, name in zip(reversed(coding), ("T3", "T2", "T1"), strict=False):
            names[place] = name
    return np.array([grammar.index[name] for name in names], np.int32)


def _phase(gene: Gene) -> int | None:
    """Return the number of bases before the first whole codon, `None` if the length is invalid."""
    length = gene.coding_length
    if gene.has_start and gene.has_stop and length < 9:
        return None
    open_phase = length % 3 if gene.has_stop else gene.phase
    phase = 0 if gene.has_start else open_phase
    return None if gene.has_stop and (length - phase) % 3 else phase


def _intron_class(before: np.ndarray, position: int) -> str:
    """Return the class of an intron after `position` bases of a codon, which are in `before`."""
    if not position:
        return "0"
    letters = "".join(LETTERS[base] for base in before)
    beginnings = {1: ("T",), 2: ("TA", "TG")}[position]  # of a stop codon
    return f"{position}{letters if letters in beginnings else 'x'}"


class _Layout:
    """The states of a record to which genes are added one by one.

    Attributes:
      genes: the genes added so far.
    """

    def __init__(self, grammar: Grammar, size: int):
        self.grammar = grammar
        self.genes: list[Gene] = []
        self._states = np.full(size, INTERGENIC, np.int32)
        self._owners = np.full(size, -1, np.int32)  # indices of `genes`
        self._open = np.zeros(size, bool)

    def place(self, gene: Gene, states: np.ndarray) -> bool:
        """Add a gene; if it overlaps another one, leave its bases open instead.

        Returns:
          Whether the gene was added.
        """
        span = slice(gene.start, gene.end)
        if (self._owners[span] >= 0).any():
            self.leave_open(gene)
            return False
        self._states[span] = states
        self._owners[span] = len(self.genes)
        self.genes.append(gene)
        return True

    def leave_open(self, gene: Gene) -> None:
        """Allow any state at those bases of a gene that belong to no other gene."""
        span = slice(gene.start, gene.end)
        self._open[span] |= self._owners[span] < 0

    def path(self) -> np.ndarray:
        """Return the states, `UNKNOWN` at open bases and at genes with an invalid neighbour."""
        states = np.where(self._open, UNKNOWN, self._states)
        table = self.grammar.constraints.transitions
        labelled = (states[:-1] >= 0) & (states[1:] >= 0)
        for place in np.flatnonzero(labelled & ~table[states[:-1], states[1:]]):
            for owner in self._owners[place : place + 2]:
                if owner >= 0:
                    states[self.genes[owner].start : self.genes[owner].end] = UNKNOWN
        return states


# --- From a path to genes -------------------------------------------------------------------------


def genes_of(grammar: Grammar, states: np.ndarray) -> list[Gene]:
    """Return the genes of a path in ascending order.

    Args:
      grammar: the grammar of the states.
      states: the path, `<int>[bases]`.
    """
    states = np.asarray(states)
    reverse = _forward_genes(grammar, grammar.mirror(states))
    return sorted(
        [
            *_forward_genes(grammar, states),
            *(gene.mirrored(len(states)) for gene in reverse),
        ]
    )


def _forward_genes(grammar: Grammar, states: np.ndarray) -> Iterator[Gene]:
    """Yield the genes of the forward strand."""
    inside = (states > 0) & (states <= grammar.forward)
    is_last = states == grammar.index["T3"]
    begins = ~np.concatenate([[False], inside[:-1]]) | np.concatenate([[True], is_last[:-1]])
    ends = ~np.concatenate([inside[1:], [False]]) | is_last
    places = zip(np.flatnonzero(inside & begins), np.flatnonzero(inside & ends), strict=True)
    for first, last in places:
        gene = _gene_at(grammar, states, int(first), int(last), has_stop=bool(is_last[last]))
        if gene is not None:
            yield gene


def _gene_at(
    grammar: Grammar, states: np.ndarray, first: int, last: int, *, has_stop: bool
) -> Gene | None:
    """Return the forward gene whose states are those from `first` to `last`.

    `None` if these states are an intron alone, or the rest of a start or stop codon at the edge of
    the record.
    """
    coding = grammar.labels[states[first : last + 1]] == LABELS.index("C")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], coding, [0]]).astype(np.int8)))
    exons = [(first + int(start), first + int(end)) for start, end in edges.reshape(-1, 2)]
    if not exons:
        return None
    has_start = grammar.names[states[first]] == "S1"
    phase = 0
    if not has_start:
        name = grammar.names[states[exons[0][0]]]
        phase = -(int(name[1]) - (name[0] in "ST")) % 3
    gene = Gene(tuple(exons), 1, has_start, has_stop, phase)
    length = gene.coding_length
    return gene if length > 3 or (length == 3 and not has_stop) else None
