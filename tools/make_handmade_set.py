"""Draws the hand-made evaluation set: pictures that none of `smolvlm.synth`'s code had a part in.

Matplotlib, scikit-image and OpenCV draw on crops of real photographs (examples/media), lettered in fonts that training
does not use. Names and colours are the ones that `nano` knows. Run again only to make a new version of the set:

    pip install matplotlib scikit-image opencv-python-headless av
    python tools/make_handmade_set.py [OUT]          (OUT: src/smolvlm/evals/assets/handmade)
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import av
import cv2
import matplotlib.patches as mp
import numpy as np
import skimage.draw
import skimage.io
import skimage.transform
from handmade_things import RGB, SHAPES, THINGS, Thing, outline, turned
from matplotlib.figure import Figure
from matplotlib.path import Path as MplPath
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "src/smolvlm/evals/assets/handmade"

# (file, left, top, right, bottom): parts of the photographs that show nothing with a name of its own.
CROPS = (
    ("astronaut.png", 303, 6, 388, 91),
    ("astronaut.png", 303, 80, 383, 160),
    ("chelsea.png", 388, 130, 450, 192),
    ("chelsea.png", 25, 105, 125, 205),
    ("coffee.png", 455, 70, 595, 210),
    ("coffee.png", 490, 260, 598, 368),
    ("rocket.jpg", 205, 20, 300, 115),
    ("rocket.jpg", 20, 60, 80, 120),
    ("rocket.jpg", 325, 130, 435, 240),
)


class Set:
    """Writes files and their questions."""

    def __init__(self, out: Path) -> None:
        self.out, self.lines, self.count = out, [], 0
        out.mkdir(parents=True, exist_ok=True)

    def picture(self, pixels: np.ndarray, kind: str, questions: list[tuple[str, str, str]]) -> None:
        self.count += 1
        name = f"{self.count:02d}-{kind}.jpg"
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        for quality in (88, 80, 70, 60, 50):
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if len(data) <= 15_000:
                break
        (self.out / name).write_bytes(data.tobytes())
        self.ask(name, questions)

    def clip(self, frames: list[np.ndarray], fps: int, kind: str, questions: list[tuple[str, str, str]]) -> None:
        self.count += 1
        name = f"{self.count:02d}-{kind}.mp4"
        with av.open(str(self.out / name), "w") as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "27", "preset": "veryslow"})
            stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        self.ask(name, questions)

    def ask(self, file: str, questions: list[tuple[str, str, str]]) -> None:
        size = (self.out / file).stat().st_size
        assert size <= 15_000, f"{file} has {size} bytes"
        self.lines += [{"file": file, "task": task, "question": text, "answer": answer} for task, text, answer in questions]


def ground(rng: np.random.Generator, side: int, colours: list[str]) -> np.ndarray:
    """A crop of a photograph, (side, side, 3) uint8, paler or darker than life, on which all the colours stand out."""
    best, best_contrast = None, 0.0
    for _ in range(40):
        file, left, top, right, bottom = CROPS[int(rng.integers(len(CROPS)))]
        photo = skimage.io.imread(ROOT / "examples/media" / file)[top:bottom, left:right, :3]
        pixels = cv2.resize(photo, (side, side), interpolation=cv2.INTER_CUBIC).astype(float)
        if rng.random() < 0.5:
            pixels = ndimage.gaussian_filter(pixels, (side / 60, side / 60, 0))
        grey = pixels.mean(axis=2, keepdims=True)
        pixels = grey + (pixels - grey) * rng.uniform(0.2, 0.6)
        pixels = np.clip(pixels * rng.uniform(0.7, 1.3) + rng.uniform(-10, 40), 0, 255)
        mean = pixels.mean(axis=(0, 1))
        contrast = min(float(np.abs(mean - RGB[colour]).sum()) for colour in colours)
        if pixels.min(axis=2).mean() > 225:
            continue  # burnt out: nothing of the photograph is left
        if contrast > best_contrast:
            best, best_contrast = pixels.astype(np.uint8), contrast
        if contrast > 190:
            break
    assert best is not None, f"no ground suits {colours}"
    assert best_contrast > 100, f"no ground suits {colours}"
    return best


def with_matplotlib(pixels: np.ndarray, draw: list[Thing] | None = None, artist=None) -> np.ndarray:
    """Patches with an edge; `artist(axes)` may draw anything else. The axes go from 0 to 1, y downward."""
    side = len(pixels)
    figure = Figure(figsize=(side / 100, side / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(pixels, extent=(0, 1, 1, 0), interpolation="bicubic")
    axes.set_axis_off()
    for thing in draw or []:
        rgb = np.array(RGB[thing.colour]) / 255
        style = {"facecolor": rgb, "edgecolor": rgb * 0.7, "linewidth": 1.2}
        r, at = thing.size / 2, (thing.x, thing.y)
        if thing.name == "circle":
            patch = mp.Circle(at, r, **style)
        elif thing.name == "ring":
            patch = mp.Wedge(at, r, 0, 360, width=0.42 * r, **style)
        elif thing.name in ("triangle", "diamond"):
            # y runs downward: half a turn puts the triangle's corner on top.
            corners, start = (3, math.pi) if thing.name == "triangle" else (4, 0.0)
            patch = mp.RegularPolygon(at, corners, radius=r, orientation=start + math.radians(thing.angle_deg), **style)
        elif thing.name == "heart":
            curve = [(0, 0.95), (-1.3, 0.0), (-0.95, -1.05), (0, -0.4), (0.95, -1.05), (1.3, 0.0), (0, 0.95)]
            codes = [MplPath.MOVETO, *[MplPath.CURVE4] * 6]
            patch = mp.PathPatch(MplPath(turned(np.array(curve), thing, 1), codes), **style)
        else:
            patch = mp.Polygon(turned(outline(thing.name, 0.5), thing, 1), **style)
        axes.add_patch(patch)
    if artist is not None:
        artist(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def with_skimage(pixels: np.ndarray, things: list[Thing]) -> np.ndarray:
    """Masks at four times the size, a soft shadow below, light from above."""
    side, big = len(pixels), 4
    canvas = pixels.astype(float)
    for thing in things:
        points = turned(outline(thing.name), thing, side * big)
        mask = skimage.draw.polygon2mask((side * big, side * big), points[:, ::-1]).astype(float)
        if thing.name == "ring":
            disk = skimage.draw.disk((thing.y * side * big, thing.x * side * big), 0.26 * thing.size * side * big)
            mask[disk] = 0
        mask = skimage.transform.downscale_local_mean(mask, (big, big))
        shadow = ndimage.gaussian_filter(ndimage.shift(mask, 0.012 * side), 0.012 * side)
        canvas *= 1 - 0.35 * shadow[..., None]
        light = 1.06 - 0.16 * np.linspace(0, 1, side)[:, None, None]
        canvas = canvas * (1 - mask[..., None]) + np.array(RGB[thing.colour]) * light * mask[..., None]
    return np.clip(canvas, 0, 255).astype(np.uint8)


def with_opencv(pixels: np.ndarray, things: list[Thing]) -> np.ndarray:
    """Anti-aliased polygons, then the camera's blur and noise."""
    canvas, side = pixels.copy(), len(pixels)
    for thing in things:
        if thing.name in ("circle", "ring"):
            at, r = (round(thing.x * side), round(thing.y * side)), thing.size * side / 2
            wide = round(0.44 * r)
            radius = round(r) if thing.name == "circle" else round(r - wide / 2)
            cv2.circle(canvas, at, radius, RGB[thing.colour], -1 if thing.name == "circle" else wide, cv2.LINE_AA)
            continue
        points = np.round(turned(outline(thing.name, 0.4), thing, side) * 16).astype(np.int32)
        cv2.fillPoly(canvas, [points], RGB[thing.colour], cv2.LINE_AA, 4)
    noise = np.random.default_rng(int(canvas.sum())).normal(0, 3, (*canvas.shape[:2], 1))
    return np.clip(cv2.GaussianBlur(canvas, (0, 0), 0.6) + noise, 0, 255).astype(np.uint8)


PAINTERS = (with_matplotlib, with_skimage, with_opencv)


def scattered(rng: np.random.Generator, kinds: list[tuple[str, str]]) -> list[Thing]:
    """Shapes in different zones, near the middle of each."""
    zones = rng.permutation(9)[: len(kinds)]
    return [
        Thing(
            name,
            colour,
            (int(z) % 3 + 0.5) / 3 + rng.uniform(-0.025, 0.025),
            (int(z) // 3 + 0.5) / 3 + rng.uniform(-0.025, 0.025),
            rng.uniform(0.21, 0.28),
            rng.uniform(-10, 10),
        )
        for z, (name, colour) in zip(zones, kinds, strict=True)
    ]


def article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def at(place: str) -> str:
    return f"in the {place}" if place == "centre" else f"on the {place}" if place in ("left", "right") else f"at the {place}"


def caption(things: list[Thing]) -> str:
    named = [f"{article(t.phrase)} {at(t.place)}" for t in sorted(things, key=lambda t: (int(t.y * 3), int(t.x * 3)))]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def single_shapes(made: Set, rng: np.random.Generator) -> None:
    """Each colour once, large."""
    for i, colour in enumerate(RGB):
        name = SHAPES[i % 8]
        thing = Thing(name, colour, rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6), rng.uniform(0.45, 0.65), rng.uniform(-9, 9))
        other = list(RGB)[(i + 3) % 10]
        asked = f"{other} {name}" if i % 2 else thing.phrase
        made.picture(
            PAINTERS[i % 3](ground(rng, 224, [colour]), [thing]),
            "shape",
            [
                ("colour", f"What colour is the {name}?", colour),
                ("object", "What is this?", article(thing.phrase)),
                ("presence", f"Is there {article(asked)} in the picture?", "no" if i % 2 else "yes"),
                ("caption", "Describe this picture.", caption([thing])),
            ],
        )


def groups(made: Set, rng: np.random.Generator) -> None:
    """Two to four different shapes."""
    for i in range(14):
        names, colours = rng.permutation(SHAPES), rng.permutation(list(RGB))
        things = scattered(rng, [(str(n), str(c)) for n, c in zip(names[: 2 + i % 3], colours, strict=False)])
        pixels = PAINTERS[i % 3](ground(rng, (208, 240, 256)[i % 3], [t.colour for t in things]), things)
        first, second = things[0], things[1]
        questions = [
            ("caption", "What is in this picture?", caption(things)),
            ("position", f"Where is the {first.name}?", first.place),
            ("colour", f"What colour is the {second.name}?", second.colour),
            ("object", f"What is {at(first.place)}?", article(first.phrase)),
            ("presence", f"Is there {article(str(names[7]))}?", "no"),
            ("presence", f"Can you see {article(second.phrase)}?", "yes"),
        ]
        if int(first.x * 3) != int(second.x * 3):
            questions.append(
                ("spatial", f"Is the {first.name} left or right of the {second.name}?", "left" if first.x < second.x else "right")
            )
        if int(first.y * 3) != int(second.y * 3):
            questions.append(
                ("spatial", f"Is the {first.name} above or below the {second.name}?", "above" if first.y < second.y else "below")
            )
        made.picture(pixels, "group", questions)


def counts(made: Set, rng: np.random.Generator) -> None:
    """One to five of a kind, twice, with up to two others."""
    for i in range(10):
        number, name, other = i % 5 + 1, str(rng.choice(SHAPES)), str(rng.choice(SHAPES))
        while other == name:
            other = str(rng.choice(SHAPES))
        colours = [str(c) for c in rng.choice(list(RGB)[:7], number + i % 3)]
        things = scattered(rng, [(name if k < number else other, c) for k, c in enumerate(colours)])
        plural = "crosses" if name == "cross" else f"{name}s"
        made.picture(
            PAINTERS[(i + 1) % 3](ground(rng, 224, colours), things), "count", [("count", f"How many {plural} are there?", str(number))]
        )


WORDS = ("GO", "STOP", "CAFE", "XKU", "EXIT", "TOY", "QRBFW", "RIVER", "HVZ", "NEWS")
NUMBERS = ("7", "42", "318", "0", "95", "604", "3", "21", "777", "150")


def writing(made: Set, rng: np.random.Generator) -> None:
    """Words and numbers in DejaVu and STIX on plates, and in OpenCV's pen strokes."""
    families = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")
    inks = (("black", "white"), ("white", "blue"), ("white", "black"), ("red", "white"), ("black", "yellow"), ("white", "green"))
    for i, text in enumerate((*WORDS, *NUMBERS)):
        ink, plate = inks[i % len(inks)]
        pixels, x, y = ground(rng, 224, [plate]), rng.uniform(0.45, 0.55), rng.uniform(0.3, 0.7)
        if i % 5 == 4:
            height = 2.6 if len(text) < 3 else 1.9
            (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, height, 5)
            left, base = round(x * 224 - w / 2), round(y * 224 + h / 2)
            cv2.rectangle(pixels, (left - 8, base - h - 10), (left + w + 8, base + 10), RGB[plate], -1)
            cv2.putText(pixels, text, (left, base), cv2.FONT_HERSHEY_DUPLEX, height, RGB[ink], 5, cv2.LINE_AA)
        else:

            def lettered(axes, i=i, text=text, ink=ink, plate=plate, x=x, y=y):
                size = min(52, 150 / len(text)) * rng.uniform(0.75, 1.0)
                axes.text(
                    x,
                    y,
                    text,
                    size=size,
                    family=families[i % 4],
                    weight=("bold", "normal")[i % 2],
                    ha="center",
                    va="center",
                    color=np.array(RGB[ink]) / 255,
                    bbox={"facecolor": np.array(RGB[plate]) / 255, "edgecolor": "0.3", "boxstyle": ("round", "square")[i % 2]},
                )

            pixels = with_matplotlib(pixels, artist=lettered)
        if text.isdigit():
            made.picture(pixels, "number", [("reading_number", "What number is this?", text)])
        else:
            made.picture(pixels, "word", [("reading_word", "What does the sign say?", text)])


def objects(made: Set, rng: np.random.Generator) -> None:
    """A few everyday things on photographs."""
    for draw in THINGS:
        name = draw.__name__
        pixels = with_matplotlib(ground(rng, 224, ["red", "green", "white"]), artist=draw)
        made.picture(
            pixels,
            "object",
            [
                ("object", "What is this?", f"a {name}"),
                ("presence", f"Is there a {name} in the picture?", "yes"),
                ("presence", "Is there a banana?", "no"),
            ],
        )


FPS, SECONDS = 12, 5


def clips(made: Set, rng: np.random.Generator) -> None:
    """Five seconds each, at 12 frames a second, of one shape that acts while another one stays."""
    what = "What happens in the clip?"
    total = FPS * SECONDS
    steps = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    for i, (direction, (dx, dy)) in enumerate(steps.items()):
        mover = Thing(SHAPES[(2 * i + 1) % 8], list(RGB)[2 * i], 0.5, 0.5, 0.24)
        path = [0.5 + 0.33 * (2 * k / (total - 1) - 1) for k in range(total)]
        places = [replace(mover, x=p if dx > 0 else 1 - p, y=0.4) if dx else replace(mover, x=0.6, y=p if dy > 0 else 1 - p) for p in path]
        still = Thing("square", "white", 0.17, 0.83, 0.2)
        to = f"to the {direction}" if dx else direction
        pixels = ground(rng, 192, [mover.colour, "white"])
        made.clip(
            _filmed(pixels, [[still, place] for place in places]),
            FPS,
            "motion",
            [("event", what, f"the {mover.phrase} moves {to}"), ("motion", f"In which direction does the {mover.name} move?", direction)],
        )
    actor, still = Thing("star", "yellow", 0.5, 0.3, 0.27), Thing("circle", "blue", 0.2, 0.8, 0.24)
    # The reader samples a frame a second (at 0, 1.2, 2.4, 3.6, 4.9 s); each event lies just before one of them.
    for verb, at_s, comes in (("appear", 2.2, True), ("disappear", 3.4, False)):
        pixels = ground(rng, 192, ["yellow", "blue"])
        frames = [[still, actor] if (k / FPS >= at_s) == comes else [still] for k in range(total)]
        made.clip(
            _filmed(pixels, frames),
            FPS,
            "event",
            [("event", what, f"the {actor.phrase} {verb}s"), ("when", f"When does the {actor.name} {verb}?", f"at 00:0{math.floor(at_s)}")],
        )
    heart = Thing("heart", "red", 0.5, 0.5, 0.3)
    frames = [[heart if k / FPS < 2.2 else replace(heart, colour="green")] for k in range(total)]
    made.clip(_filmed(ground(rng, 192, ["red", "green"]), frames), FPS, "event", [("event", what, "the red heart turns green")])
    made.clip(_filmed(ground(rng, 192, ["yellow", "blue"]), [[still, actor]] * total), FPS, "event", [("event", what, "nothing happens")])


def _filmed(pixels: np.ndarray, scenes: list[list[Thing]]) -> list[np.ndarray]:
    soft = cv2.GaussianBlur(pixels, (0, 0), 3)  # a grainy ground would not fit into 15 kB
    return [cv2.GaussianBlur(with_skimage(soft, things), (0, 0), 0.5) for things in scenes]


def main(out: Path) -> None:
    made = Set(out)
    for old in out.glob("[0-9][0-9]-*"):
        old.unlink()
    for number, draw in enumerate((single_shapes, groups, counts, writing, objects, clips)):
        draw(made, np.random.default_rng([2025, number]))
    text = "".join(json.dumps(line) + "\n" for line in made.lines)
    (out / "metadata.jsonl").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{made.count} files, {len(made.lines)} questions in {out}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
