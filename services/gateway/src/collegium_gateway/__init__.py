"""The gateway: the platform's door. HTTP and gRPC, keys, admission, waiting and streaming, the tasks' read model.

It does not decide which model answers.
"""
