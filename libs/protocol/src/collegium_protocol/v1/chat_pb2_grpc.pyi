from collections.abc import AsyncIterator, Awaitable

import grpc
import grpc.aio
from collegium_protocol.v1 import chat_pb2

class ChatStub:
    def __init__(self, channel: grpc.aio.Channel) -> None: ...
    Complete: grpc.aio.UnaryUnaryMultiCallable[chat_pb2.ChatRequest, chat_pb2.ChatResponse]
    Stream: grpc.aio.UnaryStreamMultiCallable[chat_pb2.ChatRequest, chat_pb2.ChatChunk]

class ChatServicer:
    def Complete(self, request: chat_pb2.ChatRequest, context: grpc.aio.ServicerContext[chat_pb2.ChatRequest, chat_pb2.ChatResponse]) -> Awaitable[chat_pb2.ChatResponse]: ...
    def Stream(self, request: chat_pb2.ChatRequest, context: grpc.aio.ServicerContext[chat_pb2.ChatRequest, chat_pb2.ChatChunk]) -> AsyncIterator[chat_pb2.ChatChunk] | Awaitable[None]: ...

def add_ChatServicer_to_server(servicer: ChatServicer, server: grpc.aio.Server) -> None: ...
