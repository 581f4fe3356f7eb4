"""The gRPC contract as Python modules: ``collegium_protocol.v1.chat_pb2``, ``tasks_pb2`` and their ``_grpc`` stubs.

Everything under ``v1`` is generated from ``proto/`` (see ``proto/generate.py``). One rule: nothing is imported here,
because grpc is heavy and only a door or a client needs it.
"""
