"""Help and version of the commands, without heavy imports."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from mlkd.version import __version__

LIBRARIES = ("torch", "transformers", "hydra-core", "datasets", "faiss-cpu", "faiss-gpu", "sentence-transformers")
GROUPS = ("experiment", "sweep", "teacher", "student", "loss", "data", "optim", "hardware", "task")
GROUPS_OF = {"train": GROUPS, "evaluate": ("teacher", "task", "hardware"), "mine": ("hardware",)}
COMMAND = {"train": "mlkd-train", "evaluate": "mlkd-eval", "mine": "mlkd-mine"}
INTRODUCTION = {
    "train": """mlkd-train [GROUP=OPTION ...] [KEY=VALUE ...] [-m]

Distil a sentence encoder into a student. Without arguments: the embedded default, offline, on the CPU.

  mlkd-train +experiment=xlmr_en_de            a whole experiment
  mlkd-train +experiment=xlmr_en_de data=tsv data.path='my/en-{language}.tsv' 'data.languages=[de]'
  mlkd-train dry_run=true                      check everything, take one step, print sizes and time
  mlkd-train -m loss.beta=1,10,100 seed=1,2    a sweep, which ends in a table; again, it does what is not finished
  mlkd-train +experiment=xlmr_en_de +sweep=data_size         a ready sweep of an experiment
  mlkd-train --cfg job                         print the composed configuration
""",
    "evaluate": """mlkd-eval checkpoint=WHAT [task=[NAME,...]] [KEY=VALUE ...]

Score encoders: run folders, sentence-transformers or transformers folders, hub ids, vectors computed elsewhere.

  mlkd-eval checkpoint=outputs/demo/<time>
  mlkd-eval checkpoint=sentence-transformers/LaBSE task=[sts17,tatoeba_hub]
  mlkd-eval checkpoint=outputs/demo/<time> task=mse teacher.model=sentence-transformers/all-MiniLM-L6-v2
  mlkd-eval 'checkpoint=[outputs/a,outputs/b]' task=bucc_file 'task.bucc_file.path=dir/{pair}.{side}'
  mlkd-eval 'checkpoint=[outputs/a,{model: xlm-roberta-base, layer: 8, name: XLM-R}]'   a baseline's layer; also prompt
  mlkd-eval 'compare=[outputs/a,outputs/b]'               earlier results side by side, with paired tests
  mlkd-eval export_texts=vectors task=[tatoeba,sts]       then checkpoint=vectors, a row of its .npy for each line
""",
    "mine": """mlkd-mine encoder=WHAT source=FILE target=FILE [output=FILE.tsv.gz] [KEY=VALUE ...]

Find pairs of translations in two files of sentences, one a line, plain or .gz, .xz, .zst, .bz2. Writes
score TAB source TAB target, best first. Interrupted, the same command goes on.

  mlkd-mine encoder=outputs/demo/<time> source=news.de.gz target=news.en.gz
  mlkd-mine encoder=sentence-transformers/LaBSE source=a.txt target=b.txt output=ab.tsv threshold=1.05
  mlkd-mine encoder=... source=... target=... margin=distance retrieval=intersection num_neighbours=8
  mlkd-mine encoder=... source=... target=... num_shards=8 shard=$SLURM_ARRAY_TASK_ID

  mlkd-mine encoder=x source=a.txt target=b.txt --cfg job      print all keys and their defaults
""",
}


def version_text() -> str:
    """mlkd's version and those of the libraries that decide results."""
    lines = [f"mlkd {__version__}", f"python {sys.version.split()[0]}"]
    for name in LIBRARIES:
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return "\n".join(lines)


def help_text(kind: str) -> str:
    """Usage, the options of each group, and each experiment with what it shows."""
    from mlkd.config.paths import CONFIG_DIR

    lines = [INTRODUCTION[kind]]
    for group in GROUPS_OF[kind]:
        options = sorted(p for p in (CONFIG_DIR / group).glob("*.yaml"))
        if group in ("experiment", "sweep"):
            lines.append(f"{group}s:")
            lines += [f"  {p.stem:<24} {first_comment(p)}" for p in options]
        else:
            lines.append(f"{group}: {', '.join(p.stem for p in options)}")
    group = GROUPS_OF[kind][-1]
    lines.append(f"\n{COMMAND[kind]} --help {group} prints the keys of a group; the same of an option and of a key.")
    lines.append("Hydra's own flags (-m, --cfg job, --info) work; --version prints versions.")
    return "\n".join(lines)


def first_comment(path: Path) -> str:
    """What an option's YAML file says of itself in its first comment, package lines left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.removeprefix("#").strip()
    return ""
