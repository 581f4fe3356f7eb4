"""Questions of everyday life, as different as a benchmark of likeness needs them: of no two is the answer the same."""

from __future__ import annotations

from typing import Final

_THINGS: Final = """
bake sourdough bread|change a bicycle tyre|unclog a kitchen sink|plant tomato seedlings|tune an acoustic guitar
remove candle wax from carpet|knit a woollen scarf|sharpen a kitchen knife|train a puppy to sit|brew cold coffee
fold a fitted sheet|prune rose bushes|repair a leaking roof|paint a wooden fence|write a cover letter
learn to juggle|install a ceiling fan|clean a cast iron pan|build a snowman|grow an avocado tree
frame a watercolour|whistle with two fingers|pack a hiking backpack|start a compost heap|cure a ham
iron a linen shirt|read a nautical chart|carve a pumpkin|solder copper pipes|make goat cheese
assemble a telescope|ferment cabbage|paddle a canoe|lay ceramic tiles|groom a poodle
sew a button on a coat|jump start a car|raise silkworms|fillet a trout|play the harmonica
wire a doorbell|press wild flowers|insulate an attic|shoe a horse|mix concrete
tie a bow tie|restore an antique clock|smoke salmon|skate backwards|trim a beard
wallpaper a bedroom|harvest honey|bind a book|descale a kettle|hang a hammock
stretch a canvas|defrost a freezer|cast a fishing line|polish brass candlesticks|plait a loaf
bleed a radiator|propagate succulents|fly a kite|distil lavender oil|waterproof leather boots
thread a sewing machine|catch a mouse humanely|decorate a wedding cake|balance a chequebook|surf a small wave
etch glass|season a wok|mend a fishing net|stack firewood|dye cotton with indigo
groom a ski slope|calibrate a thermometer|roast chestnuts|varnish a violin|upholster an armchair
milk a goat|weld aluminium|draw a portrait|pickle cucumbers|sail against the wind
develop black and white film|blow an ostrich egg|cross a glacier|temper chocolate|tile a bathroom floor
rewire a lamp|shear a sheep|ripen bananas|graft an apple tree|churn butter
""".strip()
ALIKE: Final[tuple[tuple[str, str], ...]] = tuple(
    (f"How do I {thing}?", f"How can I {thing}?") for line in _THINGS.splitlines() for thing in line.split("|")
)
"""Pairs that ask for one thing in other words."""
