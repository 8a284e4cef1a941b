"""Make the pictures and fonts that `smolvlm.synth` draws with: run by hand when the list of objects or fonts changes.

    python tools/make_synth_assets.py objects /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf
    python tools/make_synth_assets.py fonts FOLDER     # FOLDER: the unpacked Debian packages named in FONTS

The results are committed (`src/smolvlm/synth/assets/`), so users and tests need neither the sources nor fontTools.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ASSETS = Path(__file__).resolve().parent.parent / "src" / "smolvlm" / "synth" / "assets"
SPRITE_PX = 96
ATLAS_COLUMNS = 12
EMOJI_STRIKE_PX = 109  # the one size that the bitmap font holds
MIN_ALPHA = 16  # fainter pixels are the font's soft rim: they would widen the box that is told as truth

# No name that is also a colour or a shape (orange, star, ring): a question would have two answers.
# One countable thing each: no plural-only or mass nouns (scissors, bread), no pairs (socks), no irregular plurals.
# Most recognizable and most different from each other first: the first 30 are what a nano model must tell apart.
OBJECTS: dict[str, int] = {
    "dog": 0x1F415,
    "cat": 0x1F408,
    "fish": 0x1F41F,
    "elephant": 0x1F418,
    "frog": 0x1F438,
    "butterfly": 0x1F98B,
    "car": 0x1F697,
    "bicycle": 0x1F6B2,
    "airplane": 0x2708,
    "boat": 0x26F5,
    "rocket": 0x1F680,
    "house": 0x1F3E0,
    "tree": 0x1F333,
    "flower": 0x1F33B,
    "cactus": 0x1F335,
    "mushroom": 0x1F344,
    "apple": 0x1F34E,
    "banana": 0x1F34C,
    "pizza": 0x1F355,
    "cake": 0x1F382,
    "cup": 0x2615,
    "book": 0x1F4D5,
    "clock": 0x23F0,
    "key": 0x1F511,
    "umbrella": 0x2602,
    "shoe": 0x1F45F,
    "guitar": 0x1F3B8,
    "ball": 0x26BD,
    "chair": 0x1FA91,
    "octopus": 0x1F419,
    "bird": 0x1F426,
    "snail": 0x1F40C,
    "turtle": 0x1F422,
    "horse": 0x1F40E,
    "cow": 0x1F404,
    "pig": 0x1F416,
    "sheep": 0x1F411,
    "rabbit": 0x1F407,
    "mouse": 0x1F401,
    "chicken": 0x1F413,
    "duck": 0x1F986,
    "owl": 0x1F989,
    "penguin": 0x1F427,
    "lion": 0x1F981,
    "tiger": 0x1F405,
    "monkey": 0x1F412,
    "giraffe": 0x1F992,
    "camel": 0x1F42A,
    "crocodile": 0x1F40A,
    "snake": 0x1F40D,
    "bee": 0x1F41D,
    "ladybug": 0x1F41E,
    "spider": 0x1F577,
    "crab": 0x1F980,
    "whale": 0x1F433,
    "shark": 0x1F988,
    "dolphin": 0x1F42C,
    "bus": 0x1F68C,
    "truck": 0x1F69A,
    "tractor": 0x1F69C,
    "train": 0x1F682,
    "motorcycle": 0x1F3CD,
    "helicopter": 0x1F681,
    "ambulance": 0x1F691,
    "anchor": 0x2693,
    "tent": 0x26FA,
    "castle": 0x1F3F0,
    "door": 0x1F6AA,
    "bed": 0x1F6CF,
    "couch": 0x1F6CB,
    "toilet": 0x1F6BD,
    "bathtub": 0x1F6C1,
    "strawberry": 0x1F353,
    "lemon": 0x1F34B,
    "pear": 0x1F350,
    "pineapple": 0x1F34D,
    "watermelon": 0x1F349,
    "tomato": 0x1F345,
    "carrot": 0x1F955,
    "eggplant": 0x1F346,
    "egg": 0x1F95A,
    "hamburger": 0x1F354,
    "cookie": 0x1F36A,
    "donut": 0x1F369,
    "candy": 0x1F36C,
    "bottle": 0x1F37E,
    "spoon": 0x1F944,
    "hat": 0x1F3A9,
    "crown": 0x1F451,
    "shirt": 0x1F455,
    "dress": 0x1F457,
    "scarf": 0x1F9E3,
    "backpack": 0x1F392,
    "handbag": 0x1F45C,
    "balloon": 0x1F388,
    "gift": 0x1F381,
    "camera": 0x1F4F7,
    "television": 0x1F4FA,
    "telephone": 0x260E,
    "laptop": 0x1F4BB,
    "lamp": 0x1F4A1,
    "candle": 0x1F56F,
    "hammer": 0x1F528,
    "wrench": 0x1F527,
    "saw": 0x1FA9A,
    "axe": 0x1FA93,
    "pencil": 0x270F,
    "bucket": 0x1FAA3,
    "broom": 0x1F9F9,
    "basket": 0x1F9FA,
    "ladder": 0x1FA9C,
    "lock": 0x1F512,
    "bell": 0x1F514,
    "drum": 0x1F941,
    "piano": 0x1F3B9,
    "violin": 0x1F3BB,
    "trumpet": 0x1F3BA,
    "basketball": 0x1F3C0,
    "trophy": 0x1F3C6,
    "kite": 0x1FA81,
    "robot": 0x1F916,
    "ghost": 0x1F47B,
    "bone": 0x1F9B4,
    "feather": 0x1FAB6,
    "leaf": 0x1F341,
    "sun": 0x2600,
    "moon": 0x1F319,
    "cloud": 0x2601,
    "rainbow": 0x1F308,
    "fire": 0x1F525,
    "newspaper": 0x1F4F0,
    "globe": 0x1F30D,
}

# File in the unpacked packages -> (Debian package, licence). The order numbers the files; splits are told in fonts.py.
# Left out: Carlito and Noto Sans, siblings of Lato and Open Sans; Vollkorn and EB Garamond, whose old-style 0 is an o.
FONTS: dict[str, tuple[str, str]] = {
    "truetype/liberation2/LiberationSans-Regular.ttf": ("fonts-liberation2", "OFL-1.1"),
    "truetype/liberation2/LiberationSerif-Bold.ttf": ("fonts-liberation2", "OFL-1.1"),
    "truetype/liberation2/LiberationMono-Bold.ttf": ("fonts-liberation2", "OFL-1.1"),
    "truetype/roboto/unhinted/RobotoTTF/Roboto-Bold.ttf": ("fonts-roboto-unhinted", "Apache-2.0"),
    "truetype/open-sans/OpenSans-Regular.ttf": ("fonts-open-sans", "Apache-2.0"),
    "truetype/lato/Lato-Bold.ttf": ("fonts-lato", "OFL-1.1"),
    "truetype/noto/NotoSerif-Regular.ttf": ("fonts-noto-core", "OFL-1.1"),
    "truetype/firacode/FiraCode-Medium.ttf": ("fonts-firacode", "OFL-1.1"),
    "truetype/play/Play-Bold.ttf": ("fonts-play", "OFL-1.1"),
    "truetype/comfortaa/Comfortaa-Bold.ttf": ("fonts-comfortaa", "OFL-1.1"),
    "truetype/crosextra/Caladea-Bold.ttf": ("fonts-crosextra-caladea", "Apache-2.0"),
    "opentype/cantarell/Cantarell-Bold.otf": ("fonts-cantarell", "OFL-1.1"),
    "opentype/comic-neue/ComicNeue-Bold.otf": ("fonts-comic-neue", "OFL-1.1"),
    "opentype/courier-prime/Courier Prime Bold.otf": ("fonts-courier-prime", "OFL-1.1"),
    "truetype/gentium-basic/GenBasB.ttf": ("fonts-sil-gentium-basic", "OFL-1.1"),
    "truetype/quicksand/Quicksand-Bold.ttf": ("fonts-quicksand", "OFL-1.1"),
}
CHARACTERS = "".join(map(chr, range(0x20, 0x7F))) + "\u00a3\u20ac"  # ASCII, pound, euro


def render_sprite(font: ImageFont.FreeTypeFont, code_point: int) -> Image.Image:
    """Draw one symbol, cropped tight, padded to a square and scaled to SPRITE_PX. RGBA, straight alpha."""
    canvas = Image.new("RGBA", (220, 220), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((40, 40), chr(code_point), font=font, embedded_color=True)
    alpha = np.asarray(canvas)[..., 3] >= MIN_ALPHA
    if not alpha.any():
        raise SystemExit(f"the font draws nothing for U+{code_point:X}")
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    tight = canvas.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    side = max(tight.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(tight, ((side - tight.width) // 2, (side - tight.height) // 2))
    return square.resize((SPRITE_PX, SPRITE_PX), Image.Resampling.LANCZOS)


def make_objects(emoji_font: Path) -> None:
    """Write `objects.png` (an atlas, row-major) and `objects.json` (the names in the same order)."""
    font = ImageFont.truetype(str(emoji_font), EMOJI_STRIKE_PX)
    rows = -(-len(OBJECTS) // ATLAS_COLUMNS)
    atlas = Image.new("RGBA", (ATLAS_COLUMNS * SPRITE_PX, rows * SPRITE_PX), (0, 0, 0, 0))
    for index, code_point in enumerate(OBJECTS.values()):
        place = (index % ATLAS_COLUMNS * SPRITE_PX, index // ATLAS_COLUMNS * SPRITE_PX)
        atlas.paste(render_sprite(font, code_point), place)
    atlas.save(ASSETS / "objects.png", optimize=True)
    table = {"sprite_px": SPRITE_PX, "columns": ATLAS_COLUMNS, "names": list(OBJECTS)}
    (ASSETS / "objects.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def subset_font(source: Path, number: int) -> str:
    """Write font `number` with our characters and our name only; gives its copyright line.

    The name changes because most of the licences reserve the original one; outlines and metrics stay as they are.
    """
    from fontTools import subset
    from fontTools.ttLib import TTFont

    font = TTFont(source)
    copyright_line = " ".join((font["name"].getDebugName(0) or "").split())
    missing = [character for character in CHARACTERS if ord(character) not in font.getBestCmap()]
    if missing:
        raise SystemExit(f"{source.name} lacks {missing}")
    # No layout features but kerning: ligatures such as Fira Code's `->` would draw other characters than the truth says.
    options = subset.Options(layout_features=["kern"], hinting=False, name_IDs=[0, 13, 14], desubroutinize=True)
    options.drop_tables += ["DSIG", "FFTM", "GDEF"]
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=CHARACTERS)
    subsetter.subset(font)
    family = f"SmolVLM Synth {number:02d}"
    for name_id, text in {1: family, 2: "Regular", 3: family, 4: family, 6: family.replace(" ", "-")}.items():
        font["name"].setName(text, name_id, 3, 1, 0x409)
    if "CFF " in font:
        table = font["CFF "].cff
        table.fontNames = [family.replace(" ", "-")]
        table.topDictIndex[0].FullName = table.topDictIndex[0].FamilyName = family
    font.save(ASSETS / "fonts" / f"{number:02d}{source.suffix}")
    return copyright_line


def make_fonts(folder: Path) -> None:
    """Write `fonts/NN.ttf` (or .otf) and print the table for LICENSES.md."""
    found = {path: next(folder.rglob(path), None) for path in FONTS}
    for number, (path, (package, licence)) in enumerate(FONTS.items(), start=1):
        source = found[path]
        if source is None:
            raise SystemExit(f"{path} is not below {folder}: unpack the Debian package {package} there")
        copyright_line = subset_font(source, number)
        print(f"| {number:02d}{source.suffix} | {source.stem} | {package} | {licence} | {copyright_line} |")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["objects", path]:
            make_objects(Path(path))
        case ["fonts", path]:
            make_fonts(Path(path))
        case _:
            raise SystemExit(__doc__)
