"""Bacterial gene finding compared with Prodigal, on the same genomes, scored by the same code.

    pip install -e '.[dna,bench]'
    python -m tests.benchmarks.dna --model saved_models/dna
    python -m tests.benchmarks.dna --model saved_models/dna --split validation --contigs 1000

Pyrodigal (Prodigal as a library) learns from the genome that it labels, without its annotation, and
so does the model, which was trained on other genomes, with annotation. Seconds are those of the
CPU, of all threads. The last line is one JSON object.
"""

import argparse
import json
import time
from pathlib import Path

from common.commands import report
from common.commands.config import EvaluateConfig
from common.datasets import SPLITS
from common.serving.served import load_export
from tasks.dna import data, evaluate, frame_data, predictions
from tasks.dna.genes import Gene


def prodigal(sequences, *, meta):
    """Yield the genes of each sequence by pyrodigal, whose ranges are 1-based and inclusive."""
    import pyrodigal

    finder = pyrodigal.GeneFinder(meta=meta)
    if not meta:
        finder.train(*(sequence.encode() for sequence in sequences))
    for sequence in sequences:
        genes = []
        for gene in finder.find_genes(sequence.encode()):
            left, right = not gene.partial_begin, not gene.partial_end
            genes.append(
                Gene(
                    exons=((gene.begin - 1, gene.end),),
                    strand=gene.strand,
                    has_start=left if gene.strand == 1 else right,
                    has_stop=right if gene.strand == 1 else left,
                )
            )
        yield genes


def ours(served, sequences, *, meta):
    """Yield the genes of each sequence by the export."""
    reading = predictions.Reading(adapt=not meta)
    for _, prediction in predictions.predict(served, sequences, batch_size=64, reading=reading):
        yield prediction.plain


def everything_is_coding(sequences):
    """Yield one gene without a stop codon over each sequence, on each strand."""
    for sequence in sequences:
        yield [Gene(((0, len(sequence)),), strand, False, False) for strand in (1, -1)]


def cut(records, size):
    """Return the records in contigs of at most `size` bases; genes run off their ends."""
    return [
        frame_data.clipped(record, low, min(low + size, len(record.sequence)))
        for record in records
        for low in range(0, len(record.sequence), size)
    ]


def compare(records, finders):
    """Return the row of each finder: its scores and its seconds of CPU time."""
    sequences = [record.sequence for record in records]
    rows = []
    for name, find in finders.items():
        tally, start = evaluate.Tally(), time.process_time()
        found = list(find(sequences))
        seconds = time.process_time() - start
        for record, genes in zip(records, found, strict=True):
            tally.add(record.genes, genes, len(record.sequence))
        rows.append({"finder": name, **tally.metrics(), "seconds": round(seconds, 1)})
    return rows


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.dna",
        description="Compare gene finding with Prodigal.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--model", type=Path, default=Path("saved_models/dna"), help="export to score"
    )
    parser.add_argument("--dataset", default="bacteria", help="data set to score on")
    parser.add_argument("--split", choices=SPLITS, default="test", help="split to score")
    parser.add_argument("--contigs", type=int, default=0, help="bases of contigs; 0: whole records")
    parser.add_argument("--meta", action="store_true", help="learn nothing from the records")
    parser.add_argument("--manual_dir", type=Path, help="folder of files downloaded by hand")
    parser.add_argument("--data_dir", type=Path, help="folder of prepared data sets")
    options = parser.parse_args()
    source = EvaluateConfig(
        dataset=options.dataset, manual_dir=options.manual_dir, data_dir=options.data_dir
    )
    splits = data.load(source, seed=1).splits
    served = load_export(options.model)
    finders = {
        "ours": lambda sequences: ours(served, sequences, meta=options.meta),
        "prodigal": lambda sequences: prodigal(sequences, meta=options.meta),
        "everything is coding": everything_is_coding,
    }
    result = {}
    for organism, records in frame_data.by_organism(data.records(splits[options.split])).items():
        if options.contigs:
            records = cut(records, options.contigs)
        rows = compare(records, finders)
        print(f"\n{organism or options.dataset}: {len(records)} records\n{report.table(rows)}")
        result[organism] = {row.pop("finder"): row for row in rows}
    print(json.dumps({"dataset": options.dataset, "split": options.split, **result}))


if __name__ == "__main__":
    main()
