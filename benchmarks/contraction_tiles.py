"""Speed of the micro-kernels by themselves, on one thread: what tiles and panels were chosen by.

    python benchmarks/contraction_tiles.py [--precision float32|bfloat16] [--isa ISA]

Weights come from the second-level cache, the last-level cache and memory; a tile of one row is bound by reading them,
one of many rows by arithmetic. ARCHITECTURE.md says what followed from it.
"""

from __future__ import annotations

import argparse

from pixelfast import _C

SIZES = {"256 KB": 256 << 10, "8 MB": 8 << 20, "128 MB": 128 << 20}
CHANNELS = 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--isa", help="default: the best of this CPU")
    args = parser.parse_args()
    isa = args.isa or _C.available_isas(args.precision)[0]
    rows, vectors = _C.largest_tile(isa, args.precision)
    itemsize = 4 if args.precision == "float32" else 2
    print(f"{isa} {args.precision}, {CHANNELS} channels: GFLOP/s (GB/s of weights)")
    print("rows x vectors".ljust(16) + "".join(name.rjust(18) for name in SIZES))
    for height in range(1, rows + 1):
        for width in range(1, vectors + 1):
            cells = []
            for size in SIZES.values():
                seconds, weights = _C.time_tiles(isa, args.precision, height, width, CHANNELS, size)
                cells.append(f"{2 * height * weights / seconds / 1e9:.0f} ({itemsize * weights / seconds / 1e9:.0f})")
            print(f"{height} x {width}".ljust(16) + "".join(cell.rjust(18) for cell in cells))


if __name__ == "__main__":
    main()
