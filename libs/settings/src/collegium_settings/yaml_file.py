"""YAML into plain data: the safe types only, and no key twice.

One rule: an error names the place and never quotes the line, which may hold a secret.
"""

from __future__ import annotations

from typing import Any

import yaml

# The C parser is ten times faster and is missing only where PyYAML was built without libyaml.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(Exception):
    """The file is not YAML; ``place`` is the line, ``read`` what the parser stumbled over."""

    def __init__(self, place: str, read: str) -> None:
        super().__init__(f"{place}: {read}")
        self.place = place
        self.read = read


class _Loader(_Base):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping; a key that stands twice is an error, where YAML would take the last one."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise YamlError(f"line {key_node.start_mark.line + 1}", f"the key {key_node.value!r} a second time")
                seen.add(key_node.value)
        parent: Any = super()
        return parent.construct_mapping(node, deep=deep)


def parse(data: bytes) -> Any:
    """Returns the document as dicts, lists and scalars; raises YamlError."""
    try:
        return yaml.load(data, Loader=_Loader)  # noqa: S506 - a safe loader by inheritance
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise YamlError(place, "what is no YAML") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise YamlError("somewhere", f"what is no YAML ({type(error).__name__})") from None
