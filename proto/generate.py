"""Generates ``libs/protocol`` from the proto files: messages, stubs and their types.

    python proto/generate.py [--out FOLDER]

Needs grpcio-tools. The modules stand in the package ``collegium_protocol.v1`` while the descriptors keep the names
``collegium/v1/*.proto``, so that anyone's own generated code describes the same files. One rule: the same proto files
and the same grpcio-tools give the same bytes; a test holds the repository to it.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
OUT = PROTO.parent / "libs" / "protocol" / "src"
PROTO_PACKAGE = "collegium.v1"
PACKAGE = "collegium_protocol.v1"
_IMPORT = re.compile(rf"^from {re.escape(PROTO_PACKAGE)} import ", re.MULTILINE)


def generate(out: Path) -> list[Path]:
    """Writes the generated package below ``out`` and returns the files' paths; raises SystemExit where protoc fails."""
    sources = sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))
    target = out.joinpath(*PACKAGE.split("."))
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder) / "descriptors.bin"
        well_known = files("grpc_tools") / "_proto"
        status = protoc.main([
            "protoc", f"--proto_path={PROTO}", f"--proto_path={well_known}", f"--python_out={folder}",
            f"--pyi_out={folder}", f"--grpc_python_out={folder}", f"--descriptor_set_out={descriptors}", *sources,
        ])  # fmt: skip
        if status != 0:
            raise SystemExit(status)
        written = [target / "__init__.py"]
        written[0].write_text('"""Generated from proto/collegium/v1 by proto/generate.py; not edited by hand."""\n')
        for made in sorted(Path(folder).joinpath(*PROTO_PACKAGE.split(".")).iterdir()):
            written.append(target / made.name)
            written[-1].write_text(_IMPORT.sub(f"from {PACKAGE} import ", made.read_text()))
        for file in FileDescriptorSet.FromString(descriptors.read_bytes()).file:
            written.append(target / f"{Path(file.name).stem}_pb2_grpc.pyi")
            written[-1].write_text(service_types(file))
    return written


def service_types(file: FileDescriptorProto) -> str:
    """Returns the types of a file's services, which protoc's own plugin leaves out: asyncio stubs and servicers."""
    messages = f"{Path(file.name).stem}_pb2"
    lines = [
        "from collections.abc import AsyncIterator, Awaitable",
        "",
        "import grpc",
        "import grpc.aio",
        f"from {PACKAGE} import {messages}",
    ]
    for service in file.service:
        lines += ["", f"class {service.name}Stub:", "    def __init__(self, channel: grpc.aio.Channel) -> None: ..."]
        for method in service.method:
            asked, answered = _types(messages, method)
            call = "UnaryStreamMultiCallable" if method.server_streaming else "UnaryUnaryMultiCallable"
            lines.append(f"    {method.name}: grpc.aio.{call}[{asked}, {answered}]")
        lines += ["", f"class {service.name}Servicer:"]
        for method in service.method:
            asked, answered = _types(messages, method)
            gives = (
                f"AsyncIterator[{answered}] | Awaitable[None]" if method.server_streaming else f"Awaitable[{answered}]"
            )
            context = f"grpc.aio.ServicerContext[{asked}, {answered}]"
            lines.append(f"    def {method.name}(self, request: {asked}, context: {context}) -> {gives}: ...")
        adds = f"def add_{service.name}Servicer_to_server"
        lines += ["", f"{adds}(servicer: {service.name}Servicer, server: grpc.aio.Server) -> None: ..."]
    return "\n".join(lines) + "\n"


def _types(messages: str, method: MethodDescriptorProto) -> tuple[str, str]:
    asked, answered = method.input_type.rpartition(".")[2], method.output_type.rpartition(".")[2]
    return f"{messages}.{asked}", f"{messages}.{answered}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Generates libs/protocol from the proto files.")
    parser.add_argument("--out", type=Path, default=OUT)
    for path in generate(parser.parse_args().out):
        sys.stdout.write(f"{path}\n")
