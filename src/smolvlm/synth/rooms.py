"""Simple rooms: a door that is open or closed, people, a pet, furniture; by day or in dim light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from smolvlm.synth.backgrounds import background, muted
from smolvlm.synth.finish import finish
from smolvlm.synth.objects import sprite
from smolvlm.synth.palette import luminance
from smolvlm.synth.people import RGB, Look, Pose, figure, random_look
from smolvlm.synth.questions import phrased
from smolvlm.synth.sample import FrameTruth, ItemTruth, Question, Sample, Split
from smolvlm.synth.words import with_article
from smolvlm.synth.world import World

MAX_PEOPLE = 3
PETS = ("dog", "cat")
FURNITURE = ("chair", "bed", "couch")
SLOTS = 4  # places side by side in which a person can stand; the door has its own
DOOR_SLOT = -1
_FLOOR_Y = 0.66  # of the side: where the wall ends
_FEET_Y = 0.80
_FURNITURE_Y = 0.74
_PET_Y = 0.985

_DOOR = ("Is the door open or closed?", "Is the door closed or open?", "What is the state of the door, open or closed?")
_PEOPLE = ("How many people are in the room?", "How many people do you see?", "How many people are there?", "Count the people.")
_PET = ("Which pet is in the room?", "What pet is in the room?", "Which animal is there?")
_FURNISHED = ("Is there {} in the room?", "Can you see {}?", "Does the room have {}?", "Is there {}?")


@dataclass(frozen=True)
class Person:
    """Somebody in a slot (DOOR_SLOT: in front of the door)."""

    look: Look
    slot: int
    pose: Pose = "standing"


@dataclass(frozen=True, eq=False)
class Room:
    """What stays the same in a clip. `shell` is wall, floor, window and furniture, RGB, without the door."""

    side_px: int
    shell: Image.Image
    door_on_left: bool
    door_rgb: RGB
    beyond_rgb: RGB
    furniture: ItemTruth | None
    dimness: float  # 1: day; below: light is scaled by it

    def slot_x(self, slot: int) -> float:
        """The middle of a slot in fractions of the side."""
        x = 0.14 if slot == DOOR_SLOT else 0.345 + 0.175 * slot
        return x if self.door_on_left else 1 - x


@dataclass(frozen=True)
class State:
    """What can change from frame to frame."""

    people: tuple[Person, ...] = ()
    door_open: bool = False
    pet: str | None = None
    pet_slot: int = 0


def draw_room(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """A room with 0 to 3 people in one picture; a third has no pet."""
    room = random_room(rng, world.side_px, split)
    state = random_state(rng, int(rng.integers(0, MAX_PEOPLE + 1)))
    picture, truth = render(room, state)
    questions = [
        Question("door", phrased(rng, _DOOR), "open" if state.door_open else "closed"),
        Question("people_count", phrased(rng, _PEOPLE), str(len(state.people))),
        Question("pet", phrased(rng, _PET), with_article(state.pet) if state.pet else "none"),
    ]
    shown = room.furniture.name if room.furniture in truth.items and room.furniture is not None else None
    if shown is not None and rng.random() < 0.7:
        questions.append(Question("furniture", phrased(rng, _FURNISHED, with_article(shown)), "yes"))
    elif shown is not None or room.furniture is None:  # of furniture behind people nothing is asked
        absent = str(rng.choice([name for name in FURNITURE if name != shown]))
        questions.append(Question("furniture", phrased(rng, _FURNISHED, with_article(absent)), "no"))
    return Sample("image", (finish(rng, picture, strength=0.6),), tuple(questions), truths=(truth,))


def random_room(rng: np.random.Generator, side: int, split: Split) -> Room:
    """An empty room whose wallpaper is one of the split's backgrounds."""
    shell = Image.new("RGB", (side, side))
    floor_y = round(_FLOOR_Y * side)
    wall = background(rng, side, floor_y, split)
    # Pale walls: figures and doors must stand out.
    shell.paste(Image.blend(wall, Image.new("RGB", wall.size, (235, 232, 226)), 0.45), (0, 0))
    draw = ImageDraw.Draw(shell)
    floor = muted(rng, 0.4, 0.7)
    draw.rectangle((0, floor_y, side, side), fill=floor)
    for i in range(1, 5):  # floor boards
        y = floor_y + (side - floor_y) * i // 5
        draw.line((0, y, side, y), fill=(floor[0] - 14, floor[1] - 14, floor[2] - 14))
    draw.rectangle((0, floor_y - side // 50, side, floor_y), fill=(floor[0] // 2, floor[1] // 2, floor[2] // 2))
    on_left = bool(rng.random() < 0.5)
    _window(draw, rng, side, on_left)
    furniture = _furnish(rng, shell, on_left) if rng.random() < 0.75 else None
    wood = 0.35 + 0.35 * float(rng.random())
    door = (round(190 * wood), round(130 * wood), round(85 * wood)) if rng.random() < 0.6 else muted(rng, 0.3, 0.5)
    # What shows through an open door is a dark hall or bright daylight, never the door's own brightness.
    beyond = (22, 22, 28) if luminance(door) > 75 else (250, 244, 214)
    dim = float(rng.uniform(0.45, 0.65)) if rng.random() < 0.15 else 1.0
    return Room(side, shell, on_left, door, beyond, furniture, dim)


def random_state(rng: np.random.Generator, people: int) -> State:
    """`people` standing in different slots, the door open in half of the rooms, a dog, a cat or no pet."""
    slots = rng.permutation(SLOTS)[:people]
    pet = (*PETS, None)[int(rng.integers(len(PETS) + 1))]
    persons = tuple(Person(random_look(rng), int(slot)) for slot in slots)
    return State(persons, bool(rng.random() < 0.5), pet, int(rng.integers(SLOTS)))


def render(room: Room, state: State) -> tuple[Image.Image, FrameTruth]:
    """The picture, and where its people, pet and furniture are; furniture more than half behind people is left out."""
    side = room.side_px
    canvas = room.shell.copy()
    _door(canvas, room, is_open=state.door_open)
    items = []
    # Those further left are drawn first; slots are wide enough that nobody hides another's head.
    for person in sorted(state.people, key=lambda one: one.slot):
        items.append(_stand(canvas, room, figure(person.look, person.pose, side), person.slot, _FEET_Y, "person"))
    if state.pet is not None:
        size = round(0.2 * side)
        pet = sprite(state.pet).resize((size, size), Image.Resampling.BILINEAR)
        items.append(_stand(canvas, room, pet, state.pet_slot, _PET_Y, state.pet))
    if room.furniture is not None and _covered(room.furniture, items) <= 0.5:
        items.append(room.furniture)
    if room.dimness < 1:
        canvas = canvas.point(lambda value: round(value * room.dimness))
    return canvas, FrameTruth(tuple(items))


def _furnish(rng: np.random.Generator, shell: Image.Image, door_on_left: bool) -> ItemTruth:
    """Put a piece of furniture at the wall, away from the door."""
    name, side = str(rng.choice(FURNITURE)), shell.width
    piece = sprite(name)
    box = piece.getchannel("A").getbbox()
    assert box is not None, "a sprite has pixels"
    piece = piece.crop(box)
    width, height = (round(0.3 * side * length / max(piece.size)) for length in piece.size)
    piece = piece.resize((width, height), Image.Resampling.BILINEAR)
    x = float(rng.uniform(0.28, 0.98 - width / side))
    left = round((x if door_on_left else 1 - x - width / side) * side)
    top = round(_FURNITURE_Y * side) - height
    shell.paste(piece, (left, top), piece)
    return ItemTruth(name, None, (left / side, top / side, (left + width) / side, (top + height) / side))


def _covered(furniture: ItemTruth, items: Sequence[ItemTruth]) -> float:
    """The share of the furniture's width that has something in front of it."""
    left, top, right, bottom = furniture.box
    columns = np.linspace(left, right, 40)
    behind = np.zeros(40, dtype=bool)
    for item in items:
        if item.box[1] >= bottom or item.box[3] <= top:
            continue
        behind |= (columns >= item.box[0]) & (columns <= item.box[2])
    return float(behind.mean())


def _stand(canvas: Image.Image, room: Room, picture: Image.Image, slot: int, bottom: float, name: str) -> ItemTruth:
    side = room.side_px
    left = round(room.slot_x(slot) * side - picture.width / 2)
    left = min(max(left, 1), side - picture.width - 1)  # one who lies needs more room than a slot
    top = round(bottom * side) - picture.height
    canvas.paste(picture, (left, top), picture)
    box = (left / side, top / side, (left + picture.width) / side, (top + picture.height) / side)
    return ItemTruth(name, None, box)


def _window(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, door_on_left: bool) -> None:
    left = float(rng.uniform(0.4, 0.7))
    left = left if door_on_left else 1 - left - 0.2
    box = (round(left * side), round(0.08 * side), round((left + 0.2) * side), round(0.27 * side))
    sky = (int(rng.integers(150, 190)), int(rng.integers(190, 215)), int(rng.integers(215, 240)))
    draw.rectangle(box, fill=sky, outline=(245, 245, 245), width=max(1, side // 80))
    draw.line(((box[0] + box[2]) // 2, box[1], (box[0] + box[2]) // 2, box[3]), fill=(245, 245, 245), width=max(1, side // 100))


def _door(canvas: Image.Image, room: Room, *, is_open: bool) -> None:
    """Closed: a leaf with two panels and a knob. Open: the room beyond, the leaf seen narrow at the hinges."""
    side, draw = room.side_px, ImageDraw.Draw(canvas)
    middle = room.slot_x(DOOR_SLOT) * side
    left, right = round(middle - 0.11 * side), round(middle + 0.11 * side)
    top, bottom = round(0.16 * side), round(_FLOOR_Y * side)
    frame = max(2, side // 60)
    draw.rectangle((left - frame, top - frame, right + frame, bottom), fill=(238, 234, 228))
    red, green, blue = room.door_rgb
    dark = (round(red * 0.7), round(green * 0.7), round(blue * 0.7))
    if is_open:
        draw.rectangle((left, top, right, bottom), fill=room.beyond_rgb)
        swing = round(0.075 * side)
        # The leaf has swung into the room: its free edge is nearer, so taller.
        leaf: Sequence[tuple[int, int]] = ((left, top), (left + swing, top + swing // 2), (left + swing, bottom + swing), (left, bottom))
        draw.polygon(leaf, fill=room.door_rgb, outline=dark)
        return
    draw.rectangle((left, top, right, bottom), fill=room.door_rgb)
    pad = round(0.03 * side)
    half = (top + bottom) // 2
    for panel in ((left + pad, top + pad, right - pad, half - pad // 2), (left + pad, half + pad // 2, right - pad, bottom - pad)):
        draw.rectangle(panel, outline=dark, width=max(1, side // 100))
    knob = round(0.016 * side)
    x = right - pad // 2 - knob
    draw.ellipse((x - knob, half - knob, x + knob, half + knob), fill=(226, 196, 90))
