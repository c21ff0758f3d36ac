"""The results as a Markdown table and as an SVG chart."""

from xml.sax.saxutils import escape

import layers
from engines import ENGINES, is_own

STAGES = (("encode_s", "encode", "#4c78a8"), ("unet_s", "UNet", "#f2a541"), ("decode_s", "decode", "#59a77c"))


def own_runs(done, name):
    """All runs of an onestep engine at one size: beside peers, else by itself."""
    beside = [run for result in done.values() for run in result.get("beside", {}).get(name, [])]
    return beside or done.get(name, {}).get("runs", [])


def best_run(runs):
    return min(runs, key=lambda run: run["total_s"])


def rows(done):
    """(engine, best run, its result) of every engine that ran, in the order of ENGINES."""
    found = []
    for name, engine in ENGINES.items():
        runs = own_runs(done, name) if is_own(name) else done.get(name, {}).get("runs", [])
        if runs:
            found.append((engine, best_run(runs), runs, done.get(name, {})))
    return found


def label(engine, result, run):
    """Name and precision, as it really ran."""
    ran_in = result.get("ran_in") or run.get("precision") or engine.precision
    asked = "" if engine.precision in (ran_in, "auto") else f" ({engine.precision} asked for)"
    return f"{engine.label}, {ran_in}{asked}"


def faster(result, own):
    """How many times faster the onestep engine was in the same alternating run."""
    runs = result.get("beside", {}).get(own)
    return f"{best_run(result['runs'])['total_s'] / best_run(runs)['total_s']:.2f}x" if runs else ""


def gigabytes(count):
    return f"{count / 1e9:.1f} GB" if count else ""


def seconds(value):
    return f"{value:.2f} s"


def size_table(size, done):
    found = rows(done)
    own = [engine.name for engine, *_ in found if is_own(engine.name)]
    rates = [(run["gflops"] * run["total_s"], run["peak_gflops"]) for engine, run, _, _ in found if is_own(engine.name)]
    peak = max((rate[1] for rate in rates), default=0)
    lines = [f"{size}x{size}:", "",
             "| engine | encode | UNet | decode | total | " + "".join(f"{name} faster by | " for name in own) +
             "of the f32 peak | peak memory | warm picture's | cold start | PSNR |",
             "|---" * (10 + len(own)) + "|"]
    for engine, run, runs, result in found:
        total = seconds(run["total_s"]) + ("*" if result.get("only_a_first_picture") else "")
        share = f"{rates[0][0] / run['total_s'] / peak:.2f}" if peak else ""
        memory = max(one["peak_rss"] for one in runs)
        cold = min(one["cold_s"] for one in runs) if is_own(engine.name) else result["cold_s"]
        fidelity = result.get("psnr")
        lines.append("| " + " | ".join([
            label(engine, result, run), *(seconds(run[stage]) for stage, _, _ in STAGES), total,
            *(faster(result, name) for name in own), share, gigabytes(memory if is_own(engine.name) else result["peak_rss"]),
            gigabytes(result.get("warm_peak_rss")), seconds(cold), f"{fidelity:.1f} dB" if fidelity else ""]) + " |")
    if any(result.get("only_a_first_picture") for *_, result in found):
        lines += ["", "\\* One picture only, the first one: it took longer than the limit."]
    lines += [f"\n{ENGINES[name].label}, {ENGINES[name].precision}: {result['error']}." for name, result in done.items()
              if "error" in result]
    return "\n".join(lines)


def told_layers(done):
    """(engine, what it told) of every engine whose layers are known, in the order of ENGINES."""
    return [(engine, done[name]) for name, engine in ENGINES.items() if "layers" in done.get(name, {})]


def rate_cell(seconds, gflop):
    """Milliseconds and, where the work was counted, GFLOP/s."""
    rate = f" ({gflop / seconds:.0f})" if gflop and seconds else ""
    return f"{seconds * 1e3:.{2 if seconds < 0.1 else 0}f}{rate}"


def work_cell(gflop):
    return "" if not gflop else f"{gflop:.0f}" if gflop >= 1000 else f"{gflop:.4g}"


def layer_table(size, done):
    """One row a group of layers, one column an engine."""
    found = told_layers(done)
    counted = next((told for engine, told in found if is_own(engine.name)), {"groups": []})
    # What a normalisation or an activation costs is fused away in some engines: only products are compared by their work.
    gflop = {(group["stage"], group["kind"]): group["gflop"] for group in counted["groups"]
             if group["kind"] not in (layers.OTHER, layers.UNKNOWN)}
    columns = [{(group["stage"], group["kind"]): group["seconds"] for group in told["groups"]} for _, told in found]
    lines = [f"{size}x{size}, each group of layers in ms (and in GFLOP/s of the direct count):", "",
             "| stage | layers | GFLOP | " + " | ".join(label(engine, told, told) for engine, told in found) + " |",
             "|---" * (3 + len(found)) + "|"]
    for group in sorted({group for column in columns for group in column}, key=layers.order):
        work = gflop.get(group)
        cells = [rate_cell(column[group], work) if group in column else "" for column in columns]
        lines.append(f"| {group[0]} | {group[1]} | {work_cell(work)} | " + " | ".join(cells) + " |")
    whole = [f"{told['total_s'] * 1e3:.0f}" for _, told in found]
    sums = [f"{sum(column.values()) * 1e3:.0f}" for column in columns]
    lines += ["| | that picture as a whole | | " + " | ".join(whole) + " |",
              f"| | sum of layers | {work_cell(sum(gflop.values()))} | " + " | ".join(sums) + " |", ""]
    families = {engine.name.split("-")[0] for engine, _ in found}
    lines += [f"- {note}" for family, note in layers.NOTES.items() if family in families]
    lines += [f"- {ENGINES[name].label}, {ENGINES[name].precision}: {told['error']}." for name, told in done.items() if "error" in told]
    return "\n".join(lines)


def layer_tables(results):
    return "\n\n".join(layer_table(size, done) for size, done in results["layers"].items() if told_layers(done))


def table(results):
    settings = results["settings"]
    versions = ", ".join(f"{package} {version}" for package, version in settings["packages"].items() if version)
    head = (f"{settings['cpu']} ({', '.join(settings['cpu_flags'])}), {settings['threads']} threads, "
            f"{settings['checkpoint']}; {versions}")
    return "\n\n".join([head, *(size_table(size, done) for size, done in results["sizes"].items() if rows(done))])


STYLE = """text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 15px }
.small { font-size: 12px; fill: #59636e } .page { fill: #ffffff } .own { font-weight: 600 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #9198a1 } .page { fill: #0d1117 } }"""
WIDTH, LEFT, RIGHT, ROW = 860, 300, 170, 26


def document(label, parts, height, style=""):
    """The SVG of a chart that is WIDTH wide."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
            f'role="img" aria-label="{label}">\n<style>{STYLE}{style}</style>\n'
            f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>\n' + "\n".join(parts) + "\n</svg>\n")


def panel(size, done, top):
    """One size's bars: (SVG elements, height)."""
    found = sorted(rows(done), key=lambda row: row[1]["total_s"])
    scale = (WIDTH - LEFT - RIGHT) / max(run["total_s"] for _, run, _, _ in found)
    parts = [f'<text class="title" x="16" y="{top + 16}">{size}x{size}, seconds a picture (peak memory)</text>']
    y = top + 30
    for engine, run, runs, result in found:
        own = is_own(engine.name)
        kind = ' class="own"' if own else ""
        parts.append(f'<text{kind} x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(label(engine, result, run))}</text>')
        x = float(LEFT)
        for stage, _, colour in STAGES:
            width = run[stage] * scale
            parts.append(f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{ROW - 8}" fill="{colour}"/>')
            x += width
        memory = max(one["peak_rss"] for one in runs) if own else result["peak_rss"]
        parts.append(f'<text{kind} x="{x + 6:.1f}" y="{y + 15}">{run["total_s"]:.1f} s '
                     f'<tspan class="small">({gigabytes(memory)})</tspan></text>')
        y += ROW
    return parts, y - top + 14


def chart(results):
    settings = results["settings"]
    parts, y = [], 12
    for size, done in results["sizes"].items():
        if rows(done):
            elements, height = panel(size, done, y)
            parts += elements
            y += height
    x = 16
    for _, name, colour in STAGES:
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>'
                     f'<text class="small" x="{x + 17}" y="{y + 11}">{name}</text>')
        x += 80
    note = f"{settings['cpu']}, {settings['threads']} threads; text states known, best of warm pictures; less is better"
    parts.append(f'<text class="small" x="{WIDTH - 16}" y="{y + 11}" text-anchor="end">{escape(note)}</text>')
    return document("Time a picture of onestep and other engines", parts, y + 26)
