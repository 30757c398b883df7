"""Writes crates/nn/src/format/grids.bin: the code books of ggml's IQ1, IQ2 and IQ3 formats.

    python scripts/make_grids.py          # needs numpy and gguf

The books of IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S and IQ1_S follow each other. An entry is one
little-endian 16-bit word: the indices of its values in the set of the book's values, in order, the first
in the lowest bits; two bits each where the set has three values, three bits where it has eight.
"""

from pathlib import Path

import gguf.quants as quants

BOOKS = ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"]


def words(book):
    book.init_grid()
    bits = 2 if len(book.grid_map) == 3 else 3
    for entry in book.grid.reshape(book.grid_shape).astype(int):
        yield sum(book.grid_map.index(value) << (bits * place) for place, value in enumerate(entry))


def main():
    path = Path(__file__).parent.parent / "crates/nn/src/format/grids.bin"
    entries = [word for name in BOOKS for word in words(getattr(quants, name))]
    path.write_bytes(b"".join(word.to_bytes(2, "little") for word in entries))
    print(f"{path}: {len(entries)} entries")


if __name__ == "__main__":
    main()
