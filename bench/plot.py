"""Curves of kernel benchmarks: time and share of the roofline over the number of rows, as SVG.

    polymath bench kernels --op up,down,layer -n 1,16,512 -o json >kernels.json
    python3 bench/plot.py OUT kernels.json ...

Reads what `polymath bench kernels -o json` (or jsonl) wrote and leaves OUT/SHAPE-OP-TYPE.svg for
each operation that was measured for two or more numbers of rows: one line for each routing and for
each baseline beside it; bars reach from the tenth to the ninetieth percentile. Needs matplotlib.
"""

import argparse
import json
import pathlib
import sys

STYLE = {"polymath": "-o", "loop": "--s", "cublas-loop": ":^", "cublas-grouped": "-.v"}


def read_rows(path):
    """The rows of a file that are operations."""
    text = pathlib.Path(path).read_text()
    try:
        rows = json.loads(text)
    except json.JSONDecodeError:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    rows = rows if isinstance(rows, list) else [rows]
    return [row for row in rows if isinstance(row, dict) and "op" in row and "median_us" in row]


def group(rows):
    """{(shape, op, type): {(routing, by, cache): rows by ascending T}}, lines of one point left out."""
    figures = {}
    for row in rows:
        figure = (row["shape"], row["op"], row.get("type", "-"))
        line = (row.get("routing", "-"), row["by"], "cold" if row["cold"] else "hot")
        figures.setdefault(figure, {}).setdefault(line, []).append(row)
    kept = {}
    for figure, lines in figures.items():
        for line, points in lines.items():
            points = sorted(points, key=lambda row: row["rows"])
            if len({row["rows"] for row in points}) > 1:
                kept.setdefault(figure, {})[line] = points
    return kept


def draw(plt, figure, lines, path):
    """One SVG of two panels."""
    shape, op, kind = figure
    drawing, (time, share) = plt.subplots(1, 2, figsize=(11, 4.2))
    for number, (line, points) in enumerate(sorted(lines.items())):
        routing, by, cache = line
        label = ", ".join(word for word in (by, routing, cache) if word != "-")
        style, color = STYLE.get(by, "-"), f"C{number % 10}"
        t = [row["rows"] for row in points]
        median = [row["median_us"] for row in points]
        below = [row["median_us"] - row["p10_us"] for row in points]
        above = [row["p90_us"] - row["median_us"] for row in points]
        time.errorbar(t, median, yerr=[below, above], fmt=style, color=color, label=label, capsize=2, markersize=4)
        share.plot(t, [100 * row["share_of_wall"] for row in points], style, color=color, markersize=4)
    own = next(points for line, points in sorted(lines.items()) if line[1] == "polymath")
    time.plot([row["rows"] for row in own], [row["wall_us"] for row in own], color="0.6", label="measured ceiling")
    time.set(xscale="log", yscale="log", xlabel="rows T", ylabel="microseconds")
    share.set(xscale="log", xlabel="rows T", ylabel="% of the measured roofline")
    share.set_ylim(bottom=0)
    for panel in (time, share):
        panel.xaxis.set_major_locator(plt.FixedLocator(sorted({row["rows"] for p in lines.values() for row in p})))
        panel.xaxis.set_major_formatter(plt.FormatStrFormatter("%d"))
        panel.xaxis.set_minor_locator(plt.NullLocator())
        panel.grid(True, color="0.9")
    time.legend(fontsize=7)
    first = own[0]
    drawing.suptitle(f"{shape}, {op}, {kind}\n{first['device']}, commit {first['commit']}", fontsize=9)
    drawing.tight_layout()
    drawing.savefig(path)
    plt.close(drawing)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", help="a folder for the drawings")
    parser.add_argument("file", nargs="+", help="result files")
    args = parser.parse_args()
    figures = group([row for path in args.file for row in read_rows(path)])
    if not figures:
        sys.exit("plot.py: no operation was measured for two numbers of rows")
    try:
        import matplotlib
    except ImportError:
        print("plot.py: no matplotlib here", file=sys.stderr)
        sys.exit(77)
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for figure, lines in figures.items():
        if not any(line[1] == "polymath" for line in lines):
            continue
        path = out / ("-".join(figure).lower().rstrip("-") + ".svg")
        draw(plt, figure, lines, path)
        print(path)


if __name__ == "__main__":
    main()
