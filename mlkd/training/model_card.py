"""The model card: README.md of a student's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlkd.version import __version__


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a card says beside the step.

    Args:
        name: of the run.
        teacher: its name in the configuration.
        languages: that the student learns, the source language first.
        dimension: of the student's vectors.
        num_pairs: of sentences that it learns from.
        total_steps: of the run.
    """

    name: str
    teacher: str
    languages: Sequence[str]
    dimension: int
    num_pairs: int
    total_steps: int

    def text(self, step: int) -> str:
        """README.md of the student after `step` steps."""
        return f"""---
library_name: sentence-transformers
tags: [sentence-transformers, sentence-similarity, multilingual, knowledge-distillation]
---
# {self.name}

Sentence encoder for {", ".join(self.languages)}, {self.dimension} dimensions, distilled with mlkd {__version__} from
`{self.teacher}` on {self.num_pairs:,} sentence pairs
(step {step} of {self.total_steps}).

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("path/to/this/folder").encode(["Hello!", "Hallo!"])
```
"""
