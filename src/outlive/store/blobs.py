"""Large payloads get rows of their own: arguments, values and results above a threshold.

In its row stands a reference, which every read resolves in SQL: what reads of a
store never sees one. A blob is written by the transaction that writes its
reference, so there are no orphans to sweep, and it dies with its run. Its name
is a digest of its text: the same batch sent again finds it there. A text in the
place of its reference is legal too (transactions of the user write that). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b

from msgspec.structs import replace as changed

from outlive.limits import BLOB_THRESHOLD_CHARS
from outlive.model.writes import Batch, NewRun


@dataclass(slots=True, frozen=True)
class Blob:
    """A large payload of one run; `name` stands in its place. 38 characters, which is never JSON."""

    row: int
    name: str
    text: str


class Blobs(list[Blob]):
    """The payloads that were moved out of some records."""

    def keep(self, row: int, text: str) -> str:
        """Give what is to stand in the row of a record."""
        if len(text) <= BLOB_THRESHOLD_CHARS:
            return text
        name = "@blob:" + blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        self.append(Blob(row, name, text))
        return name

    def move_out_of(self, batch: Batch) -> Batch:
        """Give a batch with references; the records given stay as they are, since they are delivered too."""
        return replace(
            batch,
            starts=[self.move_out_of_run(run) for run in batch.starts],
            entries=[
                entry if entry.value is None else changed(entry, value=self.keep(entry.row, entry.value))
                for entry in batch.entries
            ],
            finishes=[
                finish if finish.output is None else replace(finish, output=self.keep(finish.row, finish.output))
                for finish in batch.finishes
            ],
            continues=[replace(end, input=self.keep(end.row, end.input)) for end in batch.continues],
        )

    def move_out_of_run(self, run: NewRun) -> NewRun:
        """Give a run with a reference where its arguments are large."""
        return changed(run, input=self.keep(run.row, run.input))
