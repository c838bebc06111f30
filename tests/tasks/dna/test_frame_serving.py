"""The signatures without introns: symmetry, independence of rows, long records, invalid rows."""

from tasks.dna import frame_data, frame_model, frame_serving, frame_streaming, gene_tables
from tasks.dna.config import Config
from tasks.dna.genes import LABELS, labels_of
from tasks.dna.nucleotides import encode
from tasks.dna.predictions import Reading, predict
from tests.tasks.own.bacteria import CODONS, bacterium
from tests.tasks.own.dna import complement

import numpy as np
import pytest

CONFIG = Config(
    spliced=False, start_codons=("ATG", "GTG", "TTG"), units=8, layers=1, max_length=60_000
)


class Live:
    """Signatures of a model that was not trained, in place of an export.

    Its network returns the score of a candidate, so that genes are found.
    """

    def __init__(self):
        built = frame_model.build(CONFIG, 1)
        random = np.random.default_rng(0)
        for weight in built.trainable_weights:
            weight.assign(random.normal(scale=0.05, size=weight.shape))
        kernel = built.get_layer("gene").kernel
        records = [bacterium(np.random.default_rng(n), f"r{n}", 60) for n in range(2)]
        tables = frame_data.known_tables(records, CONFIG)
        built.get_layer("organisms").fill([frame_data.gc_content(records)], tables)
        self.model, self.kernel = built, kernel
        weigh = built.get_layer("weigh")
        values = weigh.kernel.numpy()
        values[0] = 3.0  # the first feature is the score
        weigh.kernel.assign(values)
        kernel.assign(np.full(kernel.shape, 0.5))
        built.get_layer("gene").bias.assign([-2.0])
        self.functions = frame_serving.signatures(built, CONFIG)
        self.settings = {
            "config": {
                "spliced": False,
                "start_codons": CONFIG.start_codons,
                "genetic_code": 11,
            },
            "motifs": gene_tables.binding_names(),
            "max_bases": CONFIG.max_length,
            "max_batch_bases": frame_serving.MOST,
        }

    def call(self, signature, **inputs):
        inputs = {
            name: np.asarray(value, np.float32 if name in frame_model.table_shapes(3) else None)
            for name, value in inputs.items()
        }
        for name in ("length", "code"):
            if name in inputs:
                inputs[name] = inputs[name].astype(np.int32)
        outputs = self.functions[signature](**inputs)
        return {name: value.numpy() for name, value in outputs.items()}

    def predict(self, signature, rows, to_request, *, batch_size, length_of, budget):
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            outputs = self.call(signature, **to_request(batch))
            for place, row in enumerate(batch):
                yield row, {name: value[place] for name, value in outputs.items()}


@pytest.fixture(scope="module")
def live():
    return Live()


def genes(live, sequences, **reading):
    rows = predict(live, sequences, batch_size=4, reading=Reading(**reading))
    return [prediction for _, prediction in rows]


@pytest.mark.thorough
def test_most_genes_are_found_and_described(live):
    record = bacterium(np.random.default_rng(7), genes_wanted=40)
    (prediction,) = genes(live, [record.sequence])
    stops = {gene.stop for gene in record.genes} & {gene.stop for gene in prediction.plain}
    assert len(stops) > 30
    for found in prediction.genes:
        codon = found.start_codon
        assert codon in ("ATG", "GTG", "TTG", "edge") and 0 <= found.confidence <= 1
        if codon != "edge":
            gene = found.gene
            low = gene.start if gene.strand == 1 else gene.end - 3
            text = record.sequence[low : low + 3]
            assert codon == (text if gene.strand == 1 else complement(text))
            assert gene.coding_length % 3 == 0 or not gene.has_stop


def test_the_answer_to_the_reverse_complement_is_the_mirror_image(live):
    record = bacterium(np.random.default_rng(8), genes_wanted=15)  # one window of candidates
    size = len(record.sequence)
    one, other = genes(live, [record.sequence, complement(record.sequence)], adapt=False)
    assert one.plain == sorted(gene.mirrored(size) for gene in other.plain) and one.plain


def test_other_rows_and_values_in_the_padding_change_nothing(live):
    rows = [bacterium(np.random.default_rng(n), genes_wanted=3 + 4 * n).sequence for n in range(4)]
    rows += ["ACGT", "ATG"]
    alone = [genes(live, [row], adapt=False)[0] for row in rows]
    together = genes(live, rows, adapt=False)
    assert [p.plain for p in together] == [p.plain for p in alone]
    bases = np.full((2, 900), 99, np.int32)
    bases[0, :700], bases[1, :300] = encode(rows[1])[:700], encode(rows[2])[:300]
    padded = live.call("tensors", bases=bases, length=[700, 300])
    plain = live.call("tensors", bases=bases[:1, :700], length=[700])
    for name, value in plain.items():
        np.testing.assert_allclose(padded[name][0, :700], value[0], atol=1e-5)
        assert not padded[name][0, 700:].any()


def test_labels_and_probabilities_are_those_of_the_genes(live):
    record = bacterium(np.random.default_rng(9), genes_wanted=12)
    outputs = live.call("explain", sequence=np.array([record.sequence, "ACGJ", ""], object))
    (prediction,) = genes(live, [record.sequence], adapt=False)
    labels = outputs["labels"][0].decode()
    assert [LABELS.index(letter) for letter in labels] == prediction.labels.tolist()
    np.testing.assert_array_equal(
        prediction.labels, labels_of(prediction.plain, len(record.sequence))
    )
    np.testing.assert_allclose(outputs["probabilities"][0].sum(axis=-1), 1.0, atol=1e-5)
    assert outputs["labels"][1:].tolist() == [b"", b""] and not outputs["probabilities"][1:].any()
    assert not outputs["signals"][1:].any() and np.isfinite(outputs["signals"]).all()


@pytest.mark.thorough
def test_a_long_record_in_pieces_has_the_genes_of_one_request(live, monkeypatch):
    record = bacterium(np.random.default_rng(10), genes_wanted=100)
    (whole,) = genes(live, [record.sequence])
    monkeypatch.setattr(frame_streaming, "PIECE", 9_000)
    monkeypatch.setattr(frame_streaming, "CONTEXT", 4_000)
    (parts,) = genes(live, [record.sequence])
    assert parts.plain == whole.plain


@pytest.mark.thorough
def test_runs_of_n_are_masked(live):
    record = bacterium(np.random.default_rng(11), genes_wanted=30)
    middle = record.genes[15]
    place = (middle.start + middle.end) // 2 // 3 * 3
    sequence = record.sequence[:place] + "N" * 60 + record.sequence[place + 60 :]
    (prediction,) = genes(live, [sequence], mask=True)
    assert not any(g.start < place and g.end > place + 60 for g in prediction.plain)


def test_short_and_empty_requests_have_no_genes(live):
    for signature in ("tensors", "similar"):
        outputs = live.call(signature, bases=np.zeros((2, 0), np.int32), length=[0, 0])
        assert all(len(value) == 2 and not value.any() for value in outputs.values())
    assert genes(live, ["A", "ATGTAA"])[0].genes == ()


@pytest.mark.parametrize(
    ("lengths", "fits"),
    [
        ({11: [300] * 60, 4: [900] * 24}, True),  # in pieces by code 11
        ({11: [900] * 90, 4: [900] * 99}, False),  # as usual
        ({11: [300] * 60, 4: [320] * 58}, False),  # short genes by both
    ],
)
def test_a_genetic_code_that_fits_better_is_said_or_used(lengths, fits, capsys):
    class Fake:
        def call(self, signature, **inputs):
            code = inputs["code"][0]
            if signature == "adapt":
                return {"counted": np.array([code])}
            length = np.array([lengths[code]])
            return {"start": 0 * length, "end": length, "count": np.array([length.size])}

    sample, tables = [np.ones(100_000, np.int32)], {"counted": np.array([11])}
    code, same = frame_streaming._check_code(Fake(), sample, 11, tables, None)
    assert (code, same["counted"][0]) == (11, 11)
    said = "genetic code 4 fits better than 11: pass --genetic_code 4, or auto"
    assert (said in capsys.readouterr().err) == fits
    code, other = frame_streaming._check_code(Fake(), sample, 11, tables, "auto")
    assert code == other["counted"][0] == (4 if fits else 11)


@pytest.mark.thorough
def test_tga_is_read_through_by_genetic_code_4(live):
    codons = [*CODONS, *["TGA"] * 12]
    record = bacterium(np.random.default_rng(12), genes_wanted=60, codons=codons, stops=("TAA",))
    (prediction,) = genes(live, [record.sequence], genetic_code=4)
    stops = {gene.stop for gene in record.genes} & {gene.stop for gene in prediction.plain}
    assert len(stops) > 40 and prediction.genetic_code == 4
