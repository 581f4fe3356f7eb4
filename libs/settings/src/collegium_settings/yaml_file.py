"""YAML into plain data: the safe types only, no key twice, and ``${NAME}`` wherever a text may stand.

Within ``{…}`` YAML would take the braces of an unquoted ``${NAME}`` for its own. While a file is parsed they are two
other characters of the same width, so that places stay right, and every text gets them back. One rule: an error names
the place and never quotes the line, which may hold a secret.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import yaml

# The C parser is ten times faster and is missing only where PyYAML was built without libyaml.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_REFERENCE = re.compile(rb"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Characters that YAML allows in texts and gives no meaning: of each file, two that it does not hold.
_PRIVATE = range(0xE000, 0xF900)


class YamlError(Exception):
    """The file is not YAML; ``place`` is the line, ``read`` what the parser stumbled over."""

    def __init__(self, place: str, read: str) -> None:
        super().__init__(f"{place}: {read}")
        self.place = place
        self.read = read


class _Loader(_Base):
    # What stands for braces of references, and the braces.
    hidden: dict[int, str]

    def construct_scalar(self, node: Any) -> Any:
        """Builds a text, with the braces of its references."""
        parent: Any = super()
        built = parent.construct_scalar(node)
        return built.translate(self.hidden) if isinstance(built, str) else built

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping; a key that stands twice is an error, where YAML would take the last one."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    key = str(key_node.value).translate(self.hidden)
                    raise YamlError(f"line {key_node.start_mark.line + 1}", f"the key {key!r} a second time")
                seen.add(key_node.value)
        parent: Any = super()
        return parent.construct_mapping(node, deep=deep)


def parse(data: bytes) -> Any:
    """Returns the document as dicts, lists and scalars; raises YamlError."""
    free = list(itertools.islice((sign for sign in map(chr, _PRIVATE) if sign.encode() not in data), 2))
    opening, closing = free if len(free) == len("{}") else "{}"
    text = _REFERENCE.sub(rb"$%b\1%b" % (opening.encode(), closing.encode()), data)
    try:
        loader = _Loader(text)
        loader.hidden = {ord(opening): "{", ord(closing): "}"}
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise YamlError(place, "what is no YAML") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise YamlError("somewhere", f"what is no YAML ({type(error).__name__})") from None
