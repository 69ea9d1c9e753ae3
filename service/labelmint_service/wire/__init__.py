"""The wire: all that knows gRPC, but for the server that starts and stops it.

listening         ports, with TLS or without
calls             what is the same for all: who calls, request ids, traces, status
servicer          requests to streams and back
token_guard       keeps callers without a token from reflection
admin_servicer    the same for what operators ask
version_messages  versions as messages
error_codes       which status an error is
rich_status       retry hints and the like as google.rpc details
health_board      grpc.health.v1: how the server, its models and their versions are
"""
