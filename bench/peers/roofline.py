"""onestep's layers below (and above) the roofs of the machine, as an SVG: FLOP a byte against GFLOP/s, both logarithmic."""

import math
from xml.sax.saxutils import escape

import layers
from engines import is_own
from report import WIDTH, document, told_layers

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 64, 24, 58, 44, 470  # of one size's panel
COLOURS = {"f32": "#4c78a8", "int16": "#e8871e", "bf16": "#59a77c"}
LEAST_SHARE = 0.001  # of the picture's time: what takes less is left out
PICTURE_SHARE_RADIUS = 62  # of a dot that would be the whole picture's time
OWN_STYLE = """.grid { stroke: #d1d9e0; stroke-width: 1 } .roof { stroke: #1f2328; stroke-width: 1.5; fill: none }
.dashed { stroke-dasharray: 6 4 } .guide { stroke-width: 0.7; stroke-dasharray: 1 4 } .halo { paint-order: stroke; stroke: #ffffff; stroke-width: 4px }
@media (prefers-color-scheme: dark) { .grid { stroke: #2a313c } .roof { stroke: #e6edf3 } .halo { stroke: #0d1117 } }"""


def dots(told):
    """(kind, name, FLOP a byte, GFLOP/s, share of the time) of the layers that are drawn, the long ones first; and what share
    of the time the others are."""
    total = sum(layer["seconds"] for layer in told["layers"])
    drawn, rest = [], 0.0
    for layer in told["layers"]:
        share = layer["seconds"] / total
        # Statistics are taken by the product before: the step that is called so only puts sums together.
        if share < LEAST_SHARE or not layer["gflop"] or not layer["bytes"] or "statistics" in layer["operator"]:
            rest += share
        else:
            drawn.append((layers.kind(layer), f"{layer['part']} {layer['path']}".strip(), layer["gflop"] * 1e9 / layer["bytes"],
                          layer["gflop"] / layer["seconds"], share))
    return sorted(drawn, key=lambda dot: -dot[4]), rest


def ticks(low, high):
    """1, 2, 5, 10 ... between two numbers."""
    found = [step * 10 ** power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
             for step in (1, 2, 5)]
    return [tick for tick in found if low <= tick <= high]


class Axes:
    """From numbers to places in one panel."""

    def __init__(self, top, x_range, y_range):
        self.left, self.right = LEFT, WIDTH - RIGHT
        self.top, self.bottom = top + TOP, top + HEIGHT - BOTTOM
        self.x_range, self.y_range = x_range, y_range

    @staticmethod
    def part(value, limits):
        return math.log(value / limits[0]) / math.log(limits[1] / limits[0])

    def x(self, value):
        return self.left + (self.right - self.left) * self.part(value, self.x_range)

    def y(self, value):
        return self.bottom - (self.bottom - self.top) * self.part(value, self.y_range)

    def grid(self):
        parts = []
        for tick in ticks(*self.x_range):
            parts.append(f'<path class="grid" d="M{self.x(tick):.1f} {self.top}V{self.bottom}"/>'
                         f'<text class="small" x="{self.x(tick):.1f}" y="{self.bottom + 16}" text-anchor="middle">{tick:g}</text>')
        for tick in ticks(*self.y_range):
            parts.append(f'<path class="grid" d="M{self.left} {self.y(tick):.1f}H{self.right}"/>'
                         f'<text class="small" x="{self.left - 6}" y="{self.y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
        middle = (self.left + self.right) / 2
        parts.append(f'<text class="small" x="{middle}" y="{self.bottom + 34}" text-anchor="middle">FLOP a byte (direct count / '
                     f'what the layer reads and writes at least)</text>'
                     f'<text class="small" transform="translate(16 {(self.top + self.bottom) / 2}) rotate(-90)" '
                     f'text-anchor="middle">GFLOP/s (direct count)</text>')
        return parts


def roofs(axes, bandwidth, peaks):
    """peaks: (GFLOP/s, label), the lowest first. The memory's slope goes up to the highest of them."""
    low, high = axes.x_range
    gigabytes = bandwidth / 1e9
    start = max(low, axes.y_range[0] / gigabytes)
    ridge = peaks[-1][0] / gigabytes
    parts = [f'<path class="roof" d="M{axes.x(start):.1f} {axes.y(start * gigabytes):.1f}'
             f'L{axes.x(ridge):.1f} {axes.y(peaks[-1][0]):.1f}"/>']
    for index, (peak, name) in enumerate(peaks):
        dashed = " dashed" if index else ""
        # The name stands where no layer can be: above the memory's slope.
        parts.append(f'<path class="roof{dashed}" d="M{axes.x(peak / gigabytes):.1f} {axes.y(peak):.1f}H{axes.right}"/>'
                     f'<path class="roof guide" d="M{axes.left} {axes.y(peak):.1f}H{axes.x(peak / gigabytes):.1f}"/>'
                     f'<text class="halo" x="{axes.left + 4}" y="{axes.y(peak) - 6:.1f}">{escape(name)}</text>')
    # The slope's name runs along it, to the left of the lowest peak.
    anchor = math.sqrt(start * peaks[0][0] / gigabytes)
    angle = math.degrees(math.atan2(axes.y(high * gigabytes) - axes.y(low * gigabytes), axes.right - axes.left))
    parts.append(f'<text class="halo" transform="translate({axes.x(anchor):.1f} {axes.y(anchor * gigabytes) + 18:.1f}) '
                 f'rotate({angle:.1f})" text-anchor="middle">memory, by copying: {gigabytes:.0f} GB/s</text>')
    return parts


def mark(kind, x, y, radius, style, title=""):
    """A circle, a square or a diamond of the same area, or a ring, by the kind of the layer."""
    inside = f"<title>{escape(title)}</title>" if title else ""
    if kind.startswith(layers.CONVOLUTION):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {style}>{inside}</circle>'
    half = radius * math.sqrt(math.pi) / 2
    if kind == layers.LINEAR:
        return f'<rect x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:.1f}" height="{2 * half:.1f}" {style}>{inside}</rect>'
    if kind == layers.ATTENTION:
        half *= math.sqrt(2)
        return (f'<path d="M{x - half:.1f} {y:.1f}L{x:.1f} {y - half:.1f}L{x + half:.1f} {y:.1f}L{x:.1f} {y + half:.1f}Z" {style}>'
                f'{inside}</path>')
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {style} style="fill: none">{inside}</circle>'


def look(colour):
    return f'fill="{colour}" fill-opacity="0.5" stroke="{colour}" stroke-width="1"'


def legend(top, found):
    """Colours and shapes, in the line below the title."""
    parts, x, y = [], LEFT, top + 38
    entries = [("", look(COLOURS[told["ran_in"]]), told["ran_in"]) for _, told in found]
    grey = look("#7d8590")
    shapes = [(layers.CONVOLUTION, grey, layers.CONVOLUTION), (layers.LINEAR, grey, layers.LINEAR),
              (layers.ATTENTION, grey, layers.ATTENTION), (layers.OTHER, grey, "the rest")]
    for kind, style, name in [*((layers.CONVOLUTION, style, name) for _, style, name in entries), *shapes]:
        parts.append(mark(kind, x + 6, y - 4, 6, style) + f'<text class="small" x="{x + 18}" y="{y}">{escape(name)}</text>')
        x += 34 + 6.4 * len(name)
    return parts


def nice_range(values, least, most):
    """Limits around the values, so that nothing lies on the edge."""
    return min([*values, least]) / 1.3, max([*values, most]) * 1.3


def panel(size, found, bandwidth, settings, top):
    measured = [(told, *dots(told)) for _, told in found]
    peak = max(told["peak_gflops"] for told, _, _ in measured)
    peaks = [(peak, f"f32 peak, measured: {peak:.0f} GFLOP/s")]
    if "avx512_vnni" in settings["cpu_flags"] and any(told["ran_in"] == "int16" for told, _, _ in measured):
        peaks.append((2 * peak, f"int16 peak, vpdpwssd: twice that, {2 * peak:.0f} GFLOP/s"))
    every = [dot for _, drawn, _ in measured for dot in drawn]
    axes = Axes(top, nice_range([dot[2] for dot in every], peak / bandwidth * 1e9 / 8, 8 * peak / bandwidth * 1e9),
                nice_range([dot[3] for dot in every], peak / 8, peaks[-1][0]))
    rest = max(share for *_, share in measured)
    parts = [f'<text class="title" x="16" y="{top + 16}">{size}x{size}, onestep: a mark a layer, its area the time</text>',
             f'<text class="small" x="{WIDTH - 16}" y="{top + 16}" text-anchor="end">layers of less than {LEAST_SHARE:.1%} of the '
             f'time are left out ({rest:.1%} in all)</text>',
             *legend(top, found), *axes.grid()]
    for told, drawn, _ in measured:
        style = look(COLOURS[told["ran_in"]])
        parts += [mark(kind, axes.x(x), axes.y(y), PICTURE_SHARE_RADIUS * math.sqrt(share), style,
                       f"{name}: {y:.0f} GFLOP/s, {share:.1%} of the time") for kind, name, x, y, share in drawn]
    return parts + roofs(axes, bandwidth, peaks)


def chart(results):
    """One panel a size. Needs the layers of an onestep engine, and the memory's speed."""
    settings = results["settings"]
    parts, top = [], 12
    for size, done in results.get("layers", {}).items():
        found = {told["ran_in"]: (engine, told) for engine, told in told_layers(done) if is_own(engine.name)}
        if found:
            parts += panel(size, list(found.values()), results["memory_bandwidth"], settings, top)
            top += HEIGHT + 12
    note = f"{settings['cpu']}, {settings['threads']} threads; a mark above a roof multiplies less than the direct count (Winograd)"
    parts.append(f'<text class="small" x="{WIDTH - 16}" y="{top + 4}" text-anchor="end">{escape(note)}</text>')
    return document("Roofline of onestep's layers", parts, top + 16, "\n" + OWN_STYLE)
