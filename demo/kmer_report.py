"""Counts the words of length k in a FASTA file: the tool of the demonstration, an ordinary script that knows no LWR.

    python kmer_report.py settings.json genome.fa report.tsv

Reads `genome.fa.fai` beside the sequences (name, length of each) and checks them against it. Writes the table
`report.tsv`, a second file into `report_files/`, and leaves `summary.json` in its working directory.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter


def main(settings_path: str, fasta_path: str, report_path: str) -> int:
    with open(settings_path, encoding="utf-8") as file:
        settings = json.load(file)
    k, most = settings["k"], settings["rows"]
    sequences = read_fasta(fasta_path)
    with open(fasta_path + ".fai", encoding="utf-8") as file:
        index = {name: int(length) for name, length in (line.split("\t")[:2] for line in file)}
    if index != {name: len(sequence) for name, sequence in sequences.items()}:
        sys.stderr.write("the index does not belong to these sequences\n")
        return 1
    counts: Counter[str] = Counter()
    for sequence in sequences.values():
        counts.update(sequence[start : start + k] for start in range(len(sequence) - k + 1))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    with open(report_path, "w", encoding="utf-8") as file:
        file.write("word\tcount\n")
        file.writelines(f"{word}\t{count}\n" for word, count in ordered[:most])
    write_gc(os.path.splitext(report_path)[0] + "_files", sequences)
    with open("summary.json", "w", encoding="utf-8") as file:
        json.dump({"k": k, "different": len(counts), "total": sum(counts.values())}, file)
    sys.stdout.write(f"{len(sequences)} sequences, {len(counts)} different words of length {k}\n")
    return 0


def read_fasta(path: str) -> dict[str, str]:
    """Sequences by name."""
    sequences: dict[str, list[str]] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith(">"):
                lines = sequences.setdefault(line[1:].strip(), [])
            else:
                lines.append(line.strip())
    return {name: "".join(lines) for name, lines in sequences.items()}


def write_gc(directory: str, sequences: dict[str, str]) -> None:
    """The share of G and C in each sequence, as a file of its own."""
    os.makedirs(directory)
    with open(os.path.join(directory, "gc.tsv"), "w", encoding="utf-8") as file:
        for name, sequence in sequences.items():
            file.write(f"{name}\t{(sequence.count('G') + sequence.count('C')) / len(sequence):.4f}\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
